import io

import pytest
import sentencepiece

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.hf_files import sentencepiece_to_hf


def train(texts, file, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, num_threads=1, minloglevel=2, **options
    )
    file.write_bytes(model.getvalue())
    return file


def test_a_unigram_model_with_nfkc_keeps_its_ids(texts, tmp_path):
    file = train(texts, tmp_path / "u.model", vocab_size=150, user_defined_symbols=["<sep>"])
    backend, special = sentencepiece_to_hf(file)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    for text in [*texts, "  ｆｕｌｌ   width ½ "]:
        assert backend.encode(text).ids == processor.encode(text)
    assert special == {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": None}


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
