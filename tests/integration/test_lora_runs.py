"""Runs that train adapters: resumed, started from each other, generated from and exported."""

import math
import shutil

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaForCausalLM

from megatron_biollm.checkpoint import verify
from megatron_biollm.config import UserError
from megatron_biollm.generation.sampling import SamplingOptions
from megatron_biollm.recipes.convert import ConversionConfig, export_to_hf
from megatron_biollm.recipes.convert_adapter import export_adapter
from megatron_biollm.recipes.generate import generate
from tests.distributed import WorkerError
from tests.integration.hugging_face import adapters_of
from tests.integration.recipe import layout, log_of, rows, trained
from tests.integration.sft_run import finetune_here, write_inputs
from tests.integration.test_preference_runs import (
    export,
    options_of,
    say,
    scores_of,
    write_pairs,
)

LORA = ["finetune.lora.rank=4", "finetune.lora.alpha=8", "optimizer.lr=1e-2"]
LAST = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="module")
def base(world, folder):
    """An instruction-tuned model without adapters."""
    options = [*write_inputs(folder), f"run_dir={folder / 'base'}", "training.train_iters=2"]
    assert world.run(1, finetune_here, options, joined=False) == [2]
    write_pairs(folder / "pairs.jsonl")
    return folder / "base"


def sft(start, run_dir, *more):
    """Options of a run of LAST steps that saves after the second."""
    return [
        f"checkpoint.load={start}",
        f"data.train_data_path=[{start.parent / 'a.jsonl'}]",
        f"run_dir={run_dir}",
        "training.global_batch_size=4",
        f"training.train_iters={LAST}",
        "training.device=cpu",
        "checkpoint.save_interval=2",
        "logging.tensorboard=false",
        *LORA,
        *more,
    ]


def run(world, options, size=1):
    return world.run(size, finetune_here, options, joined=False)[0]


@pytest.fixture(scope="module")
def tuned(world, base, folder):
    assert run(world, sft(base, folder / "tuned")) == LAST
    return folder / "tuned"


def step(run_dir, number=LAST):
    return run_dir / "checkpoints" / f"step_{number:08d}"


def test_a_run_begins_with_the_base(world, base, tuned, tmp_path):
    whole = sft(base, tmp_path, "finetune.lora.rank=0", "training.train_iters=1")
    assert run(world, whole) == 1
    assert rows(tuned)[1]["loss"] == rows(tmp_path)[1]["loss"]  # to the bit


def test_a_run_that_was_cut_off_goes_on_exactly(world, base, tuned, tmp_path):
    run(world, sft(base, tmp_path, "training.exit_interval=2"))
    assert run(world, sft(base, tmp_path)) == LAST
    assert trained(tmp_path) == trained(tuned)


@pytest.mark.parametrize("degrees", [{"tp": 2, "sp": "true"}, {"pp": 2}], ids=["TP2+SP", "PP2"])
def test_a_run_goes_on_in_another_layout(world, base, tuned, tmp_path, degrees):
    run(world, sft(base, tmp_path, "training.exit_interval=2"))
    assert run(world, sft(base, tmp_path, *layout(**degrees)), size=2) == LAST
    for number, (loss, *_) in trained(tmp_path).items():
        assert loss == pytest.approx(trained(tuned)[number][0], rel=1e-5)


@pytest.mark.parametrize("changed", ["alpha=16", "rank=8", "rank=0", "target_modules=[linear_qkv]"])
def test_a_run_goes_on_with_the_adapters_it_began_with(world, base, tuned, changed):
    options = sft(base, tuned, f"finetune.lora.{changed}", "training.train_iters=6")
    refused = run(world, options)
    assert "was trained with adapters (finetune.lora.rank=4, alpha=8" in refused


def test_a_run_without_adapters_gets_none_on_the_way(world, base, tmp_path):
    run(world, sft(base, tmp_path, "finetune.lora.rank=0", "training.train_iters=2"))
    assert "was trained with no adapters" in run(world, sft(base, tmp_path))


