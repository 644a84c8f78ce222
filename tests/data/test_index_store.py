import dataclasses
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data import index_store
from megatron_biollm.data.epoch_index import EpochIndex, EpochKey
from megatron_biollm.data.index_store import IndexStore

KEY = EpochKey("digest", 0, 5, seq_length=8, seed=1, epoch=0)
INDEX = EpochIndex(
    np.arange(5, dtype=np.int32), np.zeros((4, 2), np.int32), np.arange(3, dtype=np.uint32)
)
NAMES = ("documents", "samples", "shuffle")


def indices(count: int) -> dict[EpochKey, EpochIndex]:
    """Of corpora of different sizes."""
    found = {}
    for number in range(1, count + 1):
        key = dataclasses.replace(KEY, fingerprint=str(number), first=number, end=number * 3)
        documents = np.arange(key.first, key.end, dtype=np.int32)
        samples = np.full((number + 1, 2), number, np.int32)
        found[key] = EpochIndex(documents, samples, np.arange(number, dtype=np.uint32))
    return found


def save(cache: Path, given: dict[EpochKey, EpochIndex]) -> Path:
    sizes = {key: len(index.shuffle) for key, index in given.items()}
    return IndexStore(cache).save(sizes, iter(given.values()))


def save_at_once(cache: Path, barrier) -> None:
    barrier.wait()
    for epoch in range(20):
        save(cache, {dataclasses.replace(KEY, epoch=epoch): INDEX})


def test_every_index_of_many_is_read_as_it_was_written(tmp_path):
    given = indices(7)
    folder = save(tmp_path, given)
    store = IndexStore(tmp_path)
    for key, index in given.items():
        found = store.find(key)
        assert all(np.array_equal(getattr(found, name), getattr(index, name)) for name in NAMES)
        assert store.place(key) == folder
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(EpochKey)])
def test_an_index_is_found_by_every_part_of_its_key(tmp_path, name):
    save(tmp_path, {KEY: INDEX})
    other = "other" if name == "fingerprint" else 7
    store = IndexStore(tmp_path)
    assert store.find(KEY) and store.find(dataclasses.replace(KEY, **{name: other})) is None


def test_what_another_process_has_built_since_is_found(tmp_path):
    store = IndexStore(tmp_path / "not there yet")
    assert store.find(KEY) is None
    save(store.folder, {KEY: INDEX})
    assert store.find(KEY) is not None


def test_a_folder_of_an_earlier_version_is_read(tmp_path):
    folder = tmp_path / "corpus.index" / KEY.name
    folder.mkdir(parents=True)
    for name, array in zip(("document", "sample", "shuffle"), vars(INDEX).values(), strict=True):
        np.save(folder / f"{name}_index.npy", array)
    store = IndexStore(tmp_path / "index")
    assert store.find(KEY) is None
    assert np.array_equal(store.find(KEY, tmp_path / "corpus.index").documents, INDEX.documents)
    assert store.place(KEY, tmp_path / "corpus.index") == folder
    assert IndexStore(tmp_path / "corpus.index").find(KEY) is not None


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
    store = IndexStore(tmp_path)
    assert all(store.find(dataclasses.replace(KEY, epoch=epoch)) for epoch in range(20))


def test_an_interrupted_build_leaves_nothing(tmp_path):
    def interrupted():
        yield INDEX
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        IndexStore(tmp_path).save({KEY: 3, dataclasses.replace(KEY, seed=2): 3}, interrupted())
    assert list(tmp_path.iterdir()) == []


def test_another_number_of_samples_than_announced_is_refused(tmp_path):
    with pytest.raises(UserError, match="3 samples came where 4 were announced"):
        IndexStore(tmp_path).save({KEY: 4}, iter([INDEX]))
    assert list(tmp_path.iterdir()) == []


def test_pickled_arrays_are_refused(tmp_path):
    folder = save(tmp_path, {KEY: INDEX})
    np.save(folder / "shuffle_index.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="delete this folder"):
        IndexStore(tmp_path).find(KEY)


@pytest.mark.parametrize("name", index_store.ARRAYS)
def test_a_damaged_index_is_named(tmp_path, name):
    path = save(tmp_path, {KEY: INDEX}) / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="delete this folder"):
        IndexStore(tmp_path).find(KEY)
    path.unlink()
    with pytest.raises(UserError, match="delete this folder"):
        IndexStore(tmp_path).find(KEY)


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"indices": [{"samples": 3}]})])
def test_damaged_contents_are_named(tmp_path, text):
    (save(tmp_path, {KEY: INDEX}) / "contents.json").write_text(text)
    with pytest.raises(UserError, match="delete this folder"):
        IndexStore(tmp_path).find(KEY)
