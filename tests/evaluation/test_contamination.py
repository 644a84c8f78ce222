"""Scores on clean and dirty items, from a file that tells which are which."""

from dataclasses import replace

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.contamination import (
    Findings,
    contaminated,
    read_findings,
    write_findings,
)
from megatron_biollm.evaluation.items import ChoiceItem
from tests.evaluation.scored import answers, benchmark

QUIZ = replace(
    benchmark("quiz", "Quiz", "qa"),
    score=lambda items, predictions, conventions: answers(
        [one.answer == given for one, given in zip(items, predictions, strict=True)]
    ),
)
ITEMS = [ChoiceItem(f"q{n}", f"q{n}", "Which?", ("a", "b"), 0) for n in range(10)]
SHARES = {"q0": 1.0, "q1": 0.7, "q2": 0.69}


def findings(split="test") -> Findings:
    rows = [{"id": name, "share": share} for name, share in SHARES.items()]
    stored = {"split": split, "conventions": {}, "items": 10, "too_short": 1, "found": rows}
    return Findings(8, ("pubmed",), {"quiz": stored})


def judged(predictions, split="test"):
    return contaminated(QUIZ, ITEMS, predictions, {}, split, findings())


def test_items_found_and_others_are_scored_apart():
    made = judged([0, 0, *[1] * 8])
    assert (made.dirty.items, made.dirty.scores["accuracy"].value) == (2, 1.0)
    assert (made.clean.items, made.clean.scores["accuracy"].value) == (8, 0.0)
    assert made.against == ("pubmed",)


def test_a_benchmark_that_was_not_searched_for_has_no_sides():
    other = replace(QUIZ, name="other")
    assert contaminated(other, ITEMS, [0] * 10, {}, "test", findings()) is None


def test_without_a_dirty_item_there_is_no_dirty_score():
    made = contaminated(QUIZ, ITEMS[2:], [0] * 8, {}, "test", findings())
    assert made.dirty is None and made.clean.items == 8


def test_findings_of_another_split_are_refused():
    with pytest.raises(UserError, match=r"its split test, but dev is scored; .* quiz=dev"):
        judged([0] * 10, "dev")


def test_findings_survive_their_file_and_damage_is_named(tmp_path):
    path = tmp_path / "contamination.json"
    with pytest.raises(UserError, match="does not exist"):
        read_findings(path)
    write_findings(path, findings())
    assert read_findings(path) == findings()
    assert read_findings(path).summary()[0]["found"] == 2
    whole = path.read_text()
    for text in (whole[:50], whole.replace('"share"', '"shore"'), "[]"):
        path.write_text(text)
        with pytest.raises(UserError, match="is damaged"):
            read_findings(path)
    path.write_text(whole.replace('"version": 1', '"version": 2'))
    with pytest.raises(UserError, match="version 2, not 1"):
        read_findings(path)
