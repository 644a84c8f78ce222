import json
import shutil

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.answers import INDEX, Answers
from megatron_biollm.evaluation.asking import Asking
from megatron_biollm.evaluation.contamination import Findings
from megatron_biollm.evaluation.curve import read_curve
from megatron_biollm.evaluation.plan import Plan
from megatron_biollm.recipes.convert import ConversionConfig, export_to_hf
from megatron_biollm.recipes.evaluate import (
    evaluate_answers,
    evaluate_checkpoint,
    evaluate_hf,
)
from megatron_biollm.recipes.evaluate_steps import Where, report
from megatron_biollm.recipes.watch import watch
from tests.evaluation.quiz import DRUGS, QUIZ, write_files
from tests.generation.saved_run import save_run
from tests.generation.small_model import layout

pytest.importorskip("lm_eval", reason="models are asked by lm-eval, of the eval extra")
TP2 = "parallel.tensor_model_parallel_size=2"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run_dir(world, tokenizer_folder, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "small"
    world.run(1, save_run, run_dir, tokenizer_folder, layout(), [5, 10])
    (run_dir / "metrics.jsonl").write_text('{"step": 10, "consumed_tokens": 1280}\n')
    return run_dir


@pytest.fixture(scope="module")
def plan(data):
    return Plan([QUIZ, DRUGS], data, Asking(max_gen_toks=8))


@pytest.fixture(scope="module")
def scored(world, run_dir, plan, tmp_path_factory):
    output = tmp_path_factory.mktemp("scores")
    world.run(1, numbers, run_dir, plan, Where(output, device="cpu"), joined=False)
    return output


def numbers(checkpoint, plan, where):
    """Scores a checkpoint: of each benchmark the headline and the number of items."""
    found = evaluate_checkpoint(checkpoint, plan, where)
    return found and {one.benchmark: (one.main.value, one.items) for one in found.results}


def rows(output, name="quiz.s0p0.jsonl"):
    return [json.loads(line) for line in (output / "answers" / name).read_text().splitlines()]


def values(output):
    return [pytest.approx(row["log_likelihoods"], abs=1e-4) for row in rows(output)]


def test_a_checkpoint_is_scored_alike_in_every_layout(world, run_dir, plan, scored, tmp_path):
    where = Where(tmp_path, device="cpu", overrides=[TP2])
    found = world.run(4, numbers, run_dir, plan, where, joined=False)
    assert found[1:] == [None] * 3 and found[0]["quiz"][1] == 12
    assert [row["log_likelihoods"] for row in rows(tmp_path)] == values(scored)
    assert rows(tmp_path, "drugs.s0p0.jsonl") == rows(scored, "drugs.s0p0.jsonl")
    details = json.loads((tmp_path / "results.json").read_bytes())["details"]
    assert details["layout"].endswith("DP2") and details["consumed_tokens"] == 1280
    assert "lm_eval 0.4.13" in details["software"]


def test_the_export_gets_the_same_answers(run_dir, plan, scored, tmp_path):
    export_to_hf(ConversionConfig(run_dir / "checkpoints", tmp_path / "export"))
    found = evaluate_hf(tmp_path / "export", plan, Where(tmp_path / "scores", device="cpu"))
    assert found.model == "export"
    ours = [row["log_likelihoods"] for row in rows(tmp_path / "scores")]
    assert ours == values(scored)
    folder = tmp_path / "scores"
    assert rows(folder, "drugs.s0p0.jsonl") == rows(scored, "drugs.s0p0.jsonl")
    with pytest.raises(UserError, match="runs in one process without a layout"):
        evaluate_hf(tmp_path / "export", plan, Where(folder, overrides=[TP2]))


def test_what_was_answered_is_not_asked_again(world, run_dir, plan, scored, tmp_path):
    shutil.copytree(scored, tmp_path / "scores")
    where = Where(tmp_path / "scores", device="cpu")
    path = tmp_path / "scores" / "answers" / "quiz.s0p0.jsonl"
    path.write_text(path.read_text().replace('"prediction": 0', '"prediction": 1'))
    changed = path.read_text()
    world.run(1, numbers, run_dir, plan, where, joined=False)
    assert path.read_text() == changed
    other = Plan([QUIZ], plan.data, limit=3)
    (found,) = world.run(1, numbers, run_dir, other, where, joined=False)
    assert found["quiz"][1] == 3 and len(rows(tmp_path / "scores")) == 3
    older = run_dir / "checkpoints" / "step_00000005"
    (message,) = world.run(1, refusal, older, plan, where, joined=False)
    assert "holds the answers of 'small at step 10'" in message


def refusal(checkpoint, plan, where):
    with pytest.raises(UserError) as error:
        evaluate_checkpoint(checkpoint, plan, where)
    return str(error.value)


def test_stored_answers_give_the_same_scores(plan, scored, tmp_path):
    found = evaluate_answers(scored / "answers", Plan(plan.benchmarks, plan.data), Where(tmp_path))
    stored = json.loads((scored / "results.json").read_bytes())["results"]
    assert [one.main.value for one in found.results] == [
        row["scores"][row["headline"]]["value"] for row in stored
    ]
    assert found.model == "small at step 10"


def test_items_that_the_training_data_holds_are_scored_apart(plan, scored, tmp_path):
    met = [{"id": row["id"], "share": 0.9} for row in rows(scored)[:5]]
    stored = {"split": QUIZ.test_split, "items": 12, "too_short": 0, "found": met}
    findings = Findings(8, ("pubmed",), {"quiz": stored})
    where = Where(tmp_path, findings=findings)
    found = evaluate_answers(scored / "answers", Plan(plan.benchmarks, plan.data), where)
    sides = found.get("quiz").contamination
    assert (sides.dirty.items, sides.clean.items) == (5, 7)
    right = sum(part.scores["accuracy"].value * part.items for part in (sides.dirty, sides.clean))
    assert right == pytest.approx(12 * found.get("quiz").main.value)
    assert found.get("drugs").contamination is None


def test_a_report_stands_beside_the_results(scored, tmp_path):
    shutil.copytree(scored, tmp_path / "one")
    told = report(tmp_path / "one")
    assert "small at step 10" in told.table and "quiz" in told.table
    assert (tmp_path / "one" / "report.html").is_file()
    assert told.numbers["models"][0]["results"][0]["benchmark"] == "quiz"


def test_a_file_that_is_missing_is_told_before_a_model_is_loaded(plan, tmp_path):
    where = Where(tmp_path, device="cpu")
    (tmp_path / "data").mkdir()
    missing = Plan(plan.benchmarks, tmp_path / "data")
    with pytest.raises(UserError, match="quiz/test.jsonl is missing"):
        evaluate_checkpoint(tmp_path, missing, where)


def watched(run_dir, plan, where):
    watch(run_dir, plan, where, follow=False)


def test_every_checkpoint_of_a_run_is_scored_once(world, run_dir, plan, tmp_path):
    run = tmp_path / "small"
    shutil.copytree(run_dir, run)
    shutil.move(run / "checkpoints" / "step_00000010", tmp_path)
    where = Where(tmp_path / "curve", device="cpu")
    world.run(1, watched, run, plan, where, joined=False)
    assert {row["step"] for row in read_curve(tmp_path / "curve" / "curve.jsonl")} == {5}
    shutil.move(tmp_path / "step_00000010", run / "checkpoints")
    world.run(2, watched, run, plan, where, joined=False)
    lines = (tmp_path / "curve" / "curve.jsonl").read_text().splitlines()
    found = [(json.loads(line)["step"], json.loads(line)["benchmark"]) for line in lines]
    assert found == [(5, "quiz"), (5, "drugs"), (10, "quiz"), (10, "drugs")]
    assert (tmp_path / "curve" / "step_00000010" / "report.html").is_file()
    answers = Answers.open(tmp_path / "curve" / "step_00000005" / "answers")
    assert answers.model["name"] == "small at step 5"
    assert (tmp_path / "curve" / "step_00000005" / "answers" / INDEX).is_file()


def test_a_run_without_checkpoints_is_refused(plan, tmp_path):
    with pytest.raises(UserError, match="holds no committed checkpoint"):
        watch(tmp_path, plan, Where(tmp_path / "curve"), follow=False)