def test_who_starts_from_adapters_starts_from_the_merged_model(world, base, tuned, tmp_path):
    """With adapters of its own, in another layout, or as a whole: the same first loss."""
    first = "training.train_iters=1"
    run(world, sft(tuned, tmp_path / "adapters", first))
    run(world, sft(tuned, tmp_path / "tp2", first, *layout(tp=2)), size=2)
    run(world, sft(tuned, tmp_path / "pp2", first, *layout(pp=2)), size=2)
    run(world, sft(tuned, tmp_path / "whole", first, "finetune.lora.rank=0"))
    losses = {name: rows(tmp_path / name)[1]["loss"] for name in ("adapters", "tp2", "pp2")}
    expected = rows(tmp_path / "whole")[1]["loss"]
    assert losses["adapters"] == expected
    assert list(losses.values()) == pytest.approx([expected] * 3, rel=1e-5)
    assert abs(expected - rows(tuned)[1]["loss"]) > 1e-2  # the base's is another


def test_dpo_with_adapters_begins_at_log_2_and_learns(world, tuned, folder, tmp_path):
    options = [*options_of(tuned, "dpo", tmp_path), *LORA]
    assert run(world, options) == LAST
    assert rows(tmp_path)[1]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows(tmp_path)[LAST]["loss"] < math.log(2)
    assert f"took the weights alone from {step(tuned)}" in log_of(tmp_path)


def apart(folder, lora, tokens):
    """Logits of the model as it was trained, base and adapters apart; and all its weights."""
    from megatron.core import dist_checkpointing

    from megatron_biollm.checkpoint.content import model_content
    from megatron_biollm.device.runtime import select_device
    from megatron_biollm.model.lora_config import LoraConfig
    from megatron_biollm.parallel.layout import ParallelConfig
    from megatron_biollm.parallel.parallelize import parallelize
    from megatron_biollm.parallel.process_groups import create_process_groups
    from megatron_biollm.recipes.run_config import load_model_config

    sizes, layout = load_model_config(folder).model, ParallelConfig()
    groups, lora = create_process_groups(layout), LoraConfig(**lora)
    model = parallelize(sizes, layout, select_device("cpu"), groups, False, 0, False, lora=lora)
    loaded = dist_checkpointing.load(model_content(model), str(folder))
    model.chunks[0].load_state_dict(loaded["model"])
    places = torch.arange(tokens.shape[1]).expand_as(tokens)
    with torch.no_grad():
        logits = model.chunks[0](tokens, places, None)[..., : sizes.vocab_size]
    return (
        logits.clone(),
        {n: v.clone() for n, v in model.chunks[0].state_dict().items() if v is not None},
        sizes,
    )


TOKENS = torch.arange(48).view(2, 24) * 7 % 300


@pytest.fixture(scope="module")
def ours(world, tuned):
    return world.run(1, apart, step(tuned), {"rank": 4, "alpha": 8.0}, TOKENS)[0]


def logits_of(model):
    with torch.no_grad():
        return model.eval()(TOKENS).logits


@pytest.fixture(scope="module")
def exported(world, base, tuned, folder):
    export_to_hf(ConversionConfig(base, folder / "base_hf"))
    export_to_hf(ConversionConfig(tuned, folder / "merged_hf"))
    return folder


def load_hf(path):
    return LlamaForCausalLM.from_pretrained(path, dtype=torch.float32)


def test_the_export_is_merged(ours, exported):
    merged = logits_of(load_hf(exported / "merged_hf"))
    assert (merged - ours[0]).abs().max() < 1e-4
    assert (logits_of(load_hf(exported / "base_hf")) - ours[0]).abs().max() > 1e-2


@pytest.fixture(scope="module")
def adapter(exported, tuned):
    export_adapter(ConversionConfig(tuned, exported / "adapter"))
    return exported / "adapter"


