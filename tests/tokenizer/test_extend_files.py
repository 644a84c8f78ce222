import json
import shutil

import pytest
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.extend import load_extension
from megatron_biollm.tokenizer.extend_files import extend_tokenizer
from megatron_biollm.tokenizer.manifest import TokenizerManifest, load_tokenizer, save_tokenizer
from megatron_biollm.tokenizer.mergeable import open_vocabulary
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer


def build(path, kind="HuggingFaceTokenizer"):
    return build_tokenizer(TokenizerConfig(kind, str(path)))


@pytest.fixture(params=["sentencepiece", "tokenizers"])
def base(request, sentencepiece_file, hf_folder):
    return sentencepiece_file if request.param == "sentencepiece" else hf_folder


def pieces_of(path, text):
    tokenizer = open_vocabulary(path).tokenizer
    return [tokenizer.pieces()[i] for i in tokenizer.encode(text)]


def prefixes(path, text):
    """The pieces of an unknown word, joined from the left until the word is one token."""
    parts = pieces_of(path, text)
    assert len(parts) > 2
    return ["".join(parts[:n]) for n in range(2, len(parts) + 1)]


def test_base_ids_stay_and_the_new_word_is_one_token(base, texts, tmp_path, difficult_texts):
    new = prefixes(base, "zymogenic")
    extension = extend_tokenizer(base, new, tmp_path / "more")
    old, more = open_vocabulary(base).tokenizer, load_tokenizer(tmp_path / "more")
    assert more.tokenizer_type == old.tokenizer_type
    assert more.pieces() == [*old.pieces(), *new]
    assert more.encode("zymogenic") == [more.vocab_size - 1]
    assert extension.sub_ids[-1] == old.encode("zymogenic")
    assert more.decode(more.encode("a zymogenic  cell")) == "a zymogenic  cell"
    for text in texts + difficult_texts:
        assert more.encode(text) == old.encode(text)


def test_a_new_piece_is_found_in_whatever_parts_the_text_has_it(base, tmp_path):
    new = [*prefixes(base, "zymogenic"), *prefixes(base, "zymosan")]
    new = list(dict.fromkeys(new))
    extend_tokenizer(base, new, tmp_path / "more")
    assert pieces_of(tmp_path / "more", "zymosan zymogenic") == ["▁zymosan", "▁zymogenic"]


def test_both_forms_of_a_sentencepiece_base_give_the_same_ids(
    sentencepiece_file, texts, difficult_texts, tmp_path
):
    extend_tokenizer(sentencepiece_file, prefixes(sentencepiece_file, "zymogenic"), tmp_path / "m")
    model, form = build(tmp_path / "m", "SentencePieceTokenizer"), build(tmp_path / "m")
    backend = Backend.from_file(str(tmp_path / "m" / "tokenizer.json"))
    literal = ["<s>zymogenic</s>", "a </s> <unk>", "<0x41> zymogenic<s>", "</s>"]
    for text in [*texts[:40], *difficult_texts, *literal]:
        assert form.encode(text) == model.encode(text) == backend.encode(text).ids
        assert form.decode(form.encode(text)) == text
    assert (form.bos, form.eod) == (model.bos, model.eod) == (1, 2)


def test_scores_continue_behind_the_last_normal_one(sentencepiece_file, tmp_path):
    new = prefixes(sentencepiece_file, "zymogenic")
    extend_tokenizer(sentencepiece_file, new, tmp_path / "more")
    proto = ModelProto.FromString((tmp_path / "more" / "tokenizer.model").read_bytes())
    old = [p.score for p in proto.pieces[: -len(new)] if p.type == p.NORMAL and p.score > -1e8]
    scores = [p.score for p in proto.pieces[-len(new) :]]
    assert scores == [min(old) - 1 - i for i in range(len(new))]
    assert proto.trainer_spec.vocab_size == len(proto.pieces) == 600 + len(new)


