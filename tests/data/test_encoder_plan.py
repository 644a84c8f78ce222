"""The fast path's ids are the tokenizer's own, or there is no fast path."""

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data import fast_encode
from megatron_biollm.data.encoder_plan import plan_encoder
from megatron_biollm.data.fast_encode import TextEncoder
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer
from megatron_biollm.tokenizer.train import train_tokenizer
from tests.data.conftest import SENTENCES

SAMPLES = Path(__file__).parents[2].parent / "shared/data/corpus"
ODD = [
    *("</s>", "<s>", "<unk>", "<0x41>", "\u2581", "\u2581\u2581", "  ", "   ", " ", "\t", "\n"),
    *("\r\n", "\0", "\x01", "\x7f", "\u200b", "\ufeff", "\u00a0", "\u3000", "\u2028", "e\u0301"),
    *("\u0301", " \u0301", "\U0001f469\u200d\U0001f467", "\ufffd", "\uffff", "\U0010ffff"),
    *("\ufb01", "\u00bd", "\u2167", "\uff71", "\u1100\u1161", "\u0600", "a\u0308", "\u00ad", "..."),
    *("?!", '".', "aaaaaaa", "1111", "1.5", "\u0130", "\u00df", "<sep>", "IL-6"),
]  # fmt: skip


def sentencepiece_model(folder, **settings):
    import sentencepiece

    prefix = folder / "model"
    sentencepiece.SentencePieceTrainer.train(
        **{
            "sentence_iterator": iter(SENTENCES * 4),
            "model_prefix": str(prefix),
            "vocab_size": 420,
            "model_type": "bpe",
            "byte_fallback": True,
            "num_threads": 1,
            "minloglevel": 2,
            "hard_vocab_limit": False,
            **settings,
        }
    )
    return build_tokenizer(TokenizerConfig("SentencePieceTokenizer", f"{prefix}.model"))


LLAMA = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
FAST_MODELS = {
    "llama": LLAMA,
    "llama, split digits": {**LLAMA, "split_digits": True, "allow_whitespace_only_pieces": True},
    "no dummy prefix": {**LLAMA, "add_dummy_prefix": False},
    "nmt_nfkc": {},
    "nfkc_cf": {"normalization_rule_name": "nfkc_cf", "remove_extra_whitespaces": False},
    "identity, spaces removed": {"normalization_rule_name": "identity"},
}
SLOW_MODELS = {
    "unigram": ({"model_type": "unigram"}, "not a BPE model"),
    "no bytes": ({"byte_fallback": False}, "pieces for some bytes"),
    "symbols": ({**LLAMA, "user_defined_symbols": ["<sep>", "IL-6"]}, "user-defined"),
    "suffix": ({**LLAMA, "treat_whitespace_as_suffix": True}, "markers before words"),
}


def hugging_face_tokenizer(folder, backend, **names):
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    return build_tokenizer(TokenizerConfig(tokenizer_model=str(folder)))


