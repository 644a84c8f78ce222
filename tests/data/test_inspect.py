import json
from pathlib import Path

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data import inspect
from megatron_biollm.data.inspect import Corpus, decode, describe_ids, ratios, survey
from megatron_biollm.data.layout import HEADER_BYTES
from megatron_biollm.data.sidecar import write_sidecar
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.tokenizer import build_tokenizer
from tests.data.conftest import SENTENCES, spelled_out


@pytest.fixture
def write(tmp_path):
    """Writes documents, each a list of sequences of ids, and opens them as a corpus."""

    def make(documents, name="corpus", dtype="<u2"):
        ids, index = spelled_out(documents, dtype)
        (tmp_path / f"{name}.bin").write_bytes(ids)
        (tmp_path / f"{name}.idx").write_bytes(index)
        return str(tmp_path / name)

    return make


@pytest.fixture
def tokenizer(sentencepiece_model):
    return build_tokenizer(sentencepiece_model)


def encoded(tokenizer, texts=SENTENCES):
    return [[[*tokenizer.encode(text), tokenizer.eod]] for text in texts]


def opened(*prefixes):
    return Corpus.open("corpus", list(prefixes))


def test_a_survey_counts_every_id_and_every_length(write, monkeypatch):
    monkeypatch.setattr(inspect, "_CHUNK_IDS", 5)
    monkeypatch.setattr(inspect, "_CHUNK_DOCUMENTS", 2)
    documents = [[[5, 7, 2]], [[9], [9, 2]], [], [[70]], [[2, 2]]]
    corpus = opened(write(documents), write([[[7]]], "second"))
    read = []
    found = survey(corpus, eod=2, on_tokens=read.append)
    assert sum(read) == corpus.tokens == 10
    assert {i: int(n) for i, n in enumerate(found.counts) if n} == {2: 4, 5: 1, 7: 2, 9: 2, 70: 1}
    assert found.lengths.table()[0].tolist() == [0, 1, 2, 3]
    assert found.lengths.table()[1].tolist() == [1, 2, 1, 2]


def test_ends_of_documents_are_told_from_ends_inside_them(write):
    documents = [[[5, 2]], [[5], [2]], [[5, 2, 5]], [], [[5]], [[2, 2]]]
    found = survey(opened(write(documents)), eod=2)
    assert found.eod_summary == {"id": 2, "ended": 3, "not_ended": 2, "inside": 2}
    assert survey(opened(write(documents))).eod_summary is None


def test_documents_are_numbered_through_all_files(write):
    corpus = opened(write([[[5]], [[6, 7], [8]]]), write([[[9]]], "second"))
    assert [corpus.ids_of(n).tolist() for n in range(3)] == [[5], [6, 7, 8], [9]]
    for number in (3, -1):
        with pytest.raises(UserError, match=rf"no document {number}: its 3 documents"):
            corpus.ids_of(number)


def test_documents_are_decoded_to_the_text_they_were_made_from(write, tokenizer):
    corpus = opened(write(encoded(tokenizer)))
    found = list(decode(corpus, tokenizer, [0, 4]))
    assert [entry["text"] for entry in found] == [SENTENCES[0], SENTENCES[4]]
    assert found[0]["tokens"] == len(tokenizer.encode(SENTENCES[0])) + 1


def test_ratios_are_those_of_the_texts(write, tokenizer):
    found = ratios(opened(write(encoded(tokenizer))), tokenizer)
    tokens = sum(len(tokenizer.encode(text)) for text in SENTENCES)
    assert found["tokens"] == tokens and found["documents"] == 5
    assert found["tokens_per_word"] == tokens / sum(len(text.split()) for text in SENTENCES)
    assert found["characters_per_token"] == sum(map(len, SENTENCES)) / tokens


def test_a_sample_is_the_same_for_a_seed_and_never_larger_than_the_corpus():
    assert inspect.sample_numbers(1000, 5, 1) == inspect.sample_numbers(1000, 5, 1)
    assert inspect.sample_numbers(1000, 5, 1) != inspect.sample_numbers(1000, 5, 2)
    assert inspect.sample_numbers(3, 5, 1) == [0, 1, 2]


def test_bytes_and_unknown_tokens_are_told_from_words(write, tokenizer):
    documents = encoded(tokenizer, ["aspirin ☃", "aspirin"])
    found = describe_ids(survey(opened(write(documents))).counts, tokenizer, top=3)
    spelt = tokenizer.pieces()
    ids = np.concatenate([np.concatenate(d) for d in documents])
    snow = sum(spelt[i].startswith("<0x") for i in ids)
    assert snow == 3 and found["byte_share"] == pytest.approx(3 / len(ids))
    assert found["unknown_share"] == 0.0
    assert found["different"] == len(set(ids)) and len(found["top"]) == 3
    assert found["unused"] == tokenizer.vocab_size - len(set(ids))
    assert found["top"][0]["piece"] == spelt[found["top"][0]["id"]]


def test_ids_beyond_the_vocabulary_are_counted_and_have_no_piece(write, tokenizer):
    found = describe_ids(survey(opened(write([[[60_000]]]))).counts, tokenizer, top=3)
    assert found["top"] == [{"id": 60_000, "piece": None, "count": 1, "share": 1.0}]


@pytest.mark.parametrize("bad", [-5, 1 << 30])
def test_an_id_that_no_vocabulary_has_is_refused_by_its_number(write, bad):
    with pytest.raises(UserError, match=f"holds the token id {bad}"):
        survey(opened(write([[[1, bad]]], dtype="<i4")))


def test_an_index_out_of_order_is_refused(write):
    prefix = write([[[5]], [[6]], [[7]]])
    index = Path(f"{prefix}.idx")
    pointers = HEADER_BYTES + 3 * 4
    damaged = np.array([4, 2, 4], "<i8").tobytes()
    whole = index.read_bytes()
    index.write_bytes(whole[:pointers] + damaged + whole[pointers + len(damaged) :])
    with pytest.raises(UserError, match=r"one ends before it begins.*verify_data.py"):
        survey(opened(prefix))


def test_files_of_different_tokenizers_are_not_one_corpus(write, tokenizer):
    manifest = TokenizerManifest.from_tokenizer(tokenizer).to_json()
    one, other = write([[[5]]]), write([[[5]]], "second")
    write_sidecar(one, {"tokenizer": manifest})
    assert opened(one, other).manifest.sha256 == tokenizer.sha256
    write_sidecar(other, {"tokenizer": json.loads(json.dumps(manifest)) | {"sha256": "0"}})
    with pytest.raises(UserError, match="give different ids"):
        _ = opened(one, other).manifest