def test_scores_that_float32_cannot_count_are_refused(sentencepiece_file, tmp_path):
    proto = ModelProto.FromString(sentencepiece_file.read_bytes())
    proto.pieces[-1].score = -(2.0**25)
    (tmp_path / "low.model").write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match="cannot be told apart"):
        extend_tokenizer(tmp_path / "low.model", ["▁zy"], tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_an_added_token_of_the_base_keeps_its_id(hf_folder, tmp_path):
    new = prefixes(hf_folder, "zymogenic")
    shutil.copytree(hf_folder, tmp_path / "base")
    backend = Backend.from_file(str(hf_folder / "tokenizer.json"))
    backend.add_special_tokens(["<pad>"])
    backend.save(str(tmp_path / "base" / "tokenizer.json"))
    extend_tokenizer(tmp_path / "base", new, tmp_path / "more")
    more = build(tmp_path / "more")
    assert more.pieces()[600] == "<pad>"
    assert more.encode("zymogenic") == [600 + len(new)]


def test_a_special_token_that_only_the_config_names_keeps_its_id(hf_folder, tmp_path):
    new = prefixes(hf_folder, "zymogenic")
    shutil.copytree(hf_folder, tmp_path / "base")
    config = json.loads((hf_folder / "tokenizer_config.json").read_text())
    config["pad_token"] = "<pad>"
    (tmp_path / "base" / "tokenizer_config.json").write_text(json.dumps(config))
    extend_tokenizer(tmp_path / "base", new, tmp_path / "more")
    assert build(tmp_path / "base").pad == build(tmp_path / "more").pad == 600


def test_the_manifest_knows_the_base_wherever_the_files_are_copied(base, tmp_path):
    new = prefixes(base, "zymogenic")
    extension = extend_tokenizer(base, new, tmp_path / "more")
    written = TokenizerManifest.read(tmp_path / "more" / "manifest.json")
    copied = save_tokenizer(load_tokenizer(tmp_path / "more"), tmp_path / "copy")
    for manifest in (written, copied):
        assert (manifest.base_vocab_size, manifest.added_tokens) == (600, len(new))
    assert written.name == "more"
    assert load_extension(tmp_path / "copy") == extension
    assert extension.base_sha256 == open_vocabulary(base).tokenizer.sha256 != written.sha256


def test_a_character_that_was_spelt_in_bytes_can_be_a_piece(base, tmp_path):
    extension = extend_tokenizer(base, ["東", "▁東"], tmp_path / "more")
    assert [len(ids) for ids in extension.sub_ids] == [3, 4]
    more = load_tokenizer(tmp_path / "more")
    assert more.encode("東 東") == [601, 601]
    assert more.decode([601, 600]) == "東東"


def test_a_byte_level_base_is_extended(texts, tmp_path):
    backend = Backend(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        texts,
        BpeTrainer(
            vocab_size=500,
            special_tokens=["<end>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    (tmp_path / "base").mkdir()
    backend.save(str(tmp_path / "base" / "tokenizer.json"))
    (tmp_path / "base" / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}'
    )
    new = prefixes(tmp_path / "base", " zymogenic")
    extend_tokenizer(tmp_path / "base", new, tmp_path / "more")
    base, more = build(tmp_path / "base"), build(tmp_path / "more")
    assert more.encode("a zymogenic β<end>") == [
        *base.encode("a"),
        more.vocab_size - 1,
        *base.encode(" β"),
        base.eod,
    ]
    assert more.decode(more.encode("a zymogenic β")) == "a zymogenic β"


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["▁patients"], "in the vocabulary already"),
        (["</s>"], "in the vocabulary already"),
        (["▁zymogenic"], "joins two; put '▁z"),
        (["▁東"], "characters without a piece of their own; put '東'"),
    ],
)
def test_tokens_that_cannot_be_added_are_refused(base, tokens, message, tmp_path):
    with pytest.raises(UserError, match=message):
        extend_tokenizer(base, tokens, tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_a_token_over_words_is_refused(hf_folder, tmp_path):
    with pytest.raises(UserError, match="cut into words"):
        extend_tokenizer(hf_folder, ["▁the-patients"], tmp_path / "more")


def test_an_output_that_holds_files_is_refused(base, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "mine").touch()
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        extend_tokenizer(base, prefixes(base, "zymogenic"), tmp_path / "more")
    assert [p.name for p in (tmp_path / "more").iterdir()] == ["mine"]
