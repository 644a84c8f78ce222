import contextlib
import io
import json
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

from megatron_biollm.config import UserError
from tests.evaluation.quiz import write_medqa
from tests.generation import small_model
from tests.generation.saved_run import save_run
from tests.generation.small_model import layout

TOOL = Path(__file__).parents[2] / "tools" / "evaluate.py"


def main(*arguments):
    """The tool's standard output."""
    argv = ["evaluate.py", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(io.StringIO()) as output,
    ):
        runpy.run_path(str(TOOL))["main"]()
    return output.getvalue()


def test_the_benchmarks_are_listed_with_their_conventions():
    text = main("--list")
    assert "medqa: MedQA (qa)" in text and "unreadable=wrong|first" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to score; give one of --checkpoint, --hf, --answers, --watch"),
        (["--hf", "a", "--answers", "b"], "--hf and --answers to score; give one of"),
        (["--hf", "a", "--data", "."], "--output is not given"),
        (["--hf", "a", "--output", "o", "--data", "no"], "--data no is no folder"),
        (["--suite", "biollm16"], "no benchmark or suite 'biollm16'"),
        (["--suite", "medqa", "--split", "medqa"], "--split medqa is not NAME=VALUE"),
        (["--suite", "medqa,bioasq", "--convention", "a=b"], "give --convention BENCHMARK.a=b"),
        (["--suite", "medqa", "--convention", "a=b"], "medqa has no convention 'a'"),
        (["--suite", "medqa", "--split", "medqa=dev"], "phrases_no_exclude_dev.jsonl is missing"),
        (["--perplexity", "pubmed"], "--perplexity pubmed is not NAME=VALUE"),
        (["--perplexity", "p=a", "--perplexity", "p=b"], "--perplexity p is given twice"),
        (["--perplexity", "pubmed=no/*.jsonl"], "perplexity_pubmed: no/*.jsonl names no file"),
    ],
)
def test_slips_on_the_command_line_are_told_before_a_model_is_loaded(tmp_path, arguments, message):
    usual = ["--hf", tmp_path, "--data", tmp_path, "--output", tmp_path / "o"]
    (tmp_path / "config.json").write_text("{}")
    usual = [] if not arguments or arguments[0] == "--hf" else usual
    with pytest.raises(UserError) as error:
        main(*usual, *arguments)
    assert message in str(error.value)
    assert not (tmp_path / "o").exists()


def test_a_run_is_scored_and_its_answers_again(world, tmp_path):
    pytest.importorskip("lm_eval", reason="models are asked by lm-eval, of the eval extra")
    tokenizer = small_model.train_small_tokenizer(tmp_path / "tokenizer")
    world.run(1, save_run, tmp_path / "run", tokenizer, layout(), [5])
    texts = tmp_path / "pubmed.jsonl"
    texts.write_text("".join(f'{{"text": "Patients were treated {i} weeks."}}\n' for i in range(9)))
    what = ["--suite", "medqa", "--data", write_medqa(tmp_path / "data"), "--limit", 6]
    what += ["--perplexity", f"pubmed={texts}"]
    one = ["--checkpoint", tmp_path / "run", "--output", tmp_path / "one", "--device", "cpu"]
    (text,) = world.run(1, main, *one, *what, joined=False)
    assert text.startswith("run at step 5\nbenchmark") and text.count("6 (limited)") == 2
    assert "\n\ntexts   bits per byte  95 %" in text
    answers = tmp_path / "one" / "answers"
    again = main("--answers", answers, *what, "--output", tmp_path / "two", "--json")
    results = json.loads(again)["models"][0]["results"]
    stored = json.loads((tmp_path / "one" / "results.json").read_bytes())["results"]
    assert [one["scores"] for one in results] == [one["scores"] for one in stored]
    assert {one["limit"] for one in results} == {6}
    assert "perplexity per word" in (tmp_path / "two" / "report.html").read_text()
    assert (tmp_path / "two" / "report.html").is_file()
