import json
import shutil

import pytest
from megatron.core.tokenizers.text.libraries import HuggingFaceTokenizer as CoreHuggingFace
from megatron.core.tokenizers.text.libraries import SentencePieceTokenizer as CoreSentencePiece
from tokenizers import Tokenizer as Backend
from tokenizers.processors import TemplateProcessing

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer


def build(path, kind="HuggingFaceTokenizer", **options):
    return build_tokenizer(TokenizerConfig(kind, str(path), **options))


@pytest.fixture
def folder_with_bos(hf_folder, tmp_path):
    """A tokenizer whose own rule begins each text with <s>, as LLaMA-2's does."""
    folder = tmp_path / "with_bos"
    shutil.copytree(hf_folder, folder)
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    "kind", ["SentencePieceTokenizer", "GPTSentencePieceTokenizer", "Llama2Tokenizer"]
)
def test_sentencepiece_ids_equal_megatrons(sentencepiece_file, texts, difficult_texts, kind):
    ours, megatrons = build(sentencepiece_file, kind), CoreSentencePiece(str(sentencepiece_file))
    for text in texts[:50] + difficult_texts:
        assert ours.encode(text) == megatrons.text_to_ids(text)
    assert (ours.vocab_size, ours.eod, ours.bos, ours.pad) == (600, megatrons.eos_id, 1, None)


@pytest.mark.parametrize("bare", [False, True])
def test_hugging_face_ids_equal_megatrons_with_and_without_special_tokens(
    folder_with_bos, texts, difficult_texts, bare
):
    ours = build(folder_with_bos, tokenizer_hf_no_include_special_tokens=bare)
    megatrons = CoreHuggingFace(
        str(folder_with_bos), use_fast=True, include_special_tokens=not bare
    )
    for text in texts[:50] + difficult_texts:
        assert ours.encode(text) == megatrons.text_to_ids(text)
    assert ours.encode("hepatitis")[0] == 1 or bare
    assert (ours.vocab_size, ours.eod) == (megatrons.vocab_size, megatrons.eod)


def test_a_length_limit_in_the_files_cuts_no_document(hf_folder, tmp_path):
    folder = tmp_path / "limited"
    shutil.copytree(hf_folder, folder)
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=32)
    backend.save(str(folder / "tokenizer.json"))
    text = "hepatitis of the patients " * 20
    assert build(folder).encode(text) == build(hf_folder).encode(text)


def test_a_batch_is_its_texts_one_by_one(hf_tokenizer, sentencepiece_file, texts):
    for tokenizer in (hf_tokenizer, build(sentencepiece_file, "Llama2Tokenizer")):
        assert tokenizer.encode_batch(texts[:5]) == [tokenizer.encode(t) for t in texts[:5]]


def test_special_and_padding_ids_decode_to_nothing(hf_tokenizer, sentencepiece_file):
    for tokenizer in (hf_tokenizer, build(sentencepiece_file, "Llama2Tokenizer")):
        ids = [1, *tokenizer.encode("the patients"), tokenizer.eod, 600, 1023]
        assert tokenizer.decode(ids) == "the patients"


def test_saved_files_give_the_same_ids_and_digest(hf_tokenizer, tmp_path, difficult_texts):
    hf_tokenizer.save_pretrained(tmp_path / "copy")
    again = build(tmp_path / "copy")
    assert again.sha256 == hf_tokenizer.sha256
    assert again.encode_batch(difficult_texts) == hf_tokenizer.encode_batch(difficult_texts)


def test_files_that_name_no_class_are_saved_so_that_they_load(hf_folder, tmp_path):
    (tmp_path / "bare").mkdir()
    shutil.copy(hf_folder / "tokenizer.json", tmp_path / "bare")
    special = {"eos_token": "</s>", "bos_token": "<s>"}
    (tmp_path / "bare" / "tokenizer_config.json").write_text(json.dumps(special))
    bare = build(tmp_path / "bare")
    bare.save_pretrained(tmp_path / "saved")
    assert build(tmp_path / "saved").encode("a  b\n12") == bare.encode("a  b\n12")


def test_a_sentencepiece_model_is_exported_with_the_same_ids(
    sentencepiece_file, tmp_path, texts, difficult_texts
):
    tokenizer = build(sentencepiece_file, "Llama2Tokenizer")
    tokenizer.save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text('{"model_type": "llama"}')
    exported = build(tmp_path / "hf")
    for text in texts[:50] + difficult_texts:
        assert exported.encode(text) == tokenizer.encode(text)
        assert exported.decode(exported.encode(text)) == text
    assert (exported.eod, exported.bos, exported.pad) == (2, 1, None)
    assert build(tmp_path / "hf", "SentencePieceTokenizer").sha256 == tokenizer.sha256


def test_the_digest_sees_vocabulary_spaces_and_document_starts(hf_folder, folder_with_bos):
    plain, with_bos = build(hf_folder), build(folder_with_bos)
    state = json.loads((folder_with_bos / "tokenizer.json").read_text())
    state["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    (folder_with_bos / "tokenizer.json").write_text(json.dumps(state))
    no_prefix = build(folder_with_bos)
    state["model"]["merges"].pop()
    (folder_with_bos / "tokenizer.json").write_text(json.dumps(state))
    digests = [t.sha256 for t in (plain, with_bos, no_prefix, build(folder_with_bos))]
    assert len(set(digests)) == 4


@pytest.mark.parametrize("kind", ["HuggingFaceTokenizer", "Llama2Tokenizer"])
def test_a_path_that_is_unset_missing_or_no_tokenizer_is_refused(kind, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "tokenizer.json").write_text("{}")
    (tmp_path / "junk" / "tokenizer.model").write_bytes(b"junk")
    with pytest.raises(UserError, match="tokenizer_model is not set; give a folder"):
        build_tokenizer(TokenizerConfig(kind))
    with pytest.raises(UserError, match="nowhere does not exist; give a local path"):
        build(tmp_path / "nowhere", kind)
    for name in ("empty", "junk"):
        with pytest.raises(UserError, match=name):
            build(tmp_path / name, kind)


def test_the_wrong_type_for_a_path_names_the_right_one(hf_folder, sentencepiece_file):
    with pytest.raises(UserError, match="tokenizer_type=SentencePieceTokenizer"):
        build(sentencepiece_file)
    with pytest.raises(UserError, match="tokenizer_type=HuggingFaceTokenizer"):
        build(hf_folder, "Llama2Tokenizer")


def test_an_unknown_type_is_refused():
    with pytest.raises(UserError, match=r"'GPT2BPETokenizer'.*give one of HuggingFaceTokenizer"):
        TokenizerConfig("GPT2BPETokenizer")


def test_a_tokenizer_without_an_end_of_document_is_refused(hf_folder, tmp_path):
    shutil.copytree(hf_folder, tmp_path / "t")
    (tmp_path / "t" / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast"}'
    )
    with pytest.raises(UserError, match="no end-of-sequence token"):
        build(tmp_path / "t")
