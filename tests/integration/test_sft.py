"""Instruction tuning from its start to its end: what is resumed, chained, stopped, refused."""

import json
import shutil

import pytest

from megatron_biollm.launch.status import read_status
from tests.integration.recipe import layout, log_of, rows, trained
from tests.integration.sft_run import finetune_here, write_inputs

SAVE = ["checkpoint.save_interval=2", "training.train_iters=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="module")
def inputs(folder):
    return write_inputs(folder)


@pytest.fixture(scope="module")
def start(world, inputs, folder):
    """A run to start others from; four steps, packed, with validation."""
    run = [f"run_dir={folder / 'start'}", f"data.valid_data_path=[{folder / 'b.jsonl'}]"]
    options = [*inputs, *SAVE, *run, "training.eval_interval=4", "training.eval_iters=2"]
    assert world.run(1, finetune_here, options, joined=False) == [4]
    return folder / "start"


def test_a_run_learns_and_tells_what_it_learnt_from(start, folder):
    losses = [row["loss"] for row in rows(start).values()]
    assert losses[-1] < losses[0] and rows(start)[4]["validation_loss"] > 0
    summary = json.loads((start / "data.json").read_text())
    counts = summary["files"][str(folder / "a.jsonl")]
    assert (counts["conversations"], counts["kept"] + counts["too_long"]) == (40, 40)
    assert 0.6 < summary["places_taken"] <= 1
    assert "conversations of" in log_of(start)


def test_a_checkpoint_holds_the_template_it_was_trained_with(start):
    from megatron_biollm.tokenizer.manifest import load_tokenizer

    folder = start / "checkpoints" / "step_00000004" / "tokenizer"
    assert "generation" in (folder / "chat_template.jinja").read_text()
    assert load_tokenizer(folder).vocab_size


def test_a_run_that_was_stopped_goes_on_exactly(world, inputs, start, tmp_path):
    options = [*inputs, *SAVE, f"run_dir={tmp_path}"]
    world.run(1, finetune_here, [*options, "training.exit_interval=2"], joined=False)
    assert read_status(tmp_path).state == "stopped"
    world.run(1, finetune_here, options, joined=False)
    assert trained(tmp_path) == trained(start)


@pytest.mark.parametrize("degrees", [{}, {"tp": 2}, {"pp": 2}], ids=["DP2", "TP2", "PP2"])
def test_two_ranks_do_as_one(world, inputs, start, tmp_path, degrees):
    options = [*inputs, "training.train_iters=4", f"run_dir={tmp_path}", *layout(**degrees)]
    assert world.run(2, finetune_here, options, joined=False) == [4, 4]
    for step, (loss, norm, batch) in trained(tmp_path).items():
        expected = trained(start)[step]
        assert (loss, norm) == pytest.approx(expected[:2], rel=1e-5) and batch == expected[2]


def chain(folder, tmp_path, second=""):
    path = tmp_path / "chain.yaml"
    path.write_text(
        f"run_dir: {tmp_path / 'chain'}\n"
        f"checkpoint: {{load: {folder / 'start'}}}\n"
        f"training: {{global_batch_size: 4, device: cpu, train_iters: 2}}\n"
        f"logging: {{tensorboard: false}}\n"
        f"stages:\n"
        f"  - {{name: one, data: {{train_data_path: [{folder / 'a.jsonl'}]}}}}\n"
        f"  - {{name: two, data: {{train_data_path: [{folder / 'b.jsonl'}]{second}}}}}\n"
    )
    return str(path)


def test_stages_follow_one_another_and_a_finished_one_is_not_repeated(
    world, folder, start, tmp_path
):
    file = chain(folder, tmp_path)
    one, two = tmp_path / "chain" / "1_one", tmp_path / "chain" / "2_two"
    stop = ["training.exit_interval=1"]
    assert world.run(1, finetune_here, stop, file, joined=False) == [1]
    assert read_status(one).state == "stopped" and not two.exists()
    assert world.run(1, finetune_here, [], file, joined=False) == [2]
    first = trained(one)
    assert f"took the weights alone from {one}/checkpoints/step_00000002" in log_of(two)
    assert len(trained(two)) == 2
    assert world.run(1, finetune_here, [], file, joined=False) == [0]
    assert trained(one) == first


def test_the_last_stage_is_looked_at_before_the_first_begins(world, folder, start, tmp_path):
    file = chain(folder, tmp_path, ", valid_data_path: [/nowhere.jsonl]")
    assert "/nowhere.jsonl is absent" in world.run(1, finetune_here, [], file, joined=False)[0]
    assert not (tmp_path / "chain").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.train_data_path=[]"], "data.train_data_path is empty"),
        (["data.train_data_path=[/nowhere.jsonl]"], "/nowhere.jsonl is absent or empty"),
        (["model.seq_length=4"], "none of the 40 conversations"),
        (["model.hidden_size=128", "checkpoint.load={start}"], "model.hidden_size is 64 in"),
        (["tokenizer.chat_template=llama2", "run_dir={again}"], "with another chat template"),
    ],
)
def test_what_cannot_be_trained_is_refused(world, inputs, start, tmp_path, overrides, message):
    again = tmp_path / "again"
    if "again" in overrides[-1]:
        shutil.copytree(start, again)
    options = [text.format(start=start, again=again) for text in overrides]
    options = [*inputs, "training.train_iters=8", f"run_dir={tmp_path / 'new'}", *options]
    assert message in world.run(1, finetune_here, options, joined=False)[0]
