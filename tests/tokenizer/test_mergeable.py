import io
import shutil

import pytest
import sentencepiece
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.mergeable import join, open_vocabulary
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer


@pytest.fixture(params=["sentencepiece", "tokenizers"])
def vocabulary(request, sentencepiece_file, hf_folder):
    path = sentencepiece_file if request.param == "sentencepiece" else hf_folder
    return open_vocabulary(path)


def ranks(*pairs):
    order = {pair: i for i, pair in enumerate(pairs)}
    return lambda left, right: order.get((left, right))


def test_the_lowest_rank_is_merged_first_and_the_left_one_of_equals():
    assert join("abc", ranks(("b", "c"), ("a", "b"))) == ["a", "bc"]
    assert join("aaa", ranks(("a", "a"))) == ["aa", "a"]
    assert join("abc", ranks(("b", "c"), ("a", "bc"))) == ["abc"]
    assert join([], ranks()) == []


def test_merging_characters_gives_the_tokenizers_own_ids(vocabulary, texts):
    words = {word for text in texts[:30] for word in text.split() if word.isalpha()}
    words |= {"東京", "βx"}
    for word in sorted(words):
        ids = vocabulary.tokenizer.encode(vocabulary.space_before + word)
        assert vocabulary.spell("▁" + word) == ids


def test_runs_are_the_pieces_of_the_text_cut_at_white_space(vocabulary):
    (runs,) = vocabulary.runs(["the\npatients\u00a0of"])
    assert ["".join(run) for run in runs] == ["▁the", "patients", "of"]


def test_a_character_spelt_in_bytes_is_one_symbol_the_vocabulary_lacks(vocabulary):
    (runs,) = vocabulary.runs(["x東京"])
    flat = [symbol for run in runs for symbol in run]
    assert flat[-2:] == ["東", "京"]
    assert not {"東", "京"} & vocabulary.pieces.keys()


def test_a_byte_piece_in_the_text_itself_is_text(vocabulary):
    (runs,) = vocabulary.runs(["<0x41>"])
    assert "".join(symbol for run in runs for symbol in run) == "▁<0x41>"


def test_only_normal_pieces_can_be_merged(vocabulary):
    assert not {"<s>", "</s>", "<unk>", "<0x41>"} & vocabulary.pieces.keys()
    assert "▁the" in vocabulary.pieces and not vocabulary.joins_digits


def test_the_sentencepiece_model_is_taken_where_a_folder_has_both(sentencepiece_file, tmp_path):
    model = build_tokenizer(TokenizerConfig("Llama2Tokenizer", str(sentencepiece_file)))
    model.save_pretrained(tmp_path)
    assert open_vocabulary(tmp_path).tokenizer.tokenizer_type == "SentencePieceTokenizer"


def test_files_in_one_folder_that_differ_are_refused(sentencepiece_file, hf_folder, tmp_path):
    shutil.copytree(hf_folder, tmp_path / "both")
    shutil.copy(sentencepiece_file, tmp_path / "both" / "tokenizer.model")
    with pytest.raises(UserError, match="and they differ.*tokenizer.model"):
        open_vocabulary(tmp_path / "both")


def test_a_base_that_is_not_bpe_is_refused(texts, tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=150, minloglevel=2
    )
    (tmp_path / "u.model").write_bytes(model.getvalue())
    with pytest.raises(UserError, match=r"u\.model is a unigram model, and only BPE"):
        open_vocabulary(tmp_path / "u.model")
    backend = Backend(models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}'
    )
    with pytest.raises(UserError, match="is a WordLevel tokenizer, and only BPE"):
        open_vocabulary(tmp_path)
