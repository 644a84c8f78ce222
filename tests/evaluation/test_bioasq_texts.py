import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmarks.bioasq_texts import (
    BIOASQ_FACTOID,
    BIOASQ_LIST,
    BIOASQ_SUMMARY,
)
from tests.evaluation.shared_benchmarks import needs_data, real_items

ROW = {
    "id": "a1", "type": "list", "body": "Which?",
    "exact_answer": [["BCMA", "B-cell  antigen"], ["CD3"]],
    "ideal_answer": [" It binds both. ", "Both."], "snippets": [{"text": "It binds."}],
}  # fmt: skip


def read(tmp_path, benchmark, **changed):
    path = tmp_path / "golden.json"
    path.write_text(json.dumps({"questions": [{**ROW, **changed}]}))
    conventions = benchmark.choose({"context": changed.pop("context", "without")})
    return benchmark.read(
        benchmark.source(tmp_path, "other", {"questions": str(path)}), conventions
    )


def test_an_answer_and_the_names_that_count_are_read(tmp_path):
    (item,) = read(tmp_path, BIOASQ_LIST)
    assert item.references == ("BCMA\nCD3", "BCMA\nB-cell antigen", "CD3")
    (item,) = read(tmp_path, BIOASQ_FACTOID, type="factoid")
    assert item.references == ("BCMA", "BCMA\nB-cell antigen", "CD3")
    (item,) = read(tmp_path, BIOASQ_SUMMARY, type="summary")
    assert item.references == ("It binds both.", "Both.")


def test_snippets_stand_before_the_question_where_asked(tmp_path):
    assert read(tmp_path, BIOASQ_LIST)[0].text == "Which?"
    assert read(tmp_path, BIOASQ_LIST, context="with")[0].text == "It binds.\nWhich?"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"type": "yesno"}, "no question is of type 'list'"),
        ({"exact_answer": []}, "'exact_answer' is .*; it must be lists of names"),
        ({"exact_answer": [[]]}, "it must be lists of names"),
        ({"exact_answer": "BCMA"}, "'exact_answer' is 'BCMA'; it must be of type list"),
    ],
)
def test_another_format_is_refused_with_its_place(tmp_path, changed, message):
    with pytest.raises(UserError, match=rf"golden.json.*{message}"):
        read(tmp_path, BIOASQ_LIST, **changed)


def test_an_empty_ideal_answer_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"a1: 'ideal_answer' is \[' '\]; it must be a list of"):
        read(tmp_path, BIOASQ_SUMMARY, type="summary", ideal_answer=[" "])


@needs_data
@pytest.mark.parametrize(
    ("benchmark", "count", "headline"),
    [(BIOASQ_FACTOID, 740, "mrr"), (BIOASQ_LIST, 409, "f1"), (BIOASQ_SUMMARY, 543, "rouge2")],
    ids=lambda one: getattr(one, "name", None),
)
def test_the_real_files_hold_what_they_should(benchmark, count, headline):
    pytest.importorskip("rouge_score")
    items = real_items(benchmark)
    assert len(items) == count
    some, conventions = items[:40], benchmark.choose({})
    tally = benchmark.score(some, [item.references[0] for item in some], conventions)
    assert (tally.headline, tally.value()) == (headline, 1.0)
    assert benchmark.score(some, [None] * len(some), conventions).value() == 0.0
