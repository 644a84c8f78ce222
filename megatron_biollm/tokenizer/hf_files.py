"""The Hugging Face form of a tokenizer: tokenizer.json and its config.

Both are written for `PreTrainedTokenizerFast`, which every version of transformers loads as it
stands; `LlamaTokenizerFast` would replace the handling of spaces by its own.
"""

from __future__ import annotations

import json
from pathlib import Path

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


def write_hf_files(
    backend: Tokenizer, folder: Path, unk: str | None, bos: str | None, eos: str, pad: str | None
) -> None:
    """Writes tokenizer.json and tokenizer_config.json for `transformers.AutoTokenizer`."""
    folder.mkdir(parents=True, exist_ok=True)
    special = {"unk_token": unk, "bos_token": bos, "eos_token": eos, "pad_token": pad}
    config = {key: value for key, value in special.items() if value is not None}
    config |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        # Without it a call of the tokenizer returns ids that LlamaForCausalLM does not take.
        "model_input_names": ["input_ids", "attention_mask"],
    }
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


def sentencepiece_to_hf(path: Path) -> tuple[Tokenizer, dict[str, str | None]]:
    """The same tokenizer for the `tokenizers` library, and its special tokens by name.

    Literal control tokens in a text ("</s>") are one id for `tokenizers` and ordinary
    characters for SentencePiece; elsewhere the ids are the same.

    Raises:
        UserError: not a BPE or unigram model, or ids of probe texts differ.
    """
    from sentencepiece import SentencePieceProcessor
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    proto = ModelProto.FromString(path.read_bytes())
    backend = Tokenizer(_model(proto, path))
    backend.add_tokens(_added_tokens(proto))
    backend.normalizer = _normalizer(proto.normalizer_spec)
    backend.decoder = space_marker_decoder()
    processor = SentencePieceProcessor(model_file=str(path))
    for text in _PARITY_TEXTS:
        if processor.encode(text) != backend.encode(text).ids:
            raise UserError(
                f"{path} cannot be written as a Hugging Face tokenizer: {text!r} gets other ids "
                "there; use a model trained with LLaMA's settings (BPE, identity normalization)"
            )
    return backend, _special_tokens(processor)


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
    merges = []
    for piece in sorted(normal, key=normal.__getitem__):
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        known = [pair for pair in splits if pair[0] in normal and pair[1] in normal]
        merges += sorted(known, key=lambda pair: (normal[pair[0]][1], normal[pair[1]][1]))
    return merges


def _added_tokens(proto) -> list[AddedToken]:
    return [
        AddedToken(piece.piece, normalized=False, special=piece.type != piece.USER_DEFINED)
        for piece in proto.pieces
        if piece.type in (piece.CONTROL, piece.USER_DEFINED)
    ]


def _normalizer(spec) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" +"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _special_tokens(processor) -> dict[str, str | None]:
    ids = {
        "unk": processor.unk_id(),
        "bos": processor.bos_id(),
        "eos": processor.eos_id(),
        "pad": processor.pad_id(),
    }
    return {name: processor.id_to_piece(i) if i >= 0 else None for name, i in ids.items()}
