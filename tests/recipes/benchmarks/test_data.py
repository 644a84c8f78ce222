"""The benchmark of data measures both sides, and finds their samples equal."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from megatron_biollm.config import UserError
from megatron_biollm.data.planned import ensure_index
from megatron_biollm.data.stream import build_datasets
from megatron_biollm.recipes.benchmarks.data import (
    DataBenchmark,
    benchmark_data,
    compare_indices,
)
from megatron_biollm.recipes.benchmarks.data_corpora import (
    ABSTRACTS,
    PAPERS,
    write_shards,
    write_texts,
)
from megatron_biollm.recipes.benchmarks.data_loading import Loading, measure
from megatron_biollm.recipes.benchmarks.data_opening import Job
from megatron_biollm.recipes.benchmarks.data_peer import core_indices, open_as_core
from megatron_biollm.recipes.benchmarks.data_report import opening_rows, table


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    sizes = {"shards": 3, "documents": 2000, "megatokens": 2, "steps": 2, "repeats": 1}
    done = benchmark_data(
        DataBenchmark(**sizes, seq_length=256, workers=[0, 1], scratch=str(scratch))
    )
    assert not list(scratch.iterdir())
    return done


@pytest.mark.slow
def test_every_way_of_loading_and_both_sides_are_measured(report):
    assert [(one["num_workers"], one["cold"]) for one in report["loading"]] == [
        (0, True), (0, False), (1, True), (1, False)
    ]  # fmt: skip
    for one in report["loading"]:
        assert one["full"]["tokens_per_second"] > 0
        assert 0 <= one["pace"]["median_wait_s"] <= one["pace"]["max_wait_s"]
    assert {(one["what"], one["side"]) for one in report["opening"]} == {
        (what, side) for what in ("build", "open") for side in ("ours", "core")
    }
    for one in report["opening"]:
        assert 0 < one["work_s"] < one["wall_s"] and one["cpu_s"] > 0
        assert 0 < one["anonymous_bytes"] <= one["resident_bytes"]


@pytest.mark.slow
def test_every_figure_stands_beside_its_bar(report):
    assert all(
        set(row) == {"name", "ours", "peer", "ratio", "bar", "met"} for row in report["rows"]
    )
    assert report["compared"]["shards_and_splits"] == 6
    assert report["compared"]["documents"] == 2000
    text = table(report)
    judged = [row for row in report["rows"] if row["met"] is not None]
    assert text.count("| yes |") + text.count("| no |") == len(judged) == 8 + 4
    assert "Identical to core's" in text


def real_shards(folder: Path) -> list[str]:
    return [write_texts(folder / f"shard_{n}", 40_000, ABSTRACTS, seed=n) for n in range(3)]


def job(prefixes: list[str], cache: Path, samples: list[int]) -> Job:
    return Job(prefixes, ["2", "1", "1"], "900,100,0", samples, 64, 1234, str(cache))


def test_samples_of_every_shard_are_cores_in_cores_order(tmp_path):
    ours = job(real_shards(tmp_path / "shards"), tmp_path / "ours", [600, 20])
    ensure_index(ours.data(), ours.seq_length, ours.seed, ours.samples[0])
    train = build_datasets(ours.data(), ours.seq_length, ours.seed, eod=0).train
    weights = [float(weight) for weight in ours.weights]
    core = open_as_core(
        ours.prefixes, weights, ours.split, [600, 20, 0], 64, 1234, str(tmp_path / "core")
    )[0]
    try:
        for source, peer in zip(train.sources, core.datasets, strict=True):
            epoch = source.epoch(0)
            assert len(epoch) == len(peer) == source.num_samples > 400
            for number in range(len(peer)):
                assert torch.equal(epoch[number]["tokens"], peer[number]["tokens"])
    finally:
        torch.distributed.destroy_process_group()
    theirs = dataclasses.replace(ours, cache=str(tmp_path / "core"))
    assert compare_indices(ours, theirs)["shards_and_splits"] == 6
    path = core_indices(tmp_path / "core")[ours.prefixes[1], "train"][2]
    np.save(path, np.load(path)[::-1])
    with pytest.raises(UserError, match=r"shuffle_index.* of .*shard_1 \(train\) is not core's"):
        compare_indices(ours, theirs)


def test_a_step_that_is_slower_than_reading_waits_for_nothing_but_the_handing_over(tmp_path):
    prefix = write_texts(tmp_path / "corpus", 50_000, ABSTRACTS, seed=0)
    one = Job([prefix], ["1"], "1", [1, 1], 64, 1234, str(tmp_path / "index"))
    ensure_index(one.data(), one.seq_length, one.seed, 1)
    loading = Loading(dataclasses.asdict(one), 2, 3, num_workers=0, steps=4, step_s=0.05)
    found = measure(Loading.read(loading.write(tmp_path / "loading.json")))
    assert loading.tokens == 2 * 3 * 64
    assert 0 < found["median_wait_s"] <= found["p99_wait_s"] <= found["max_wait_s"]
    assert 0 < found["waited_share"] < 1 and found["tokens_per_second"] <= 64 * 6 / 0.05


def test_a_figure_is_judged_where_it_has_a_bar():
    side = dict.fromkeys(("wall_s", "cpu_s", "work_s", "resident_bytes"), 1.0)
    side |= {"anonymous_bytes": 30 << 20, "imports_anonymous": 29 << 20}
    slow = side | {"wall_s": 4.0, "work_s": 6.0, "anonymous_bytes": 200 << 20}
    sides = [
        {"what": what, "side": name, **values}
        for what in ("build", "open")
        for name, values in (("ours", side), ("core", slow))
    ]
    rows = {row["name"]: (row["ratio"], row["met"]) for row in opening_rows(sides)}
    assert rows["indexed: seconds of the whole process"] == (4.0, False)
    assert rows["indexed: seconds without imports"] == (6.0, None)
    assert rows["opened again, to the first sample: seconds without imports"] == (6.0, True)
    assert rows["opened again, to the first sample: bytes held beyond the imports"] == (171.0, True)


def test_corpora_are_as_long_as_biomedical_ones():
    random = np.random.default_rng(0)
    for lengths in (ABSTRACTS, PAPERS):
        drawn = lengths.draw(100_000, random)
        assert abs(drawn.mean() / lengths.mean - 1) < 0.02 and drawn.min() >= 1


def test_shards_hold_all_documents_and_no_byte_of_ids(tmp_path):
    prefixes = write_shards(tmp_path, 3, 1000, ABSTRACTS)
    sizes = [Path(f"{prefix}.bin").stat() for prefix in prefixes]
    assert all(size.st_size > 100_000 and size.st_blocks == 0 for size in sizes)
    parts = [Path(f"{prefix}.idx").stat().st_size for prefix in prefixes]
    assert sum((size - 34 - 8) // 20 for size in parts) == 1000
    assert len(set(parts)) > 1  # as shards of real corpora


def test_sizes_below_one_are_refused():
    with pytest.raises(UserError, match="shards=0 must be at least 1"):
        DataBenchmark(shards=0)
