import os
import shutil

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.generation.sampling import SamplingOptions
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.recipes.generate import candidates, choose_layout, generate
from tests.generation import small_model
from tests.generation.saved_run import save_run
from tests.generation.small_model import layout, plain

GREEDY = SamplingOptions(max_new_tokens=12, greedy=True)
PROMPTS = ["Patients with", "the cells of the liver"]
TP2, PP2 = (f"parallel.{kind}_model_parallel_size=2" for kind in ("tensor", "pipeline"))


def written(checkpoint, overrides=(), prompts=PROMPTS, **options):
    return plain(
        generate(checkpoint, prompts, GREEDY, device_name="cpu", overrides=overrides, **options)
    )


def refusal(checkpoint, overrides=(), prompts=PROMPTS):
    with pytest.raises(UserError) as error:
        written(checkpoint, overrides, prompts)
    return str(error.value)


@pytest.fixture(scope="module")
def run_dir(world, tokenizer_folder, tmp_path_factory):
    """Trained, so to speak, by two pipeline stages, with checkpoints of steps 5 and 10."""
    run_dir = tmp_path_factory.mktemp("run")
    world.run(2, save_run, run_dir, tokenizer_folder, layout(pp=2), [5, 10])
    return run_dir


def written_by_the_model(folder, prompts):
    generator = small_model.build_generator(folder, layout())
    return plain(generator.generate([generator.encode(prompt) for prompt in prompts], GREEDY))


@pytest.fixture(scope="module")
def expected(world, tokenizer_folder):
    return world.run(1, written_by_the_model, tokenizer_folder, PROMPTS)[0]


@pytest.mark.parametrize(
    ("size", "overrides"),
    [(1, []), (2, []), (2, [TP2]), (4, [TP2, PP2])],
    ids=["one process", "layout of training", "TP2", "TP2xPP2"],
)
def test_a_checkpoint_writes_the_same_in_every_layout(world, run_dir, expected, size, overrides):
    rows = world.run(size, written, run_dir, overrides, joined=False)
    assert all(row == expected for row in rows) and len(rows) == size


def told_by_rank_0(checkpoint):
    pieces = []
    prompts = PROMPTS[:1] if os.environ["RANK"] == "0" else []
    rows = generate(
        checkpoint, prompts, GREEDY, 2, "cpu", [TP2], lambda row, piece: pieces.append(row)
    )
    return len(rows), set(pieces)


def test_prompts_and_words_are_those_of_rank_0(world, run_dir):
    told = world.run(2, told_by_rank_0, run_dir, joined=False)
    assert told == [(2, {0, 1}), (2, set())]


def test_a_damaged_checkpoint_is_named_and_an_older_one_of_the_run_used(
    world, run_dir, expected, tmp_path
):
    shutil.copytree(run_dir, tmp_path / "run")
    newest = tmp_path / "run/checkpoints/step_00000010"
    file = next(newest.glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert world.run(1, written, tmp_path / "run", joined=False) == [expected]
    for message in world.run(2, refusal, newest, [TP2], joined=False):
        assert file.name in message
    shutil.rmtree(tmp_path / "run/checkpoints/step_00000005")
    (message,) = world.run(1, refusal, tmp_path / "run", joined=False)
    assert file.name in message


def test_a_prompt_longer_than_the_context_is_refused(world, run_dir):
    (message,) = world.run(1, refusal, run_dir, [], ["and so on 1.2.3 " * 30], joined=False)
    assert "context is 64" in message and "shorten the prompt" in message


def test_layouts_that_do_not_fill_the_world_are_refused(world, run_dir):
    for message in world.run(2, refusal, run_dir, [TP2, PP2], joined=False):
        assert "2 processes and TP2 x PP2 = 4" in message and "--nproc_per_node 4" in message


def test_only_the_layout_may_be_overridden(run_dir):
    assert "unknown config key model: known: parallel" in refusal(run_dir, ["model.num_layers=2"])
    assert "leave it out" in refusal_of_layout(ParallelConfig(context_parallel_size=2))


def refusal_of_layout(asked):
    with pytest.raises(UserError) as error:
        choose_layout(asked, ParallelConfig(), 1)
    return str(error.value)


def test_stages_that_were_interleaved_become_plain_ones():
    trained = layout(tp=2, pp=2, virtual_pipeline_model_parallel_size=2, sequence_parallel=True)
    assert choose_layout(None, trained, 4) == choose_layout(trained, layout(), 4)
    assert choose_layout(None, trained, 4) == layout(tp=2, pp=2)
    assert choose_layout(None, trained, 1) == layout()


def test_a_folder_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        candidates(tmp_path / "nothing")
    (tmp_path / "checkpoints/step_00000010.partial").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no committed checkpoint"):
        candidates(tmp_path)
