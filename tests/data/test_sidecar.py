import dataclasses

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data.sidecar import (
    check_tokenizer,
    check_vocabulary,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from megatron_biollm.tokenizer.manifest import TokenizerManifest

MANIFEST = TokenizerManifest(
    name="bio",
    tokenizer_type="HuggingFaceTokenizer",
    sha256="1" * 64,
    vocab_size=99,
    padded_vocab_size=1024,
    bos_id=1,
    eod_id=2,
    pad_id=None,
    base_vocab_size=99,
    added_tokens=0,
)


def test_the_same_tokenizer_is_accepted_however_far_the_model_pads(write_corpus, caplog):
    prefix = write_corpus()
    write_sidecar(prefix, {"tokenizer": MANIFEST.to_json()})
    check_tokenizer([prefix], dataclasses.replace(MANIFEST, padded_vocab_size=128))
    assert not caplog.text


def test_another_tokenizer_is_named_with_both_sides(write_corpus):
    prefix = write_corpus()
    other = dataclasses.replace(MANIFEST, name="chem", sha256="2" * 64)
    write_sidecar(prefix, {"tokenizer": other.to_json()})
    with pytest.raises(UserError, match=r"bio.*chem.*1111.*2222") as error:
        check_tokenizer([prefix], MANIFEST)
    assert str(sidecar_path(prefix)) in str(error.value)


def test_a_corpus_of_megatron_lm_is_accepted_with_a_warning(write_corpus, caplog):
    prefix = write_corpus()
    check_tokenizer([prefix], MANIFEST)
    assert "no sidecar" in caplog.text and prefix in caplog.text


def test_ids_beyond_the_vocabulary_are_refused(write_corpus):
    prefix = write_corpus(vocab=99)
    check_vocabulary([prefix], 99)
    with pytest.raises(UserError, match="token id 98, but the vocabulary has 98"):
        check_vocabulary([prefix], 98)


def test_the_sidecars_largest_id_saves_reading_the_corpus(write_corpus):
    prefix = write_corpus()
    write_sidecar(prefix, {"max_token_id": 500})
    with pytest.raises(UserError, match="token id 500"):
        check_vocabulary([prefix], 400)


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_damaged_sidecar_is_named(write_corpus, content):
    prefix = write_corpus()
    sidecar_path(prefix).write_text(content)
    with pytest.raises(UserError, match="manifest.json"):
        read_sidecar(prefix)
