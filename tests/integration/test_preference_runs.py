"""Preference and reward runs from their start to their end: references, layouts, resuming."""

import json
import math
import random

import pytest
import torch

from megatron_biollm.finetune.preferences import read_pairs
from megatron_biollm.recipes.score import rank_pairs
from tests.distributed import WorkerError
from tests.integration.recipe import MODEL, layout, log_of, rows, trained
from tests.integration.sft_run import WORDS, finetune_here, write_inputs


def say(role, words):
    return [{"role": role, "content": " ".join(words)}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="module")
def start(world, folder):
    """An instruction-tuned model to start from, and pairs in which the reverse is preferred."""
    options = [*write_inputs(folder), f"run_dir={folder / 'start'}", "training.train_iters=2"]
    assert world.run(1, finetune_here, options, joined=False) == [2]
    write_pairs(folder / "pairs.jsonl")
    return folder / "start"


def write_pairs(path):
    dice = random.Random(1)
    with path.open("w") as file:
        for _ in range(16):
            words = dice.sample(WORDS, k=dice.randint(2, 5))
            answers = {"chosen": words[::-1], "rejected": words}
            row = {name: say("assistant", text) for name, text in answers.items()}
            file.write(json.dumps({"prompt": say("user", words), **row}) + "\n")


def options_of(start, recipe, run_dir, *more):
    return [
        f"checkpoint.load={start}",
        f"data.train_data_path=[{start.parent / 'pairs.jsonl'}]",
        f"finetune.recipe={recipe}",
        f"run_dir={run_dir}",
        "model.seq_length=96",
        "optimizer.lr=1e-3",
        "training.global_batch_size=8",
        "training.train_iters=4",
        "training.device=cpu",
        "checkpoint.save_interval=2",
        "logging.tensorboard=false",
        *more,
    ]


@pytest.fixture(scope="module")
def dpo(world, start, folder):
    options = options_of(
        start, "dpo", folder / "dpo", f"data.valid_data_path=[{folder / 'pairs.jsonl'}]"
    )
    options += ["training.eval_interval=4", "training.eval_iters=2"]
    assert world.run(1, finetune_here, options, joined=False) == [4]
    return folder / "dpo"


def test_dpo_begins_at_log_2_and_learns(dpo):
    first, last = rows(dpo)[1], rows(dpo)[4]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-6)
    assert last["validation_loss"] < math.log(2)
    assert 0 < first["computed_share"] < 1  # rows are shorter than model.seq_length
    assert last["validation_rewards/accuracies"] > 0.5


def test_the_reference_is_computed_once(world, start, dpo, tmp_path):
    """Also for another micro-batch size, which begins at log 2 from the same file."""
    assert "reference log p of 16 samples" in log_of(dpo)
    options = options_of(start, "dpo", tmp_path, "training.micro_batch_size=4")
    world.run(1, finetune_here, [*options, "training.train_iters=1"], joined=False)
    assert "reference log p of" not in log_of(tmp_path)
    assert rows(tmp_path)[1]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_the_start_is_read_once(dpo, reward, start):
    for run in (dpo, reward):
        assert log_of(run).count(f"took the weights alone from {start}") == 1


def test_a_run_that_was_cut_off_goes_on_exactly(world, start, dpo, tmp_path):
    options = options_of(start, "dpo", tmp_path)
    world.run(1, finetune_here, [*options, "training.exit_interval=2"], joined=False)
    world.run(1, finetune_here, options, joined=False)
    assert trained(tmp_path) == trained(dpo)


@pytest.mark.parametrize("degrees", [{"tp": 2}, {"pp": 2}], ids=["TP2", "PP2"])
def test_two_ranks_do_as_one(world, start, dpo, folder, tmp_path, degrees):
    """With a reference of their own."""
    options = options_of(start, "dpo", tmp_path, *layout(**degrees))
    options += [f"finetune.reference_path={tmp_path / 'reference'}"]
    assert world.run(2, finetune_here, options, joined=False) == [4, 4]
    for step, (loss, norm, batch) in trained(tmp_path).items():
        expected = trained(dpo)[step]
        assert (loss, norm) == pytest.approx(expected[:2], rel=1e-5) and batch == expected[2]


@pytest.mark.parametrize("name", ["checkpoint", "tokenizer", "template"])
def test_a_reference_of_something_else_is_refused(world, start, dpo, folder, tmp_path, name):
    (kept,) = folder.glob("pairs.jsonl.tokens/*/reference_*.jsonl")
    header, *lines = kept.read_text().splitlines()
    changed = json.loads(header)
    changed["reference"][name] = "0" * 64
    other = tmp_path / "pairs.jsonl.reference.jsonl"
    other.write_text("\n".join([json.dumps(changed), *lines]) + "\n")
    options = options_of(start, "dpo", tmp_path / "run", f"finetune.reference_path={tmp_path}")
    (refused,) = world.run(1, finetune_here, options, joined=False)
    assert f"are of another {name} than this run's" in refused


