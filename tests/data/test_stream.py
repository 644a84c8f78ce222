import multiprocessing
from collections import Counter

import pytest
import torch

from megatron_biollm.config import UserError
from megatron_biollm.data.config import DataConfig
from megatron_biollm.data.planned import ensure_index
from megatron_biollm.data.stream import build_datasets, hash_tokens


def build(data, seed=1234, seq_length=16):
    return build_datasets(data, seq_length, seed, eod=2)


@pytest.fixture
def blend(write_corpus):
    prefixes = [write_corpus(name, seed=seed, documents=80) for seed, name in enumerate("ab")]
    return DataConfig(data_path=["0.7", prefixes[0], "0.3", prefixes[1]], split="80,20,0")


def test_samples_have_megatrons_fields(blend):
    sample = build(blend).train[0]
    assert {name: (value.dtype, tuple(value.shape)) for name, value in sample.items()} == {
        "tokens": (torch.int64, (16,)),
        "labels": (torch.int64, (16,)),
        "loss_mask": (torch.float32, (16,)),
        "position_ids": (torch.int64, (16,)),
    }
    assert torch.equal(sample["tokens"][1:], sample["labels"][:-1])


def test_two_processes_would_read_the_same_samples(blend):
    one, two = build(blend).train, build(blend).train
    assert [one.sample_hash(i) for i in range(300)] == [two.sample_hash(i) for i in range(300)]


def test_the_seed_decides_the_order(blend):
    hashes = [[build(blend, seed).train.sample_hash(i) for i in range(20)] for seed in (1, 2)]
    assert hashes[0] != hashes[1]


def test_samples_come_in_the_proportions_of_the_blend(blend):
    train = build(blend).train
    drawn = Counter(train.provenance(i)["source"] for i in range(100))
    assert [drawn[prefix] for prefix in blend.data_path[1::2]] == [70, 30]


def test_plain_prefixes_count_by_their_size(write_corpus):
    prefixes = [write_corpus("a", documents=30), write_corpus("b", documents=300)]
    train = build(DataConfig(data_path=prefixes, split="1")).train
    drawn = Counter(train.provenance(i)["source"] for i in range(train.samples_per_epoch))
    assert [drawn[source.prefix] for source in train.sources] == train.blend.sizes


def test_training_goes_on_with_a_new_epoch(write_corpus):
    train = build(DataConfig(data_path=[write_corpus()], split="1")).train
    size = train.samples_per_epoch
    assert train.provenance(size - 1)["epoch"] == 0 and train.provenance(size)["epoch"] == 1
    first, second = ([train.sample_hash(e * size + i) for i in range(size)] for e in (0, 1))
    assert first != second


def test_validation_begins_again(blend):
    valid = build(blend).valid
    size = valid.sources[0].num_samples * 10
    repeated = [i for i in range(size) if valid.provenance(i)["epoch"] != 0]
    assert not repeated and len({valid.sample_hash(i) for i in range(size)}) < size


def test_the_splits_share_no_document(blend):
    datasets = build(blend)
    seen = [
        {(place["source"], document) for place in map(stream.provenance, range(200))
         for document in place["documents"]}
        for stream in (datasets.train, datasets.valid)
    ]  # fmt: skip
    assert datasets.test is None and not seen[0] & seen[1]


def test_the_provenance_names_the_documents_of_a_sample(write_corpus):
    train = build(DataConfig(data_path=[write_corpus()], split="1")).train
    place = train.provenance(5)
    indexed = train.sources[0].indexed
    text = [token for number in place["documents"] for token in indexed[number].tolist()]
    tokens = train[5]["tokens"].tolist()
    assert any(text[i : i + 16] == tokens for i in range(len(text)))


def test_a_hash_depends_on_the_ids_alone():
    ids = torch.tensor([1, 2, 3])
    assert hash_tokens(ids) == hash_tokens(ids.to(torch.int32)) == hash_tokens(ids.numpy())
    assert hash_tokens(ids) == 13041116711478803063
    assert hash_tokens(ids) != hash_tokens(torch.tensor([1, 2, 4]))


def test_too_little_text_for_training_is_refused(write_corpus):
    prefix = write_corpus(documents=3)
    with pytest.raises(UserError, match=r"train part of .* tokens, but one sample takes 4097"):
        build(DataConfig(data_path=[prefix]), seq_length=4096)
    other = write_corpus("b", documents=400)
    with pytest.raises(UserError, match="train part of .*corpus"):
        build(DataConfig(data_path=["1", prefix, "1", other]), seq_length=512)


def test_too_little_text_for_validation_leaves_it_out(write_corpus, caplog):
    datasets = build(DataConfig(data_path=[write_corpus()], split="98,1,1"), seq_length=256)
    assert datasets.train and datasets.valid is None and datasets.test is None
    assert "it gives no sample" in caplog.text


def test_splits_may_have_corpora_of_their_own(write_corpus):
    names = [write_corpus(name, seed=seed) for seed, name in enumerate("abc")]
    data = DataConfig(train_data_path=names[:2], valid_data_path=names[2:])
    datasets = build(data)
    assert [source.prefix for source in datasets.train.sources] == names[:2]
    assert datasets.valid.sources[0].prefix == names[2] and datasets.test is None


@pytest.mark.parametrize(
    ("data", "seed", "seq_length", "said"),
    [
        (DataConfig(), 1, 16, "are empty"),
        (DataConfig(data_path=["nowhere"]), 1, 16, "nowhere.idx does not exist"),
        (DataConfig(), -1, 16, "seed is -1"),
        (DataConfig(), 1, 0, "seq_length is 0"),
    ],
)
def test_impossible_runs_are_refused(data, seed, seq_length, said):
    with pytest.raises(UserError, match=said):
        build(data, seed, seq_length)


def test_the_index_of_a_whole_run_is_built_beforehand(blend, tmp_path, caplog):
    blend.data_cache_path = str(tmp_path / "cache")
    folders = ensure_index(blend, 16, 1234, train_samples=1000)
    train = build(blend).train
    for number in (0, 999):
        train[number]
    assert "built in memory" not in caplog.text
    assert set(folders) == set((tmp_path / "cache").iterdir())
    times = [folder.stat().st_mtime_ns for folder in folders]
    assert ensure_index(blend, 16, 1234, train_samples=1000) == folders
    assert [folder.stat().st_mtime_ns for folder in folders] == times


# Python 3.12 warns of any fork of a process that has threads, as a test run has.
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_four_jobs_may_build_the_index_at_once(blend, tmp_path):
    context = multiprocessing.get_context("fork")
    blend.data_cache_path = str(tmp_path / "cache")
    jobs = [context.Process(target=ensure_index, args=(blend, 16, 1234, 3000)) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 4
    built = set((tmp_path / "cache").iterdir())
    assert len(built) > 10 and set(ensure_index(blend, 16, 1234, 3000)) == built


def test_a_longer_run_keeps_the_order_of_a_shorter_one(blend, tmp_path):
    orders = []
    for samples in (10, 2000):
        blend.data_cache_path = str(tmp_path / str(samples))
        ensure_index(blend, 16, 1234, samples)
        train = build(blend).train
        orders.append([train.sample_hash(i) for i in range(400)])
    assert orders[0] == orders[1]


def test_seeks_read_what_the_memory_map_reads(blend):
    mapped = build(blend).train.sample_hash(7)
    blend.mmap_bin_files = False
    assert build(blend).train.sample_hash(7) == mapped
