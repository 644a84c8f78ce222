import pytest
import torch

from megatron_biollm.finetune.sft_dataset import RowSettings, make_row, open_blend
from megatron_biollm.finetune.token_cache import ensure_tokens
from tests.finetune.sft_files import STOP, Numbers, chats_of_lengths, write_chats

SEQ = 64


def rows(packing=True, seed=1):
    return RowSettings(SEQ, pad=STOP, seed=seed, packing=packing)


@pytest.fixture
def caches(tmp_path):
    lengths = {"a": (17, 9, 23, 30, 5, 12, 12, 40), "b": (11, 33, 8)}
    files = {n: write_chats(tmp_path / n, chats_of_lengths(*ls)) for n, ls in lengths.items()}
    made = {n: ensure_tokens(file, Numbers(), "tokenizer", SEQ) for n, file in files.items()}
    return {cache.file: cache for cache in made.values()}


def test_a_row_holds_conversations_end_to_end_and_counts_the_answers():
    one, two = ([1, 5, 6, 2], [0, 0, 1, 1]), ([1, 7, 2], [0, 1, 1])
    row = make_row([one, two], 8, pad=2)
    assert row["tokens"].tolist() == [1, 5, 6, 1, 7, 2, 2, 2]
    assert row["labels"].tolist() == [5, 6, 2, 7, 2, 2, 2, 2]
    assert row["loss_mask"].tolist() == [0, 1, 1, 1, 1, 0, 0, 0]
    assert row["position_ids"].tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
    assert row["tokens"].dtype == torch.int64 and row["loss_mask"].dtype == torch.float32


def test_a_full_row_has_no_padding():
    assert make_row([([1, 5, 2], [0, 1, 1])], 2, pad=0)["position_ids"].tolist() == [0, 1]


def test_an_epoch_holds_every_conversation_once(caches):
    (file, cache), _ = caches.items()
    stream = open_blend([file], caches, rows(), endless=True)
    lines = [line for i in range(stream.samples_per_epoch)
             for line in stream.provenance(i)["documents"]]  # fmt: skip
    assert sorted(lines) == cache.lines.tolist()
    learnt = sum(stream[i]["loss_mask"].sum() for i in range(stream.samples_per_epoch))
    assert learnt == cache.counts.learnt_tokens


def test_a_sample_follows_from_the_seed_and_its_number_alone(caches):
    blend = list(caches)
    first, again = (open_blend(blend, caches, rows(), endless=True) for _ in range(2))
    for index in (50, 3, 0):
        assert first.sample_hash(index) == again.sample_hash(index)
    other = open_blend(blend, caches, rows(seed=2), endless=True)
    hashes = [[s.sample_hash(i) for i in range(12)] for s in (first, other)]
    assert hashes[0] != hashes[1]


def test_validation_begins_again_with_the_same_rows(caches):
    stream = open_blend(list(caches), caches, rows(), endless=False)
    epoch = stream.samples_per_epoch
    assert [stream.sample_hash(i) for i in range(epoch)] == [
        stream.sample_hash(epoch + i) for i in range(epoch)
    ]


def test_files_are_mixed_by_weight(caches):
    a, b = caches
    stream = open_blend(["0.25", a, "0.75", b], caches, rows(), endless=True)
    sources = [stream.provenance(i)["source"] for i in range(40)]
    assert (sources.count(a), sources.count(b)) == (10, 30)


def test_without_packing_a_row_is_one_conversation(caches):
    a, _ = caches
    stream = open_blend([a], caches, rows(packing=False), endless=True)
    assert stream.samples_per_epoch == 8
    assert all(len(stream.provenance(i)["documents"]) == 1 for i in range(8))