def test_a_torn_reference_is_completed(world, start, dpo, folder, tmp_path):
    (kept,) = folder.glob("pairs.jsonl.tokens/*/reference_*.jsonl")
    other = tmp_path / "pairs.jsonl.reference.jsonl"
    other.write_text(kept.read_text()[: kept.stat().st_size // 2])
    options = options_of(start, "dpo", tmp_path / "run", f"finetune.reference_path={tmp_path}")
    world.run(1, finetune_here, [*options, "training.train_iters=1"], joined=False)
    assert sorted(other.read_text().splitlines()) == sorted(kept.read_text().splitlines())


def test_dpo_without_a_start_is_refused(world, start, tmp_path):
    options = [o for o in options_of(start, "dpo", tmp_path) if not o.startswith("checkpoint.load")]
    options += [f"tokenizer.tokenizer_model={start.parent / 'tokenizer'}"]
    options += [f"model.{name}={value}" for name, value in (MODEL | {"seq_length": 96}).items()]
    (refused,) = world.run(1, finetune_here, options, joined=False)
    assert "checkpoint.load is not given" in refused


def test_kto_runs_on_the_answers_of_pairs(world, start, tmp_path):
    options = options_of(start, "dpo", tmp_path, "finetune.loss_type=kto")
    assert world.run(1, finetune_here, options, joined=False) == [4]
    first = rows(tmp_path)[1]
    assert (first["loss"], first["kl"]) == (
        pytest.approx(0.5, abs=1e-6),
        pytest.approx(0, abs=1e-5),
    )
    assert "32 samples" in log_of(tmp_path)


@pytest.fixture(scope="module")
def reward(world, start, folder):
    options = options_of(start, "reward", folder / "reward")
    assert world.run(1, finetune_here, options, joined=False) == [4]
    return folder / "reward"


def test_a_reward_model_learns_from_an_instruction_tuned_one(reward, start):
    assert f"took the weights alone from {start}/checkpoints/step_00000002" in log_of(reward)
    assert rows(reward)[4]["loss"] < rows(reward)[1]["loss"]


def test_a_reward_model_goes_on_in_another_layout(world, start, reward, tmp_path):
    options = options_of(start, "reward", tmp_path)
    world.run(1, finetune_here, [*options, "training.exit_interval=2"], joined=False)
    world.run(2, finetune_here, [*options, *layout(pp=2)], joined=False)
    for step, (loss, *_) in trained(tmp_path).items():
        assert loss == pytest.approx(trained(reward)[step][0], rel=1e-5)


def conversations(folder):
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    return [row["prompt"] + row[name] for row in rows for name in ("chosen", "rejected")]


def scores_of(checkpoint, conversations, overrides=()):
    from megatron_biollm.recipes.score import score

    return score(checkpoint, conversations, "cpu", overrides, micro_batch_size=5)


@pytest.fixture(scope="module")
def scores(world, reward, folder):
    return world.run(1, scores_of, reward, conversations(folder), joined=False)[0]


def test_scores_rank_as_training_said(scores, folder, reward):
    pairs = read_pairs(folder / "pairs.jsonl")
    report = rank_pairs(pairs, scores)
    low, high = report["accuracy_interval"]
    assert report["pairs"] == 16 and low <= report["accuracy"] <= high
    assert report["longer_wins"] == 0.5  # the same words, so always a tie


@pytest.mark.parametrize("degrees", [{"tp": 2}, {"pp": 2}], ids=["TP2", "PP2"])
def test_scores_are_the_same_in_every_layout(world, scores, folder, reward, degrees):
    found = world.run(2, scores_of, reward, conversations(folder), layout(**degrees), joined=False)
    assert found[0] == found[1] == pytest.approx(scores, rel=1e-5, abs=1e-6)


def test_a_language_model_has_no_scores_and_a_reward_model_no_words(world, start, reward, folder):
    said = conversations(folder)
    with pytest.raises(WorkerError, match="is no reward model"):
        world.run(1, scores_of, start, said, joined=False)
    with pytest.raises(WorkerError, match="which scores answers and writes none"):
        world.run(1, written_by, reward, joined=False)
    assert world.run(1, written_by, start, joined=False)[0]


def written_by(checkpoint):
    from megatron_biollm.generation.sampling import SamplingOptions
    from megatron_biollm.recipes.generate import generate

    options = SamplingOptions(max_new_tokens=2)
    return [len(row.tokens) for row in generate(checkpoint, ["heart"], options, 1, "cpu")]


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_export_scores_the_same_under_any_padding(scores, reward, folder, exported, side):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(exported).eval()
    tokenizer = AutoTokenizer.from_pretrained(exported, padding_side=side)
    assert type(model).__name__ == "LlamaForSequenceClassification"
    batch = tokenizer.apply_chat_template(
        conversations(folder), padding=True, return_dict=True, return_tensors="pt"
    )
    assert 0 in batch["attention_mask"]
    with torch.no_grad():
        found = model(**batch).logits[:, 0]
    assert found.tolist() == pytest.approx(scores, abs=1e-6)


@pytest.fixture(scope="module")
def exported(world, reward, folder):
    world.run(1, export, reward, folder / "exported", joined=False)
    return folder / "exported"


def export(source, output):
    from megatron_biollm.recipes.convert import ConversionConfig, export_to_hf

    export_to_hf(ConversionConfig(source, output))
