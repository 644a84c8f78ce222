"""Benchmarks scored during a run: on the live model, without changing what the run learns."""

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.asking import Asking
from megatron_biollm.evaluation.curve import read_curve
from megatron_biollm.evaluation.plan import Plan
from megatron_biollm.evaluation.suite import choose
from megatron_biollm.recipes.evaluate import evaluate_checkpoint
from megatron_biollm.recipes.evaluate_steps import Where
from megatron_biollm.recipes.finetune_config import load_stages
from megatron_biollm.recipes.run_config import load_run_config
from tests.evaluation.quiz import write_medqa
from tests.generation.small_model import train_small_tokenizer
from tests.integration import sft_run
from tests.integration.recipe import layout, pretrain_here, rows, trained, write_inputs

pytest.importorskip("lm_eval", reason="models are asked by lm-eval, of the eval extra")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_medqa(tmp_path_factory.mktemp("data"), 40)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = train_small_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return [*write_inputs(folder), f"tokenizer.tokenizer_model={tokenizer}"]


def scoring(data):
    return [
        "evaluation.interval=2",
        "evaluation.benchmarks=[medqa]",
        f"evaluation.data={data}",
        "evaluation.limit=30",
    ]


def scored(checkpoint, plan, where):
    found = evaluate_checkpoint(checkpoint, plan, where)
    return found and found.results[0].main.value


def test_pretraining_goes_on_as_without_and_scores_as_its_checkpoint(world, inputs, data, tmp_path):
    parallel = [
        *layout(tp=2, sp="true"),
        "parallel.overlap_grad_reduce=true",
        "parallel.overlap_param_gather=true",
        "training.train_iters=5",
        "logging.log_interval=1",
    ]
    without, with_scores = tmp_path / "without", tmp_path / "with"
    common = [*inputs, *parallel]
    world.run(4, pretrain_here, [*common, f"run_dir={without}"], joined=False)
    options = [*common, *scoring(data), f"run_dir={with_scores}", "logging.log_interval=10"]
    world.run(4, pretrain_here, options, joined=False)
    told = {step: row["evaluation/medqa"] for step, row in rows(with_scores).items()}
    assert set(told) == {2, 4, 5}
    expected = trained(without)
    assert trained(with_scores) == {step: expected[step] for step in told}
    curve = read_curve(with_scores / "evaluation" / "curve.jsonl")
    assert {row["step"]: row["score"] for row in curve} == told
    assert [row["consumed_tokens"] for row in curve] == [2048, 4096, 5120]
    plan = Plan(choose(["medqa"]), data, Asking(), limit=30)
    where = Where(tmp_path / "scores", device="cpu")
    (value,) = world.run(1, scored, with_scores, plan, where, joined=False)
    assert value == told[5]


def test_fine_tuning_is_scored_in_conversations(world, data, tmp_path):
    (tmp_path / "inputs").mkdir()
    common = [
        *sft_run.write_inputs(tmp_path / "inputs"),
        *layout(pp=2),
        "training.train_iters=2",
        "training.micro_batch_size=2",
    ]
    without, with_scores = tmp_path / "without", tmp_path / "with"
    world.run(2, sft_run.finetune_here, [*common, f"run_dir={without}"], joined=False)
    options = [*scoring(data), "evaluation.chat=true", "evaluation.method=generate"]
    ends = world.run(
        2, sft_run.finetune_here, [*common, *options, f"run_dir={with_scores}"], joined=False
    )
    assert ends == [2, 2]
    assert "evaluation/medqa" in rows(with_scores)[2]
    assert trained(with_scores)[2] == trained(without)[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["evaluation.data=null"], "needs evaluation.data"),
        (["evaluation.benchmarks=[]"], "needs evaluation.benchmarks"),
        (["evaluation.benchmarks=[medqa6]"], "no benchmark or suite 'medqa6'"),
        (["evaluation.method=guess"], "method='guess' is none of"),
        (layout(cp=2), "does not go with parallel.context_parallel_size=2"),
        (layout(pp=2, vpp=2), "virtual_pipeline_model_parallel_size=2"),
    ],
)
def test_a_run_that_cannot_be_scored_is_refused_with_its_configuration(
    inputs, data, options, message
):
    with pytest.raises(UserError, match=message):
        load_run_config(None, [*inputs, *scoring(data), *options])


def test_a_reward_model_writes_no_answers(data):
    with pytest.raises(UserError, match="finetune.recipe=reward"):
        load_stages(None, ["model.preset=tiny", *scoring(data), "finetune.recipe=reward"])


def refusal(options):
    with pytest.raises(UserError) as error:
        pretrain_here(options)
    return str(error.value)


def test_files_that_are_missing_are_told_before_the_model_is_built(world, inputs, tmp_path):
    options = [*inputs, *scoring(tmp_path), f"run_dir={tmp_path / 'run'}"]
    (message,) = world.run(1, refusal, options, joined=False)
    assert message.startswith("evaluation.benchmarks: medqa: ") and "is missing" in message