def byte_level(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return hugging_face_tokenizer(folder, backend, eos_token="<|endoftext|>")


def metaspace(folder, **settings):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(**settings)
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)],
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return hugging_face_tokenizer(
        folder, backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


HUGGING_FACE = {
    "tools/train_tokenizer.py": lambda folder: build_tokenizer(
        TokenizerConfig(tokenizer_model=str(train_tokenizer(SENTENCES, 600, folder / "own")))
    ),
    "byte level": byte_level,
    "metaspace": metaspace,
    "metaspace, first": lambda folder: metaspace(folder, prepend_scheme="first"),
    "metaspace, never": lambda folder: metaspace(folder, prepend_scheme="never"),
    "metaspace, not split": lambda folder: metaspace(folder, split=False),
}

CUTTABLE = [kind for kind in HUGGING_FACE if kind != "metaspace, not split"]


def odd_texts(seed, count, pieces):
    dice = random.Random(seed)
    words = " ".join(SENTENCES).split(" ")

    def part():
        kind = dice.random()
        if kind < 0.25:
            return dice.choice(ODD)
        if kind < 0.4:
            return dice.choice(pieces)
        if kind < 0.55:
            return " " * dice.randrange(1, 20)
        if kind < 0.75:
            code = dice.randrange(dice.choice((0x80, 0x600, 0x110000)))
            return chr(code if not 0xD800 <= code < 0xE000 else 0x20)
        return dice.choice(words) + dice.choice((" ", "", "\n"))

    for _ in range(count):
        yield "".join(part() for _ in range(dice.choice((0, 1, 2, 3, 5, 10, 60))))


def assert_same_ids(tokenizer, plan, texts):
    encoder = TextEncoder(plan)
    for text in texts:
        assert next(encoder.encode([text])).tolist() == tokenizer.encode(text), text


def pieces_of(tokenizer):
    return [tokenizer.decode([number]) or " " for number in range(tokenizer.vocab_size)]


@pytest.mark.parametrize("model", FAST_MODELS)
def test_sentencepiece_models_of_llamas_kind_are_encoded_fast_and_exactly(tmp_path, model):
    tokenizer = sentencepiece_model(tmp_path, **FAST_MODELS[model])
    plan = plan_encoder(tokenizer)
    assert plan.fast is not None, plan.reason
    assert_same_ids(tokenizer, plan, [*ODD, *odd_texts(1, 1500, pieces_of(tokenizer))])


@pytest.mark.parametrize("model", SLOW_MODELS)
def test_other_sentencepiece_models_encode_themselves(tmp_path, model):
    settings, reason = SLOW_MODELS[model]
    tokenizer = sentencepiece_model(tmp_path, **settings)
    plan = plan_encoder(tokenizer)
    assert plan.fast is None and reason in plan.reason
    assert_same_ids(tokenizer, plan, [*ODD, *odd_texts(1, 100, pieces_of(tokenizer))])


@pytest.mark.parametrize("kind", HUGGING_FACE)
def test_hugging_face_tokenizers_are_encoded_fast_and_exactly(tmp_path, kind):
    tokenizer = HUGGING_FACE[kind](tmp_path)
    plan = plan_encoder(tokenizer)
    assert plan.fast is not None, plan.reason
    assert_same_ids(tokenizer, plan, [*ODD, *odd_texts(2, 1500, pieces_of(tokenizer))])


def test_a_real_model_of_32000_pieces_is_encoded_exactly():
    import mistral_common

    path = Path(mistral_common.__file__).parent / "data/tokenizer.model.v1"
    tokenizer = build_tokenizer(TokenizerConfig("SentencePieceTokenizer", str(path)))
    plan = plan_encoder(tokenizer)
    assert plan.fast is not None, plan.reason
    assert_same_ids(tokenizer, plan, [*ODD, *odd_texts(3, 4000, pieces_of(tokenizer))])


@pytest.mark.slow
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not beside the checkout")
def test_every_shared_sample_file_is_encoded_exactly():
    import mistral_common

    path = Path(mistral_common.__file__).parent / "data/tokenizer.model.v1"
    tokenizer = build_tokenizer(TokenizerConfig("SentencePieceTokenizer", str(path)))
    plan = plan_encoder(tokenizer)
    compared = 0
    for file in sorted(SAMPLES.rglob("*")):
        if file.is_file():
            packed = file.suffix == ".gz"
            content = gzip.decompress(file.read_bytes()) if packed else file.read_bytes()
            texts = content[:3_000_000].decode("utf-8", "replace").split("\n\n")
            assert_same_ids(tokenizer, plan, texts)
            compared += 1
    assert compared > 70


@pytest.mark.parametrize("kind", ["llama", "nmt_nfkc", "no dummy prefix", *CUTTABLE])
def test_a_long_document_is_cut_without_a_change(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(fast_encode, "_PIECE_CHARACTERS", 50)
    if kind in HUGGING_FACE:
        tokenizer = HUGGING_FACE[kind](tmp_path)
    else:
        tokenizer = sentencepiece_model(tmp_path, **FAST_MODELS[kind])
    plan = plan_encoder(tokenizer)
    assert plan.cut in ("drop", "keep")
    text = "".join(odd_texts(4, 300, pieces_of(tokenizer)))
    encoder, slow = TextEncoder(plan), TextEncoder(replace(plan, fast=None))
    assert len(list(encoder._pieces(text))) > 20
    assert next(encoder.encode([text])).tolist() == tokenizer.encode(text)
    assert next(slow.encode([text])).tolist() == tokenizer.encode(text)


def test_a_model_whose_pieces_reach_over_spaces_is_never_cut(tmp_path):
    plan = plan_encoder(metaspace(tmp_path, split=False))
    assert plan.fast is not None and plan.cut is None


def test_control_tokens_in_a_text_stay_text_where_that_is_asked_for(tmp_path):
    tokenizer = metaspace(tmp_path)
    text = "before</s>after"
    as_it_is, as_text = plan_encoder(tokenizer), plan_encoder(tokenizer, "text")
    assert tokenizer.eod in next(TextEncoder(as_it_is).encode([text]))
    for plan in (as_text, replace(as_text, fast=None)):
        ids = next(TextEncoder(plan).encode([text])).tolist()
        assert tokenizer.eod not in ids and len(ids) > 5
        tokenizer._backend.encode_special_tokens = True
        assert ids == tokenizer.encode(text)


def changed(folder, **changes):
    path = folder / "tokenizer.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        place = state["model"] if name in state["model"] else state
        place[name] = value
    path.write_text(json.dumps(state), encoding="utf-8")
    return build_tokenizer(TokenizerConfig(tokenizer_model=str(folder)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalizer": {"type": "NFC"}}, "normalizer"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "rule of its own"),
        ({"pre_tokenizer": None}, "leaves spaces as they are"),
        ({"end_of_word_suffix": "</w>"}, "end_of_word_suffix"),
        ({"ignore_merges": True}, "whole words before merging"),
    ],
)
def test_a_part_that_is_not_reproduced_is_the_reason(tmp_path, changes, reason):
    metaspace(tmp_path)
    tokenizer = changed(tmp_path, **changes)
    plan = plan_encoder(tokenizer)
    assert plan.fast is None and reason in plan.reason
    assert_same_ids(tokenizer, plan, odd_texts(5, 50, ["a"]))


def test_an_end_of_document_that_is_ordinary_text_is_refused(tmp_path):
    path = metaspace(tmp_path).folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["eos_token"] = "a"
    path.write_text(json.dumps(config))
    tokenizer = build_tokenizer(TokenizerConfig(tokenizer_model=str(tmp_path)))
    tokenizer.eod = tokenizer.encode("a")[-1] + 1
    with pytest.raises(UserError, match="no control token"):
        plan_encoder(tokenizer)


def test_ids_that_differ_end_the_run(tmp_path):
    encoder = TextEncoder(plan_encoder(sentencepiece_model(tmp_path, **LLAMA)))
    encoder.compare("aspirin", next(encoder.encode(["aspirin"])))
    with pytest.raises(UserError, match="gigatoken gives other ids.*--exact"):
        encoder.compare("aspirin", np.array([1, 2], np.uint32))


def test_the_cache_of_words_is_emptied(tmp_path, monkeypatch):
    monkeypatch.setattr(fast_encode, "_CACHE_BYTES", 1 << 20)
    encoder = TextEncoder(plan_encoder(sentencepiece_model(tmp_path, **LLAMA)))
    dice, grown = random.Random(0), 0
    for _ in range(20):
        words = ("".join(dice.choices("abcdefghij", k=9)) for _ in range(20_000))
        next(encoder.encode([" ".join(words)]))
        before = encoder._encode
        encoder.bound_memory()
        grown += encoder._encode is not before
    assert grown
