import dataclasses
import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.manifest import (
    TokenizerManifest,
    load_tokenizer,
    save_tokenizer,
)
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer


@pytest.fixture
def manifest(hf_tokenizer):
    return TokenizerManifest.from_tokenizer(hf_tokenizer)


def test_it_says_what_the_tokenizer_is(manifest, hf_tokenizer):
    assert (manifest.vocab_size, manifest.padded_vocab_size) == (600, 1024)
    assert (manifest.bos_id, manifest.eod_id, manifest.pad_id) == (1, 2, None)
    assert (manifest.base_vocab_size, manifest.added_tokens) == (600, 0)
    assert manifest.sha256 == hf_tokenizer.sha256 and len(manifest.sha256) == 64


@pytest.mark.parametrize(("multiple", "padded"), [(8, 600), (128, 640), (1024, 1024)])
def test_the_vocabulary_is_padded_to_the_next_multiple(hf_tokenizer, multiple, padded):
    assert TokenizerManifest.from_tokenizer(hf_tokenizer, multiple).padded_vocab_size == padded


def test_it_reads_back_equal(manifest, tmp_path):
    manifest.write(tmp_path / "manifest.json")
    assert TokenizerManifest.read(tmp_path / "manifest.json") == manifest


def test_another_name_or_padding_is_the_same_tokenizer(manifest):
    other = dataclasses.replace(manifest, name="copy", padded_vocab_size=640)
    manifest.check_same(other, "the data", "the run")
    with pytest.raises(UserError, match=r"1024 in the data and 640 in the run"):
        manifest.check_same(other, "the data", "the run", padded=True)


def test_another_tokenizer_is_refused_with_both_values(manifest):
    other = dataclasses.replace(manifest, sha256="0" * 64, vocab_size=700)
    with pytest.raises(UserError, match="vocab_size is 600 in corpus.idx and 700 in the run") as e:
        manifest.check_same(other, "corpus.idx", "the run")
    assert manifest.sha256 in str(e.value) and "name the right tokenizer" in str(e.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "x"}'])
def test_a_file_that_is_no_manifest_is_refused(text, tmp_path):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="manifest"):
        TokenizerManifest.read(tmp_path / "manifest.json")
    with pytest.raises(UserError, match="cannot be read"):
        TokenizerManifest.read(tmp_path / "missing.json")


@pytest.mark.parametrize("kind", ["HuggingFaceTokenizer", "Llama2Tokenizer"])
def test_a_saved_tokenizer_is_loaded_as_it_was(kind, hf_folder, sentencepiece_file, tmp_path):
    path = hf_folder if kind == "HuggingFaceTokenizer" else sentencepiece_file
    tokenizer = build_tokenizer(TokenizerConfig(kind, str(path)))
    manifest = save_tokenizer(tokenizer, tmp_path, make_vocab_size_divisible_by=8)
    assert manifest.padded_vocab_size == 600
    loaded = load_tokenizer(tmp_path)
    assert (loaded.tokenizer_type, loaded.sha256) == (kind, tokenizer.sha256)


def test_files_changed_after_saving_are_refused(hf_tokenizer, tmp_path):
    save_tokenizer(hf_tokenizer, tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    state["model"]["merges"].pop()
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="give different ids"):
        load_tokenizer(tmp_path)
