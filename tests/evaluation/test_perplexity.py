"""Perplexity of texts is exp of the mean negative log-probability, as lm-eval's `hf` gives it."""

import json
import math

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.answers import Answers
from megatron_biollm.evaluation.asking import Asking
from megatron_biollm.evaluation.curve import append_curve, curve_rows, read_curve
from megatron_biollm.evaluation.items import DocumentItem
from megatron_biollm.evaluation.live_model import LiveModel
from megatron_biollm.evaluation.offline import prepare_lm_eval
from megatron_biollm.evaluation.perplexity import score_texts, texts_benchmark
from megatron_biollm.evaluation.plan import Plan, prepare
from megatron_biollm.evaluation.report import write_report
from megatron_biollm.evaluation.results import (
    ModelResults,
    make_result,
    read_results,
    write_results,
)
from megatron_biollm.evaluation.verdict import judge, table
from tests.evaluation.quiz import write
from tests.generation import small_model
from tests.generation.small_model import layout

TEXTS = ("Aspirin lowers the risk.", "Naïve T cells\nexpress β-catenin in mice.", "No.")


def document(number, text, document=""):
    return DocumentItem(f"d{number}", document or f"d{number}", text)


def benchmark(texts=TEXTS, name="pubmed"):
    items = [document(number, text) for number, text in enumerate(texts)]
    return texts_benchmark(name, "unused", lambda source, conventions: items)


def test_scores_are_those_of_the_formula_over_all_texts_together():
    items = [document(0, "two words"), document(1, "β")]
    tally = score_texts(items, [(-6.0, 4), (-2.0, 1)], {})
    assert tally.headline == "bits_per_byte"
    assert tally.value() == pytest.approx(8.0 / 11 / math.log(2))
    assert tally.value("perplexity_per_word") == pytest.approx(math.exp(8.0 / 3))
    assert tally.value("perplexity_per_token") == pytest.approx(math.exp(8.0 / 5))


def test_pieces_of_a_document_are_resampled_together():
    items = [document(0, "one", "a"), document(1, "two", "a"), document(2, "three", "b")]
    tally = score_texts(items, [(-1.0, 1)] * 3, {})
    assert tally.documents == ("a", "b") and tally.items == 3
    assert score_texts([], [], {}).value() == 0.0


@pytest.mark.parametrize("told", [None, 3.0, (1.0,), (float("nan"), 2)])
def test_what_is_no_log_likelihood_is_refused(told):
    with pytest.raises(UserError, match="the log-likelihood and the number of tokens"):
        score_texts([document(0, "one")], [told], {})
    with pytest.raises(UserError, match="0 log-likelihoods for 1 texts"):
        score_texts([document(0, "one")], [], {})


def test_texts_are_asked_in_one_way_whatever_the_benchmarks_are(tmp_path):
    asking = Asking(num_fewshot=3, chat=True, continuation="letter")
    plan = Plan([benchmark()], tmp_path, asking, seeds=(4, 5), paraphrases=True, limit=2)
    (one,) = prepare(plan)
    (run,) = one.runs
    assert run.asking == Asking(method="rolling") and len(one.items) == 2


def test_stored_log_likelihoods_are_scored_again(tmp_path):
    (one,) = prepare(Plan([benchmark()], tmp_path))
    path = tmp_path / "answers" / "perplexity_pubmed.jsonl"
    rows = [{"id": f"d{i}", "prediction": [-7.5, 5]} for i in range(3)]
    write(path, map(json.dumps, rows))
    found = judge(Answers.open(path.parent), [one]).results[0]
    assert found.scores["perplexity_per_token"].value == pytest.approx(math.exp(1.5))
    write(path, ['{"id": "d0", "text": "a"}'])
    with pytest.raises(UserError, match=r"of a text it is \[log-likelihood, tokens\]"):
        judge(Answers.open(path.parent), [one])


def test_a_source_has_a_name_that_files_can_have():
    with pytest.raises(UserError, match=r"'a\.b' is no name of a source"):
        texts_benchmark("a.b", "x", lambda source, conventions: [])


def of_texts(name, nats):
    """Results of a model that needs so many nats for a token, on two sources."""
    results, tallies = [], {}
    for source in ("pubmed", "pmc"):
        one = benchmark(name=source)
        items = one.read(None, {})
        dice = np.random.default_rng(0).uniform(0.9, 1.1, len(items))
        tally = one.score(items, [(-nats * 6 * by, 6) for by in dice.tolist()], {})
        results.append(make_result(one, [tally], conventions={}, method="rolling"))
        tallies[one.name] = tally
    return ModelResults(name, tuple(results), {}, tallies)


def test_a_report_of_texts_has_a_table_of_theirs_and_no_percent(tmp_path):
    for name, nats in (("one", 2.0), ("two", 1.0)):
        write_results(tmp_path / name, of_texts(name, nats))
    models = [read_results(tmp_path / name, {}) for name in ("one", "two")]
    append_curve(tmp_path / "curve.jsonl", curve_rows(5, 640, models[0].results))
    write_report(tmp_path, models, read_curve(tmp_path / "curve.jsonl"))
    text = (tmp_path / "report.md").read_text()
    bits = models[0].results[0].main
    assert "| texts | model | bits per byte | perplexity per word | perplexity per token |" in text
    rows = [line for line in text.splitlines() if line.startswith("| pubmed | ")]
    assert f"{bits.value:.3f} ({bits.low:.3f}–{bits.high:.3f})" in rows[0]
    assert "## Comparison" in text and "two minus one" in text and "## Scores" not in text
    assert f"| 5 | 640 | {bits.value:.3f} (" in text
    assert (tmp_path / "curve.png").is_file() and not (tmp_path / "scores.png").exists()
    assert table(models[0]).splitlines()[2].split()[-1] == "3"


def texts_of_requests():
    from tests.evaluation.harness_requests import texts

    return [text for (text,) in texts()]


def perplexities(folder, parallel):
    """Every score, through the whole of lm-eval."""
    from megatron_biollm.evaluation.harness import HarnessModel

    prepare_lm_eval()
    model = HarnessModel(LiveModel(small_model.build_generator(folder, parallel)))
    (one,) = prepare(Plan([benchmark(texts_of_requests())], folder, Asking(num_fewshot=2)))
    predictions = [answer.prediction for answer in one.ask(model, one.runs[0])[1]]
    tally = score_texts(one.items, predictions, {})
    return {name: tally.value(name) for name in tally.scores}


def test_perplexity_is_that_of_hf_on_the_export(world, tokenizer_folder, export):
    pytest.importorskip("lm_eval", reason="models are asked by lm-eval, of the eval extra")
    from lm_eval.models.huggingface import HFLM

    from tests.evaluation.harness_requests import requests

    hf = HFLM(pretrained=str(export), device="cpu", dtype="float32", batch_size=1)
    texts = texts_of_requests()
    asked = requests("loglikelihood_rolling", [(text,) for text in texts])
    total = sum(hf.loglikelihood_rolling(asked, disable_tqdm=True))
    tokens = sum(len(hf.tok_encode(text)) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    for found in world.run(2, perplexities, tokenizer_folder, layout(tp=2)):
        assert found["perplexity_per_token"] == pytest.approx(math.exp(-total / tokens), rel=1e-4)
        assert found["bits_per_byte"] == pytest.approx(-total / size / math.log(2), abs=1e-4)