def test_peft_loads_the_adapters_on_the_exported_base(ours, exported, adapter):
    peft = pytest.importorskip("peft", reason="PEFT's form needs peft, of the dev extra")
    model = peft.PeftModel.from_pretrained(load_hf(exported / "base_hf"), adapter)
    assert (logits_of(model) - ours[0]).abs().max() < 1e-4
    merged = logits_of(load_hf(exported / "merged_hf"))
    assert (logits_of(model.merge_and_unload()) - merged).abs().max() < 1e-5


def test_every_adapter_is_where_transformers_has_its_matrix(ours, adapter):
    from safetensors.torch import load_file

    written, (_, weights, sizes) = load_file(adapter / "adapter_model.safetensors"), ours
    expected = adapters_of(weights, sizes)
    assert len(written) == 2 * len(expected) == 2 * 7 * sizes.num_layers
    for name, pair in expected.items():
        for which, values in zip("AB", pair, strict=True):
            stored = written[f"base_model.model.{name}.lora_{which}.weight"]
            assert torch.equal(stored, values)
    assert (adapter / "chat_template.jinja").is_file()


def test_what_has_no_adapters_gives_none(base, tmp_path):
    with pytest.raises(UserError, match="holds no adapters"):
        export_adapter(ConversionConfig(base, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def said(run_dir):
    options = SamplingOptions(max_new_tokens=8, greedy=True)
    found = generate(run_dir, ["heart", "the liver"], options, 1, "cpu")
    return [(row.prompt_tokens, row.tokens) for row in found]


def test_generation_has_the_adapters(world, tuned, base, exported):
    model = load_hf(exported / "merged_hf")
    rows = world.run(1, said, tuned, joined=False)[0]
    for prompt, tokens in rows:
        written = model.generate(
            torch.tensor([prompt]), max_new_tokens=8, do_sample=False, pad_token_id=0
        )
        assert written[0, len(prompt) :].tolist()[: len(tokens)] == tokens
    assert rows != world.run(1, said, base, joined=False)[0]


def without_a_word(step, tmp_path):
    """The checkpoint with adapters that nothing tells of, committed again."""
    folder = tmp_path / step.name
    shutil.copytree(step, folder)
    (folder / "lora.json").unlink()
    digests = verify.digest_files(folder, verify.files_to_digest(folder))
    verify.seal(folder, digests)
    return folder


def test_adapters_are_never_left_out_silently(world, tuned, base, tmp_path):
    folder = without_a_word(step(tuned), tmp_path)
    with pytest.raises(WorkerError, match="adapters but no lora.json"):
        world.run(1, said, folder, joined=False)
    with pytest.raises(UserError, match="adapters but no lora.json"):
        export_to_hf(ConversionConfig(folder, tmp_path / "out"))
    options = sft(folder, tmp_path / "run", "finetune.lora.rank=0")
    options += [f"data.train_data_path=[{base.parent / 'a.jsonl'}]"]
    refused = run(world, options)
    assert "adapters but no lora.json" in refused


def test_a_reward_model_is_tuned_with_adapters_and_its_head(world, tuned, folder, tmp_path):
    assert run(world, [*options_of(tuned, "reward", tmp_path / "run"), *LORA]) == LAST
    conversation = [*say("user", ["heart"]), *say("assistant", ["liver"])]
    scores = world.run(1, scores_of, tmp_path / "run", [conversation], joined=False)[0]
    world.run(1, export, tmp_path / "run", tmp_path / "out", joined=False)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    reader = AutoTokenizer.from_pretrained(tmp_path / "out")
    asked = reader.apply_chat_template([conversation], return_dict=True, return_tensors="pt")
    with torch.no_grad():
        assert model(**asked).logits[:, 0].tolist() == pytest.approx(scores, abs=1e-5)
    with pytest.raises(UserError, match="is a reward model, whose head is no adapter"):
        export_adapter(ConversionConfig(tmp_path / "run", tmp_path / "adapter"))
