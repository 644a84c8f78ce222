"""Which tokenizers `gigatoken` encodes exactly, read from their own files.

A tokenizer has a fast form only if every part of it is one of those named here, and its ids are
those of the tokenizer on a few hundred probes: BPE with a piece for every byte, merges in one
strict order, spaces written as markers; or the byte-level form of GPT-2 and its successors. The
first part that is something else is the plan's `reason`.
"""

import dataclasses
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Optional

import numpy as np
import orjson

from megatron_biollm.config import UserError
from megatron_biollm.data.fast_encode import EncoderPlan, TextEncoder
from megatron_biollm.log import get_logger
from megatron_biollm.tokenizer.hf_files import SPACE, splits
from megatron_biollm.tokenizer.tokenizer import HuggingFaceTokenizer, Tokenizer

# The splitting rule that `megatron_biollm.tokenizer.train` writes into its tokenizers.
WORD = rf"{SPACE}?\p{{L}}[\p{{L}}\p{{M}}]*|\p{{N}}|{SPACE}?[^\s{SPACE}\p{{L}}\p{{N}}]+|\s|{SPACE}"
_BYTE_PIECES = {f"<0x{byte:02X}>" for byte in range(256)}
_PROBES = (
    "", " ", "  two  spaces,   three ", "a\tb\r\nc\n\nd\u2028e", "\x00\x01\x1f\x7f\x85\ufeff",
    "aaaaaaaaaaaaaaaaa bbbb 1111111 ......... \u2581\u2581 \u2581a\u2581", " " * 300,
    "IL-6 \u2265 12.5 \u00b5g/mL (\u03b2-catenin), na\u00efve e\u0301 \ufb01ne \u00bd",
    "\u6771\u4eac \U0001f9ec \U0001f468\u200d\U0001f469 \u1100\u1161 \uff71 \u0600e\u0301",
    "<s> </s> <unk> <pad> [INST] <|endoftext|> <0x41>", "...!?; :\"'),.a", "\ufffd\uffff\U0010ffff",
)  # fmt: skip
# Normalisations of SentencePiece whose rules do not reach over a space between two letters.
_KNOWN_NORMALISERS = {"identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"}


class _Unfit(Exception):
    """The tokenizer has a part that gigatoken does not reproduce."""


def plan_encoder(
    tokenizer: Tokenizer, literal_control_tokens: str = "as-tokenizer", exact: bool = False
) -> EncoderPlan:
    """How texts are encoded as `tokenizer` does it, and says so in the log where that is slow.

    literal_control_tokens: what the text of a control token ("</s>") becomes: what the tokenizer
        makes of it (a Hugging Face one usually the control token's id), or ordinary "text".
    exact: the tokenizer itself encodes, whatever it is.

    Raises:
        UserError: the end-of-document id is not a control token's.
    """
    if isinstance(tokenizer, HuggingFaceTokenizer):
        plan = _plan_huggingface(tokenizer, literal_control_tokens)
    else:
        plan = _plan_sentencepiece(tokenizer)
    plan = _slow(plan, "--exact is given") if exact else _probed(plan)
    if plan.fast is None:
        get_logger(__name__).info(
            "%s is encoded by the tokenizer itself, some twenty times slower than the fast path: "
            "%s", tokenizer.name, plan.reason,
        )  # fmt: skip
    return plan


def _plan_huggingface(tokenizer: HuggingFaceTokenizer, literals: str) -> EncoderPlan:
    backend = tokenizer.backend
    source = backend.to_str()
    state = orjson.loads(source)
    split_special = literals == "text" or backend.encode_special_tokens
    special = [token for token in state["added_tokens"] if token["special"]]
    _check_eod(tokenizer, tokenizer.eod in {token["id"] for token in special})
    prefix, suffix = ((), ()) if tokenizer.no_include_special_tokens else _around(backend)
    plan = EncoderPlan(
        kind="huggingface",
        source=source,
        fast=None,
        reason="",
        normalise=False,
        cut=None,
        prefix=prefix,
        suffix=suffix,
        split_special_tokens=split_special,
        control_tokens=tuple(token["content"] for token in special),
        eod=tokenizer.eod,
        vocab_size=tokenizer.vocab_size,
    )
    if split_special:
        state["added_tokens"] = [t for t in state["added_tokens"] if not t["special"]]
    try:
        cut = _check_huggingface(state)
    except _Unfit as why:
        return _slow(plan, str(why))
    return dataclasses.replace(plan, fast=orjson.dumps(state).decode(), cut=cut)


def _around(backend: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the tokenizer's own rule puts before and after a text."""
    bare = backend.encode("a b", add_special_tokens=False).ids
    full = backend.encode("a b").ids
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[:start]), tuple(full[start + len(bare) :])
    raise UserError(
        "the tokenizer's post-processor changes the ids of a text, where it may only add some "
        "before and after; set tokenizer.json's post_processor to null"
    )


