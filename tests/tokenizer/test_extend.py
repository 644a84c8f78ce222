import shutil

import pytest
import torch
from tokenizers import Tokenizer as Backend

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.extend import (
    extend_tokenizer,
    load_extension,
    mean_of_subtokens,
)
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer


def build(folder):
    return build_tokenizer(TokenizerConfig(tokenizer_model=str(folder)))


def pieces(tokenizer, text):
    return tokenizer.transformers_tokenizer.convert_ids_to_tokens(tokenizer.encode(text))


@pytest.fixture
def new_tokens(hf_tokenizer):
    """The pieces of an unknown word, joined from the left until the word is one token."""
    parts = pieces(hf_tokenizer, "zymogenic")
    assert len(parts) > 2
    return ["".join(parts[:n]) for n in range(2, len(parts) + 1)]


def test_base_ids_stay_and_the_new_word_is_one_token(
    hf_folder, hf_tokenizer, new_tokens, texts, tmp_path, difficult_texts
):
    extension = extend_tokenizer(hf_folder, new_tokens, tmp_path / "more")
    more = build(tmp_path / "more")
    assert more.vocab_size == 600 + len(new_tokens)
    assert more.encode("zymogenic") == [more.vocab_size - 1]
    assert extension.sub_ids[-1] == hf_tokenizer.encode("zymogenic")
    assert more.decode(more.encode("a zymogenic  cell")) == "a zymogenic  cell"
    for text in texts + difficult_texts:
        assert more.encode(text) == hf_tokenizer.encode(text)


def test_an_added_token_of_the_base_keeps_its_id(hf_folder, new_tokens, tmp_path):
    shutil.copytree(hf_folder, tmp_path / "base")
    backend = Backend.from_file(str(hf_folder / "tokenizer.json"))
    backend.add_special_tokens(["<pad>"])
    backend.save(str(tmp_path / "base" / "tokenizer.json"))
    extend_tokenizer(tmp_path / "base", new_tokens, tmp_path / "more")
    more = build(tmp_path / "more")
    assert more.encode("<pad>") == [600]
    assert more.encode("zymogenic") == [600 + len(new_tokens)]


def test_the_manifest_knows_the_base_wherever_the_files_are_copied(
    hf_folder, hf_tokenizer, new_tokens, tmp_path
):
    extension = extend_tokenizer(hf_folder, new_tokens, tmp_path / "more")
    build(tmp_path / "more").save_pretrained(tmp_path / "copy")
    manifest = TokenizerManifest.from_tokenizer(build(tmp_path / "copy"))
    assert (manifest.base_vocab_size, manifest.added_tokens) == (600, len(new_tokens))
    assert load_extension(tmp_path / "copy") == extension
    assert extension.base_sha256 == hf_tokenizer.sha256 != manifest.sha256
    assert load_extension(hf_folder) is None


def test_new_rows_are_the_mean_of_what_spelt_them():
    weight = torch.arange(12.0, dtype=torch.bfloat16).reshape(4, 3)
    rows = mean_of_subtokens(weight, [[0, 2], [3]])
    assert rows.dtype == torch.bfloat16
    assert rows.tolist() == [[3.0, 4.0, 5.0], [9.0, 10.0, 11.0]]
    assert mean_of_subtokens(weight, []).shape == (0, 3)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["▁patients"], "in the vocabulary already"),
        (["▁zymogenic"], "joins two; put '▁z"),
        (["▁東"], "characters without a piece"),
        (["▁the-patients"], "cut into 3 words"),
    ],
)
def test_tokens_that_cannot_be_added_are_refused(hf_folder, tokens, message, tmp_path):
    with pytest.raises(UserError, match=message):
        extend_tokenizer(hf_folder, tokens, tmp_path / "more")
    assert not (tmp_path / "more").exists()
