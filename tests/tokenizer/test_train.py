import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from megatron_biollm.config import UserError
from megatron_biollm.corpus.read import read_corpus
from megatron_biollm.corpus.report import CorpusReport
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer
from megatron_biollm.tokenizer.train import train_tokenizer

PUBMED = Path(__file__).parents[2].parent / "shared" / "data" / "corpus" / "pubmed"


def test_every_text_comes_back_from_its_ids(hf_tokenizer, texts, difficult_texts):
    for text in texts + difficult_texts:
        assert hf_tokenizer.decode(hf_tokenizer.encode(text)) == text


def test_ids_are_laid_out_as_llamas(hf_tokenizer):
    vocabulary = hf_tokenizer.transformers_tokenizer.get_vocab()
    first = ["<unk>", "<s>", "</s>", "<0x00>", "<0xFF>"]
    assert [vocabulary[token] for token in first] == [0, 1, 2, 3, 258]
    assert hf_tokenizer.vocab_size == len(vocabulary) == 600
    assert (hf_tokenizer.bos, hf_tokenizer.eod, hf_tokenizer.pad) == (1, 2, None)


def test_text_gets_no_unknown_and_no_special_token(hf_tokenizer, texts, difficult_texts):
    for ids in hf_tokenizer.encode_batch(texts + difficult_texts):
        assert not {0, 1, 2} & set(ids)


def test_frequent_words_become_one_token_and_digits_stay_alone(hf_tokenizer):
    assert len(hf_tokenizer.encode("patients")) == 1
    assert len(hf_tokenizer.encode("1234")) == 5


def test_auto_tokenizer_loads_it_beside_a_llama_config(hf_tokenizer, tmp_path, difficult_texts):
    hf_tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert set(loaded("hepatitis")) == {"input_ids", "attention_mask"}
    for text in difficult_texts:
        assert loaded(text).input_ids == hf_tokenizer.encode(text)
        assert loaded.decode(loaded(text).input_ids) == text


def test_the_same_texts_give_the_same_files_in_another_process(hf_folder, texts, tmp_path):
    (tmp_path / "texts.txt").write_text("\0".join(texts), encoding="utf-8", newline="")
    program = (
        "import sys; from pathlib import Path\n"
        "from megatron_biollm.tokenizer.train import train_tokenizer\n"
        "text = Path(sys.argv[1]).read_bytes().decode()\n"
        "train_tokenizer(iter(text.split('\\0')), 600, sys.argv[2])"
    )
    subprocess.run(
        [sys.executable, "-c", program, tmp_path / "texts.txt", tmp_path / "again"], check=True
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (hf_folder / name).read_bytes()


def test_too_few_words_give_a_smaller_vocabulary_and_a_warning(tmp_path, caplog):
    folder = train_tokenizer(["aspirin aspirin"], 5000, tmp_path / "t")
    size = build_tokenizer(TokenizerConfig(tokenizer_model=str(folder))).vocab_size
    assert size < 300
    assert f"the tokenizer has {size}" in caplog.text


def test_bad_requests_are_refused_and_leave_nothing(tmp_path):
    with pytest.raises(UserError, match="vocab size 100 is too small.*512"):
        train_tokenizer(["text"], 100, tmp_path / "t")
    with pytest.raises(UserError, match="no text to train"):
        train_tokenizer([], 600, tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_is_never_replaced(hf_folder):
    before = (hf_folder / "tokenizer.json").read_bytes()
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        train_tokenizer(["text"], 600, hf_folder)
    assert (hf_folder / "tokenizer.json").read_bytes() == before


@pytest.mark.skipif(not PUBMED.is_dir(), reason="no real PubMed files beside the checkout")
def test_real_abstracts_come_back_from_their_ids(tmp_path):
    documents = read_corpus([PUBMED / "pubmed_result_qi29.xml.gz"], CorpusReport())
    texts = [document.text for document in documents]
    folder = train_tokenizer(texts, 2048, tmp_path / "t")
    tokenizer = build_tokenizer(TokenizerConfig(tokenizer_model=str(folder)))
    ids = tokenizer.encode_batch(texts)
    assert [tokenizer.decode(i) for i in ids] == texts
    assert sum(len(t.encode()) for t in texts) > 2.5 * sum(map(len, ids))