def _check_huggingface(state: dict[str, Any]) -> Optional[str]:
    """How texts may be cut; changes `state` to what gigatoken reads. Raises _Unfit."""
    model = state["model"]
    if model["type"] != "BPE":
        raise _Unfit(f"it is a {model['type']} model, and only BPE has a fast form")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise _Unfit(f"its {name} is {model[name]!r}")
    for token in state["added_tokens"]:
        if token["normalized"] or token["lstrip"] or token["rstrip"] or token["single_word"]:
            raise _Unfit(f"its added token {token['content']!r} is searched by rules of its own")
    state["truncation"] = state["padding"] = state["post_processor"] = None
    if model["byte_fallback"]:
        return _check_markers(state)
    return _check_byte_level(state)


def _check_markers(state: dict[str, Any]) -> Optional[str]:
    """LLaMA's form: spaces are markers, characters without a piece are spelt in bytes."""
    model = state["model"]
    if _BYTE_PIECES - model["vocab"].keys() or model["ignore_merges"]:
        raise _Unfit("it lacks pieces for some bytes, or takes whole words before merging")
    steps = _steps(state["normalizer"], "normalizers")
    prepends = [step for step in steps if step == {"type": "Prepend", "prepend": SPACE}]
    marks = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    if steps not in ([], [marks], [*prepends, marks]):
        raise _Unfit("its normalizer does more than to write spaces as markers")
    before = state["pre_tokenizer"]
    if before and before["type"] == "Metaspace" and not steps and before["replacement"] == SPACE:
        drops = before["prepend_scheme"] != "never"
    elif steps and (before is None or _is_needless(before, model["merges"])):
        state["pre_tokenizer"], drops = None, bool(prepends)
    else:
        raise _Unfit("it splits words by a rule of its own, or leaves spaces as they are")
    if not _ends_at_spaces(model["vocab"]) or _touches_letters(state["added_tokens"]):
        return None
    return "drop" if drops else "keep"


def _check_byte_level(state: dict[str, Any]) -> str:
    """GPT-2's form: words by a regular expression, bytes as letters."""
    parts = _steps(state["pre_tokenizer"], "pretokenizers")
    last = parts[-1] if parts else {"type": "no pre_tokenizer"}
    if state["normalizer"] or last["type"] != "ByteLevel" or last["add_prefix_space"]:
        raise _Unfit("it has neither pieces for bytes nor GPT-2's byte-level form")
    if len(parts) > 2 or (len(parts) == 2 and parts[0]["type"] != "Split"):
        raise _Unfit("it splits words by several rules")
    if sum(len(piece) == 1 for piece in state["model"]["vocab"]) < 256:
        raise _Unfit("it lacks pieces for some bytes")
    if _touches_letters(state["added_tokens"]):
        raise _Unfit("its added tokens begin or end with letters")
    return "keep"


