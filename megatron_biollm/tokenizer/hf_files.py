"""The Hugging Face form of a tokenizer: tokenizer.json and its config.

Both are written for `PreTrainedTokenizerFast`, which every version of transformers loads as it
stands; `LlamaTokenizerFast` would replace the handling of spaces by its own.

Text never becomes a control token, as in SentencePiece: a document that holds the characters
"</s>" gets the ids of these characters, not the id that ends documents. So tokenizer.json lists
no control token among its added tokens (which are searched in the text), and tokenizer_config.json
sets split_special_tokens, since transformers adds the named ones by itself when it loads. Ids of
control tokens are known by name as ever (`eos_token_id`), and left out when decoding. A chat
template writes them as text, so the export of a model that has one clears split_special_tokens
(`ChatTemplate.save`), and the template keeps them out of messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers
from tokenizers.models import BPE, Unigram

from megatron_biollm.config import UserError

SPACE = "▁"
# Checked before a conversion is accepted: spaces at every place, control characters, digits,
# composed and decomposed letters, scripts that fall back to bytes.
_PARITY_TEXTS = (
    "Aspirin (75 mg/day) reduced events by 12.5%.",
    "  leading,  double and trailing  ",
    "BACKGROUND: β-catenin ≥ 5 µg.\nMETHODS:\tn = 12\r\n\n",
    "naïve café e\u0301 ﬁne ½ 東京 🧬 \u00a0 \u2009x",
    " ",
)
_CONTROL_TEXT = "<s> x</s><unk> <pad>[INST]</s>"


def write_hf_files(
    backend: Tokenizer,
    folder: Path,
    unk: str | None,
    bos: str | None,
    eos: str,
    pad: str | None,
    more_special: Sequence[str] = (),
) -> None:
    """Writes tokenizer.json and tokenizer_config.json for `transformers.AutoTokenizer`.

    more_special: control tokens beside the four, left out when ids are decoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    special = {"unk_token": unk, "bos_token": bos, "eos_token": eos, "pad_token": pad}
    config = {key: value for key, value in special.items() if value is not None}
    config |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        # Without it a call of the tokenizer returns ids that LlamaForCausalLM does not take.
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if more_special:
        config["additional_special_tokens"] = list(more_special)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def space_marker_normalizer() -> normalizers.Normalizer:
    """Spaces become markers, and one stands before the text, as in LLaMA's SentencePiece model."""
    return normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])


def space_marker_decoder() -> decoders.Decoder:
    """Undoes `space_marker_normalizer` and joins byte pieces to characters."""
    return decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )


def sentencepiece_to_hf(path: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """The same tokenizer for the `tokenizers` library, and its special tokens by name.

    Of a unigram model `tokenizers` finds control tokens in text, since all pieces are alike to its
    search; elsewhere, and everywhere for BPE, the ids are the same.

    Returns:
        The tokenizer, and the arguments of `write_hf_files` which name special tokens.

    Raises:
        UserError: not a BPE or unigram model, or ids of probe texts differ.
    """
    from sentencepiece import SentencePieceProcessor
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    proto = ModelProto.FromString(path.read_bytes())
    symbols = [p.piece for p in proto.pieces if p.type == p.USER_DEFINED]
    backend = Tokenizer(_model(proto, path))
    backend.add_tokens([AddedToken(symbol, normalized=False) for symbol in symbols])
    backend.normalizer = _normalizer(proto.normalizer_spec)
    backend.decoder = space_marker_decoder()
    processor = SentencePieceProcessor(model_file=str(path))
    control = [_CONTROL_TEXT] if proto.trainer_spec.model_type == proto.trainer_spec.BPE else []
    around_symbols = [f"a {symbol} b{symbol}c" for symbol in symbols]
    for text in [*_PARITY_TEXTS, *control, *around_symbols]:
        if processor.encode(text) != backend.encode(text).ids:
            raise UserError(
                f"{path} cannot be written as a Hugging Face tokenizer: {text!r} gets other ids "
                "there; use a model trained with LLaMA's settings (BPE, identity normalization, "
                "no user-defined symbols)"
            )
    return backend, _special_tokens(proto, processor)


def _model(proto, path: Path) -> BPE | Unigram:
    spec = proto.trainer_spec
    if spec.model_type == spec.UNIGRAM:
        pieces = [(piece.piece, piece.score) for piece in proto.pieces]
        return Unigram(pieces, unk_id=spec.unk_id, byte_fallback=spec.byte_fallback)
    if spec.model_type != spec.BPE:
        raise UserError(
            f"{path} is a SentencePiece model of words or characters; Hugging Face files can be "
            "written for BPE and unigram models only"
        )
    return BPE(
        vocab={piece.piece: i for i, piece in enumerate(proto.pieces)},
        merges=_merges(proto),
        unk_token=proto.pieces[spec.unk_id].piece,
        fuse_unk=True,
        byte_fallback=spec.byte_fallback,
    )


def _merges(proto) -> list[tuple[str, str]]:
    """Every way to join two pieces to a third; the piece with the highest score comes first."""
    normal = {p.piece: (-p.score, i) for i, p in enumerate(proto.pieces) if p.type == p.NORMAL}
    return [
        pair
        for piece in sorted(normal, key=normal.__getitem__)
        for pair in splits(piece, normal, lambda part: normal[part][1])
    ]


def splits(piece: str, known: Container[str], order: Callable[[str], int]) -> list[tuple[str, str]]:
    """All pairs of known pieces that spell `piece`, in the order merges must try them.

    Of two joins that overlap in a text SentencePiece takes the left one, whichever pieces it is
    made of, and `tokenizers` the merge that stands first. They overlap as `a b c` with
    a + b == b + c, so the merge (a, b) must stand before (b, c).

    Args:
        order: of the pieces among themselves, for merges that do not overlap.
    """
    halves = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
    pairs = [pair for pair in halves if pair[0] in known and pair[1] in known]
    pairs.sort(key=lambda pair: (order(pair[0]), order(pair[1])))
    placed: list[tuple[str, str]] = []
    for pair in pairs:
        at = next((i for i, p in enumerate(placed) if pair[1] == p[0]), len(placed))
        placed.insert(at, pair)
    return placed


def _normalizer(spec) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" +"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _special_tokens(proto, processor) -> dict[str, Any]:
    ids = {
        "unk": processor.unk_id(),
        "bos": processor.bos_id(),
        "eos": processor.eos_id(),
        "pad": processor.pad_id(),
    }
    named = {name: processor.id_to_piece(i) if i >= 0 else None for name, i in ids.items()}
    control = [p.piece for p in proto.pieces if p.type == p.CONTROL]
    return {**named, "more_special": [c for c in control if c not in named.values()]}
