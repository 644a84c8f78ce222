import dataclasses
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data.epoch_index import EpochIndex, EpochKey, load_index, save_index

KEY = EpochKey("digest", 0, 5, seq_length=8, seed=1, epoch=0)
INDEX = EpochIndex(
    np.arange(5, dtype=np.int32), np.zeros((4, 2), np.int32), np.arange(3, dtype=np.uint32)
)


def save_at_once(cache: Path, barrier) -> None:
    barrier.wait()
    for epoch in range(20):
        save_index(cache, dataclasses.replace(KEY, epoch=epoch), INDEX)


def test_an_index_is_read_as_it_was_written(tmp_path):
    save_index(tmp_path, KEY, INDEX)
    found = load_index(tmp_path, KEY)
    for name in ("documents", "samples", "shuffle"):
        assert np.array_equal(getattr(found, name), getattr(INDEX, name))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(EpochKey)])
def test_the_folder_depends_on_every_part_of_the_key(tmp_path, name):
    save_index(tmp_path, KEY, INDEX)
    other = "other" if name == "fingerprint" else 7
    assert load_index(tmp_path, dataclasses.replace(KEY, **{name: other})) is None


def test_epochs_have_seeds_of_their_own_and_the_first_has_the_runs():
    seeds = [dataclasses.replace(KEY, epoch=epoch).random_seed() for epoch in range(50)]
    assert seeds[0] == KEY.seed and len(set(seeds)) == 50


def test_four_jobs_may_build_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    jobs = [context.Process(target=save_at_once, args=(tmp_path, barrier)) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 4
    assert len(list(tmp_path.iterdir())) == 20
    for epoch in range(20):
        assert load_index(tmp_path, dataclasses.replace(KEY, epoch=epoch)) is not None


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_index(tmp_path, KEY, INDEX)
    assert list(tmp_path.iterdir()) == []


def test_pickled_arrays_are_refused(tmp_path):
    folder = save_index(tmp_path, KEY, INDEX)
    np.save(folder / "shuffle_index.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="delete this folder"):
        load_index(tmp_path, KEY)


@pytest.mark.parametrize("name", ["document_index", "sample_index", "shuffle_index"])
def test_a_damaged_index_is_named(tmp_path, name):
    path = save_index(tmp_path, KEY, INDEX) / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="delete this folder"):
        load_index(tmp_path, KEY)
    path.unlink()
    with pytest.raises(UserError, match="delete this folder"):
        load_index(tmp_path, KEY)
