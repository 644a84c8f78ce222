import itertools
from pathlib import Path

import pytest
import torch

from megatron_biollm.config import UserError
from megatron_biollm.data import handover
from megatron_biollm.data.config import DataConfig
from megatron_biollm.data.sampler import micro_batches
from megatron_biollm.data.stream import build_datasets, hash_tokens

# Python 3.12 warns of any fork of a process that has threads, as a test run has.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")


@pytest.fixture
def stream(write_corpus):
    prefixes = [write_corpus(name, seed=seed) for seed, name in enumerate("ab")]
    data = DataConfig(data_path=["2", prefixes[0], "1", prefixes[1]], split="1")
    return build_datasets(data, 16, 1234, eod=2).train


def take(batches, count):
    return list(itertools.islice(batches, count))


def global_order(stream, steps, mbs, dp, consumed=0, num_workers=0):
    """Hashes of the samples in the order in which all ranks together read them."""
    ranks = [
        take(micro_batches(stream, consumed, mbs, rank, dp, num_workers), steps)
        for rank in range(dp)
    ]
    return [
        hash_tokens(tokens) for step in zip(*ranks, strict=True) for batch in step
        for tokens in batch["tokens"]
    ]  # fmt: skip


def test_every_number_of_ranks_reads_the_same_order(stream):
    expected = [stream.sample_hash(i) for i in range(64)]
    for dp, mbs in [(1, 1), (1, 4), (2, 2), (4, 1), (4, 4)]:
        assert global_order(stream, 64 // (dp * mbs), mbs, dp) == expected


def test_a_run_resumed_in_the_middle_reads_the_rest_with_any_number_of_ranks(stream):
    whole = global_order(stream, 32, 2, 1)
    for dp in (1, 2, 4):
        assert global_order(stream, 8 // dp, 2, dp, consumed=48) == whole[48:]


def test_batches_say_which_samples_they_hold(stream):
    batches = take(micro_batches(stream, 10, 3, 1, 2), 2)
    assert [b["sample_index"].tolist() for b in batches] == [[13, 14, 15], [19, 20, 21]]
    assert batches[0]["sample_index"].dtype == torch.int64
    assert batches[0]["tokens"].shape == (3, 16) and batches[0]["loss_mask"].shape == (3, 16)


def test_worker_processes_change_nothing_not_even_the_random_state(stream):
    state = torch.get_rng_state()
    order = global_order(stream, 12, 2, 1, num_workers=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert order == global_order(stream, 12, 2, 1)


def test_an_error_in_a_worker_process_reaches_the_run(stream, tmp_path):
    (tmp_path / "a.idx").unlink()
    with pytest.raises(Exception, match="a.idx"):
        take(micro_batches(stream, 0, 4, 0, 1, num_workers=1), 2)


@pytest.mark.parametrize(
    ("place", "said"),
    [((-1, 1, 0, 1), "consumed_samples is -1"), ((0, 0, 0, 1), "batch_size is 0"),
     ((0, 1, 2, 2), "rank 2 is not among 2")],
)  # fmt: skip
def test_impossible_places_are_refused(stream, place, said):
    with pytest.raises(UserError, match=said):
        micro_batches(stream, *place)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc")
def test_reading_further_ahead_changes_nothing_and_keeps_no_file_open(stream):
    def opened():
        return len(list(Path("/proc/self/fd").iterdir()))

    batches = micro_batches(stream, 0, 2, 0, 1, num_workers=2, ahead=9)
    first, before = next(batches), opened()
    taken = [first, *take(batches, 40)]
    assert opened() == before
    plain = take(micro_batches(stream, 0, 2, 0, 1), 41)
    for one, other in zip(taken, plain, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_batches_may_be_written_to(stream):
    for num_workers in (0, 1):
        batch = next(micro_batches(stream, 0, 2, 0, 1, num_workers=num_workers))
        batch["tokens"].zero_()


class Numbers:
    """Samples whose fields differ in kind and length."""

    def __init__(self, longer_after=None):
        self.longer_after = longer_after

    def __getitem__(self, index):
        length = 3 if self.longer_after is None or index < self.longer_after else 300
        return {
            "wide": torch.tensor([2**40 + index, -1]),
            "share": torch.full((length,), index / 7, dtype=torch.float32),
            "one": torch.tensor(index),
        }


@pytest.mark.parametrize("stream", [Numbers(), Numbers(longer_after=7)])
@pytest.mark.parametrize(("ahead", "most"), [(1, 1 << 26), (5, 1 << 26), (40, 1 << 26), (40, 1)])
def test_every_field_of_every_batch_is_handed_over(stream, ahead, most, monkeypatch):
    monkeypatch.setattr(handover, "_MOST_BYTES", most)
    here = take(micro_batches(stream, 5, 2, 0, 1), 25)
    there = take(micro_batches(stream, 5, 2, 0, 1, num_workers=3, ahead=ahead), 25)
    for one, other in zip(here, there, strict=True):
        assert {n: t.dtype for n, t in one.items()} == {n: t.dtype for n, t in other.items()}
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_batch_stays_what_it_was_when_later_ones_are_read(stream):
    batches = micro_batches(stream, 0, 2, 0, 1, num_workers=2)
    first = next(batches)
    before = first["tokens"].clone()
    take(batches, 30)
    assert torch.equal(first["tokens"], before)
