import io

import pytest
import sentencepiece
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.hf_files import sentencepiece_to_hf, splits
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer


def train(texts, file, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, num_threads=1, minloglevel=2, **options
    )
    file.write_bytes(model.getvalue())
    return file


def test_a_unigram_model_with_nfkc_keeps_its_ids(texts, tmp_path):
    file = train(texts, tmp_path / "u.model", vocab_size=150, control_symbols=["<end>"])
    backend, special = sentencepiece_to_hf(file)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    for text in [*texts, "  ｆｕｌｌ   width ½ "]:
        assert backend.encode(text).ids == processor.encode(text)
    names = {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": None}
    assert special == {**names, "more_special": ["<end>"]}


def test_text_never_becomes_a_control_token_however_it_is_loaded(sentencepiece_file, tmp_path):
    build_tokenizer(TokenizerConfig("Llama2Tokenizer", str(sentencepiece_file))).save_pretrained(
        tmp_path
    )
    text = "a <s> b</s> <unk></s>"
    expected = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_file)).encode(text)
    transformer = AutoTokenizer.from_pretrained(tmp_path)
    assert transformer(text).input_ids == expected
    assert Backend.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids == expected
    transformer.save_pretrained(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(tmp_path / "again")(text).input_ids == expected


def test_control_tokens_are_known_by_name_left_out_in_decoding_and_made_by_chat_templates(
    sentencepiece_file, tmp_path
):
    build_tokenizer(TokenizerConfig("Llama2Tokenizer", str(sentencepiece_file))).save_pretrained(
        tmp_path
    )
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.unk_token_id) == (1, 2, 0)
    assert loaded.decode([1, *loaded("the").input_ids, 2], skip_special_tokens=True) == "the"
    ids = loaded.apply_chat_template(
        [{"content": "the"}],
        chat_template="{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
        tokenizer_kwargs={"split_special_tokens": False},
    ).input_ids
    assert ids == [1, *loaded("the").input_ids, 2]


def test_user_defined_symbols_which_are_searched_in_text_are_refused(texts, tmp_path):
    file = train(texts, tmp_path / "u.model", vocab_size=150, user_defined_symbols=["<sep>"])
    with pytest.raises(UserError, match="'a <sep> b<sep>c' gets other ids"):
        sentencepiece_to_hf(file)


def test_of_two_merges_that_overlap_the_left_one_stands_first():
    known = {"an": 0, "a": 1, "na": 2}
    assert splits("ana", known, known.__getitem__) == [("an", "a"), ("a", "na")]
    known = {"a": 0, "na": 1, "an": 2}
    assert splits("ana", known, known.__getitem__) == [("an", "a"), ("a", "na")]


def test_a_model_that_would_change_its_ids_is_refused(texts, tmp_path):
    words = train(texts, tmp_path / "w.model", model_type="word", vocab_size=100)
    with pytest.raises(UserError, match="words or characters"):
        sentencepiece_to_hf(words)
    suffix = train(
        texts,
        tmp_path / "s.model",
        model_type="bpe",
        vocab_size=300,
        treat_whitespace_as_suffix=True,
    )
    with pytest.raises(UserError, match="gets other ids"):
        sentencepiece_to_hf(suffix)
