"""Results survive their files, two models are compared later, and damage is found."""

import json
from dataclasses import replace

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.results import (
    Contamination,
    ModelResults,
    make_part,
    make_result,
    read_results,
    write_results,
)
from megatron_biollm.evaluation.statistics import paired_bootstrap
from megatron_biollm.evaluation.suite import all_benchmarks
from tests.evaluation.scored import answers, benchmark

QUIZ = benchmark("quiz", "Quiz", "qa")
ASKED = {"conventions": {"subjects": "6"}, "method": "likelihood"}


def scored(right, **more) -> ModelResults:
    tally = answers(right, unreadable=2, parts={"anatomy": answers(right[:10])})
    result = make_result(QUIZ, [tally], **ASKED, limit=20, chance=0.25, **more)
    return ModelResults("tiny", (result,), {"step": 7}, {"quiz": tally})


def test_results_come_back_as_they_were(tmp_path):
    found = Contamination(0.5, ("pubmed",), make_part(answers([1, 0, 1])), None)
    made = scored(np.arange(20) < 9, contamination=found, prompts={"first": 0.4, "second": 0.5})
    write_results(tmp_path / "new", made)
    read = read_results(tmp_path / "new", {"quiz": QUIZ})
    assert read.results == made.results
    assert (read.model, read.details) == ("tiny", {"step": 7})
    assert read.get("quiz").main.value == read.tallies["quiz"].value() == 0.45
    assert read.get("medqa") is None


def test_two_models_are_compared_from_their_files(tmp_path):
    tallies = []
    for name, right in (("a", 40), ("b", 70)):
        write_results(tmp_path / name, scored(np.arange(100) < right))
        tallies.append(read_results(tmp_path / name, {"quiz": QUIZ}).tallies["quiz"])
    assert paired_bootstrap(*tallies).p < 0.01


def test_several_seeds_give_their_mean_and_spread():
    tallies = [answers(np.arange(20) < right) for right in (8, 10, 12)]
    made = make_result(QUIZ, tallies, **ASKED, num_fewshot=5, seeds=(1, 2, 3))
    assert made.main.value == pytest.approx(0.5)
    assert made.seeds_spread.values == {"1": 0.4, "2": 0.5, "3": 0.6}
    with pytest.raises(UserError, match="a seed for each"):
        make_result(QUIZ, tallies, **ASKED, seeds=(1,))


def test_a_part_that_holds_nothing_has_no_score():
    tally = replace(answers([1, 0]), parts={"none": answers([])})
    assert make_result(QUIZ, [tally], **ASKED).parts["none"].scores == {}


def test_a_missing_folder_and_damaged_files_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_results(tmp_path)
    path = write_results(tmp_path, scored(np.arange(20) < 9))
    whole = path.read_text()
    for text, message in (
        (whole[:100], "is damaged"),
        (whole.replace('"version": 1', '"version": 9'), "has version 9, but this program reads 1"),
        (whole.replace('"low"', '"lo"'), "is damaged"),
        (json.dumps([1]), "is damaged"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_results(tmp_path)


def test_tallies_of_another_scoring_are_refused(tmp_path):
    write_results(tmp_path / "a", scored(np.arange(20) < 9))
    write_results(tmp_path / "b", scored(np.arange(20) < 10))
    (tmp_path / "b" / "tallies.npz").replace(tmp_path / "a" / "tallies.npz")
    assert read_results(tmp_path / "a").tallies == {}
    with pytest.raises(UserError, match="not of the results"):
        read_results(tmp_path / "a", {"quiz": QUIZ})
    with pytest.raises(UserError, match="cannot be compared"):
        read_results(tmp_path / "b", {"quiz": QUIZ})


@pytest.mark.parametrize("one", all_benchmarks().values(), ids=lambda one: one.name)
def test_every_scorer_tells_what_its_counts_mean_without_items(one):
    scores = one.score([], [], one.choose({})).scores
    assert scores and all(callable(score) for score in scores.values())
