import pytest

from megatron_biollm.config import UserError, dump_config, load_config
from megatron_biollm.recipes.finetune_config import FinetuneConfig, load_stages

RUN = ["model.preset=tiny", "data.train_data_path=[a.jsonl]"]


def stages(tmp_path, text, *overrides):
    path = tmp_path / "run.yaml"
    path.write_text(f"run_dir: runs/chain\nstages:\n{text}")
    return load_stages(path, [*RUN, *overrides])


def test_one_run_is_one_stage():
    (config,) = load_stages(None, RUN)
    assert (config.finetune.recipe, config.data.packing) == ("sft", True)
    assert not config.checkpoint.load_optimizer


def test_each_stage_differs_as_it_says_and_starts_from_the_last(tmp_path):
    one, two = stages(
        tmp_path,
        "  - {name: general, training: {train_iters: 7}}\n"
        "  - {name: qa, data: {packing: false}, optimizer: {lr: 1.0e-4}}\n",
        "training.seed=5",
    )
    assert [one.run_dir, two.run_dir] == ["runs/chain/1_general", "runs/chain/2_qa"]
    assert (one.checkpoint.load, two.checkpoint.load) == (None, "runs/chain/1_general")
    assert (one.training.train_iters, two.training.train_iters) == (7, 100)
    assert (one.data.packing, two.data.packing) == (True, False)
    assert one.training.seed == two.training.seed == 5


def test_what_a_stage_writes_down_is_a_run_of_its_own(tmp_path):
    (one, _) = stages(tmp_path, "  - {name: a}\n  - {name: b}\n")
    (tmp_path / "one.yaml").write_text(dump_config(one))
    assert load_config(FinetuneConfig, tmp_path / "one.yaml") == one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  - {training: {train_iters: 7}}\n", "stage 1 .* needs a name"),
        ("  - {name: a, run_dir: x}\n", "has no run_dir"),
        ("  - {name: a}\n  - {name: a}\n", "names differ"),
        ("  - {name: a/b}\n", "no slash"),
        ("  - {name: a, trainig: {train_iters: 7}}\n", "did you mean training"),
        ("  - {name: a}\n  - {name: b, model: {num_layers: 3}}\n", "model.num_layers is .* and 3"),
    ],
)
def test_stages_that_cannot_follow_each_other_are_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        stages(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("finetune.recipe=ppo", "finetune.recipe=ppo is unknown"),
        ("checkpoint.load_optimizer=true", "optimizer state of another task"),
        ("checkpoint.load=/nowhere", "/nowhere holds no checkpoint"),
        ("parallel.context_parallel_size=2", "data.packing=true does not go with"),
        ("data.num_workers=-1", "data.num_workers is -1"),
        ("data.split=1", "unknown config key data.split"),
    ],
)
def test_options_that_make_no_run_are_refused(override, message):
    with pytest.raises(UserError, match=message):
        load_stages(None, [*RUN, override])


def test_context_parallelism_goes_with_one_conversation_a_row():
    load_stages(None, [*RUN, "parallel.context_parallel_size=2", "data.packing=false"])
