import contextlib

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.items import TextItem
from megatron_biollm.evaluation.suite import BIOLLM15, SUITES, all_benchmarks, choose
from tests.evaluation.shared_benchmarks import needs_data, real_items

BENCHMARKS = all_benchmarks()


def test_the_suite_has_fifteen_benchmarks_of_three_tasks():
    tasks = [one.task for one in choose(["biollm15"])]
    assert len(set(BIOLLM15)) == 15
    assert tasks == ["qa"] * 5 + ["ner"] * 5 + ["re"] * 5


def test_suites_and_names_are_chosen_once_each():
    assert [one.name for one in choose(["medqa", "biollm15", "medqa"])][:2] == ["medqa", "medmcqa"]
    with pytest.raises(UserError, match="no benchmark or suite 'medqqa'; there are biollm15"):
        choose(["medqqa"])


@pytest.mark.parametrize("suite", SUITES)
def test_every_benchmark_of_a_suite_exists(suite):
    assert [one.name for one in choose([suite])] == list(SUITES[suite])


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=lambda one: one.name)
def test_a_benchmark_is_described_in_full(benchmark):
    assert benchmark.test_split in benchmark.splits
    assert benchmark.fewshot_split in ("", *benchmark.splits)
    assert len({benchmark.prompt.instruction, *benchmark.prompt.paraphrases}) >= 3
    assert "http" in benchmark.download
    for convention in benchmark.conventions:
        assert len(convention.values) > 1 and convention.help


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=lambda one: one.name)
def test_no_answers_score_nothing_under_every_convention(benchmark):
    """Stored counts are understood through the scorer of nothing."""
    chosen = [{}] + [{one.name: value} for one in benchmark.conventions for value in one.values]
    for asked in chosen:
        tally = benchmark.score([], [], benchmark.choose(asked))
        assert {tally.value(name) for name in tally.scores} == {0.0}
        assert np.shape(tally.counts_dk)[0] == 0


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=lambda one: one.name)
def test_absent_files_unknown_splits_and_conventions_are_refused(benchmark, tmp_path):
    with pytest.raises(UserError, match=r"missing; it is part of .*--file BENCHMARK\."):
        benchmark.read(benchmark.source(tmp_path), benchmark.choose({}))
    with pytest.raises(UserError, match=rf"{benchmark.name} has no split 'best'; it has"):
        benchmark.source(tmp_path, "best")
    with pytest.raises(UserError, match=rf"{benchmark.name} has no file 'x'; it has"):
        benchmark.source(tmp_path, files={"x": "y"})
    with pytest.raises(UserError, match=rf"{benchmark.name} has no convention 'x'"):
        benchmark.choose({"x": "y"})
    for convention in benchmark.conventions:
        with pytest.raises(UserError, match=rf"{benchmark.name}.{convention.name}=x is none of"):
            benchmark.choose({convention.name: "x"})


def gold(item):
    """The prediction that is right."""
    for kind in ("answer", "spans", "triples", "labels", "value"):
        if hasattr(item, kind):
            return getattr(item, kind)
    return item.references[0]


def some_items(benchmark):
    """Items of the first split whose real files are here; of notes, which are long, a few."""
    for split in benchmark.splits:
        with contextlib.suppress(UserError):
            items = real_items(benchmark, split)
            return items[: 4 if isinstance(items[0], TextItem) else 500]
    assert benchmark.name not in BIOLLM15, f"no split of {benchmark.name} is here"
    pytest.skip(f"no split of {benchmark.name} is here")


@needs_data
@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=lambda one: one.name)
def test_gold_scores_1_nothing_0_and_stored_counts_say_the_same(benchmark):
    pytest.importorskip("rouge_score")
    items, conventions = some_items(benchmark), benchmark.choose({})
    predictions = [gold(item) for item in items]
    nothing = benchmark.score(items, [None] * len(items), conventions)
    assert nothing.value() == 0.0
    assert benchmark.score(items, predictions, conventions).value() == 1.0
    known = len(items) // 2
    half = benchmark.score(items, predictions[:known] + [None] * (len(items) - known), conventions)
    assert 0.0 < half.value() < 1.0
    stored = benchmark.score([], [], conventions).scores
    for name, score in stored.items():
        assert score(half.counts_dk.sum(0)) == half.value(name)
        assert score(np.stack([half.counts_dk.sum(0)] * 2)) == pytest.approx([half.value(name)] * 2)