def _steps(part: Optional[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, be it one or a sequence."""
    if part is None:
        return []
    return [step for p in part[key] for step in _steps(p, key)] if key in part else [part]


def _is_needless(pre_tokenizer: dict[str, Any], merges: Iterable[Any]) -> bool:
    """Whether no merge could reach over a word of `tools/train_tokenizer.py`'s splitting rule.

    That rule parts letters with their marks (M), single digits and runs of signs. A piece of
    several characters that is itself a word (letters and marks, or signs without any mark) lies
    within one word wherever it stands in a text.
    """
    split = {"type": "Split", "pattern": {"Regex": WORD}, "behavior": "Isolated", "invert": False}
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return pre_tokenizer == split and all(_is_one_word("".join(pair)) for pair in pairs)


def _is_one_word(piece: str) -> bool:
    kinds = [unicodedata.category(character)[0] for character in piece.removeprefix(SPACE)]
    if len(kinds) < 2:
        return True
    if kinds[0] == "L":
        return set(kinds) <= {"L", "M"}
    return set(kinds) <= {"P", "S"} and SPACE not in piece[1:]


def _ends_at_spaces(pieces: Any) -> bool:
    """No piece holds a marker after another character, so no merge reaches over a space."""
    return all(SPACE not in piece.lstrip(SPACE) for piece in pieces)


def _touches_letters(added_tokens: list[dict[str, Any]]) -> bool:
    """A cut at a space between letters might fall into one of these, or right beside it."""
    return any(
        " " in text or text[:1].isalpha() or text[-1:].isalpha()
        for text in (token["content"] for token in added_tokens)
    )


def _plan_sentencepiece(tokenizer: Any) -> EncoderPlan:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    source = tokenizer.path.read_bytes()
    proto = ModelProto.FromString(source)
    control = [piece for piece in proto.pieces if piece.type in (piece.CONTROL, piece.UNKNOWN)]
    names = tuple(piece.piece for piece in control)
    ids = {number for number, piece in enumerate(proto.pieces) if piece.piece in set(names)}
    _check_eod(tokenizer, tokenizer.eod in ids)
    plan = EncoderPlan(
        kind="sentencepiece",
        source=source,
        fast=None,
        reason="",
        normalise=bool(proto.normalizer_spec.precompiled_charsmap)
        or proto.normalizer_spec.remove_extra_whitespaces,
        cut=None,
        prefix=(),
        suffix=(),
        split_special_tokens=True,
        control_tokens=names,
        eod=tokenizer.eod,
        vocab_size=tokenizer.vocab_size,
    )
    try:
        _check_sentencepiece(proto)
    except _Unfit as why:
        return _slow(plan, str(why))
    return dataclasses.replace(
        plan, fast=_as_tokenizer_json(proto, plan.normalise), cut=_sentencepiece_cut(proto)
    )


def _check_sentencepiece(proto: Any) -> None:
    """Raises _Unfit unless its merges are those of a list, and its bytes have pieces."""
    spec = proto.trainer_spec
    if spec.model_type != spec.BPE:
        raise _Unfit("it is not a BPE model, and only BPE has a fast form")
    kinds = Counter(piece.type for piece in proto.pieces)
    one = proto.pieces[0]
    if kinds[one.BYTE] < 256 or not spec.byte_fallback:
        raise _Unfit("it lacks pieces for some bytes")
    if kinds[one.USER_DEFINED] or kinds[one.UNUSED]:
        raise _Unfit("it has user-defined or unused pieces, which are searched before merging")
    if spec.treat_whitespace_as_suffix or not proto.normalizer_spec.escape_whitespaces:
        raise _Unfit("it does not write spaces as markers before words")
    if any(len(piece.piece) < 2 for piece in proto.pieces if piece.type != one.NORMAL):
        raise _Unfit("a control token of it is a single character")
    merged = [p for p in proto.pieces if p.type == one.NORMAL and len(p.piece) > 1]
    words = [piece.score for piece in merged if piece.piece.strip(SPACE)]
    if len(set(words)) < len(words):
        raise _Unfit("two of its pieces have one score, so that their order is not decided")


def _sentencepiece_cut(proto: Any) -> Optional[str]:
    spec = proto.normalizer_spec
    if spec.name not in _KNOWN_NORMALISERS or not _ends_at_spaces(p.piece for p in proto.pieces):
        return None
    return "drop" if spec.add_dummy_prefix else "keep"


def _as_tokenizer_json(proto: Any, normalised: bool) -> str:
    """The model as gigatoken reads it. Control tokens are never searched in a text.

    normalised: its texts come from SentencePiece's own normalisation, markers and all.
    """
    steps: list[dict[str, Any]] = []
    if not normalised:
        steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
        if proto.normalizer_spec.add_dummy_prefix:
            steps.insert(0, {"type": "Prepend", "prepend": SPACE})
    model = {
        "type": "BPE",
        "unk_token": proto.pieces[proto.trainer_spec.unk_id].piece,
        "fuse_unk": True,
        "byte_fallback": True,
        "vocab": {piece.piece: number for number, piece in enumerate(proto.pieces)},
        "merges": _merges(proto),
    }
    normalizer = {"type": "Sequence", "normalizers": steps}
    return orjson.dumps({"model": model, "normalizer": normalizer}).decode()


def _merges(proto: Any) -> list[tuple[str, str]]:
    """Every way to join two pieces to a third; the piece with the highest score comes first."""
    normal = {p.piece: (-p.score, i) for i, p in enumerate(proto.pieces) if p.type == p.NORMAL}
    order = {piece: number for piece, (_, number) in normal.items()}.__getitem__
    merges: list[tuple[str, str]] = []
    for piece in sorted(normal, key=normal.__getitem__):
        halves = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        pairs = [pair for pair in halves if pair[0] in normal and pair[1] in normal]
        merges += pairs if len(pairs) < 2 else splits(piece, normal, order)
    return merges


def _check_eod(tokenizer: Tokenizer, is_control: bool) -> None:
    if not 0 <= tokenizer.eod < tokenizer.vocab_size or not is_control:
        raise UserError(
            f"the end-of-document id of {tokenizer.name} is {tokenizer.eod}, which is no control "
            f"token of its {tokenizer.vocab_size}; texts would hold it, and documents end in their "
            "middle: name a control token as eos_token in its tokenizer_config.json"
        )


def _probed(plan: EncoderPlan) -> EncoderPlan:
    """The plan, without its fast path if that differs from the tokenizer on any probe."""
    if plan.fast is None:
        return plan
    try:
        encoder = TextEncoder(plan)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        return _slow(plan, f"gigatoken does not take it ({str(error).splitlines()[0]})")
    for text in [*_PROBES, *_spelt_probes()]:
        if not np.array_equal(encoder._encode(text), encoder.reference(text)):
            return _slow(plan, f"gigatoken gives other ids for {text[:40]!r}")
    return plan


def _slow(plan: EncoderPlan, reason: str) -> EncoderPlan:
    return dataclasses.replace(plan, fast=None, reason=reason)


def _spelt_probes() -> Iterator[str]:
    """Short texts put together from the probes' parts, the same in every run."""
    dice = random.Random(0)
    parts = [part for probe in _PROBES for part in (probe[:3], probe[-4:], probe[5:12])]
    for _ in range(200):
        yield "".join(dice.choices(parts, k=6))
