"""Writes a tokenizer with more pieces behind its own.

A new piece is merged after everything the base merges, so all ids of the base keep their meaning
and a text without new pieces keeps its ids. The other recipe in use, score 0 for the new pieces
of a SentencePiece model, merges them first and tears old words apart ("which" to "w", "hic", "h").
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.extend import Extension
from megatron_biollm.tokenizer.hf_files import splits
from megatron_biollm.tokenizer.manifest import MANIFEST_FILE, TokenizerManifest
from megatron_biollm.tokenizer.mergeable import (
    HuggingFaceVocabulary,
    MergeableVocabulary,
    SentencePieceVocabulary,
    join,
    open_vocabulary,
)
from megatron_biollm.tokenizer.tokenizer import EXTENSION_FILE, TokenizerConfig, build_tokenizer

# Scores are float32, which counts by ones up to here.
_LOWEST_SCORE = 2**24


def extend_tokenizer(
    base: str | Path | MergeableVocabulary, new_pieces: Sequence[str], output_dir: str | Path
) -> Extension:
    """Writes a tokenizer that holds all of a BPE base and more.

    Of a SentencePiece base: tokenizer.model and its Hugging Face form; of a folder with
    tokenizer.json alone: that form. With both extension.json and manifest.json.

    Args:
        base: a .model file, a folder, or what `open_vocabulary` made of them.
        new_pieces: in the vocabulary's own spelling ("▁" before a word in LLaMA's). Ids follow
            the base's last one in this order.
        output_dir: folder to make; it appears only when complete.

    Raises:
        UserError: base is not BPE, a piece is known already, or is not one merge away; or
            `output_dir` exists and is not an empty folder.
    """
    output = Path(output_dir)
    require_new_folder(output)
    vocabulary = base if isinstance(base, MergeableVocabulary) else open_vocabulary(base)
    extension = _extension(vocabulary, new_pieces)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as staging:
        folder = Path(staging) / "new"
        if isinstance(vocabulary, SentencePieceVocabulary):
            _write_sentencepiece(vocabulary, new_pieces, folder)
        else:
            _write_hugging_face(vocabulary, new_pieces, folder)
        (folder / EXTENSION_FILE).write_text(json.dumps(asdict(extension)), encoding="utf-8")
        _write_manifest(vocabulary, folder, output.resolve().name)
        folder.replace(output)
    return extension


def require_new_folder(output: Path) -> None:
    """Raises UserError where `output` is a file or holds anything."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(
            f"output {output} exists and is not an empty folder; give another name or remove it"
        )


def _extension(vocabulary: MergeableVocabulary, new_pieces: Sequence[str]) -> Extension:
    ranks: dict[str, float] = {}
    taken = set(vocabulary.tokenizer.pieces())

    def rank(left: str, right: str) -> float | None:
        own = vocabulary.rank(left, right)
        return ranks.get(left + right) if own is None else own

    for piece in new_pieces:
        if piece in taken or piece in ranks:
            raise UserError(f"token {piece!r} is in the vocabulary already; leave it out")
        _check_piece(piece, vocabulary, ranks, join(list(piece), rank))
        ranks[piece] = vocabulary.next_rank + len(ranks)
    base = vocabulary.tokenizer
    sub_ids = [vocabulary.spell(piece) for piece in new_pieces]
    return Extension(base.sha256, base.vocab_size, sub_ids)


def _check_piece(
    piece: str, vocabulary: MergeableVocabulary, new: dict[str, float], parts: list[str]
) -> None:
    if not vocabulary.is_one_word(piece):
        raise UserError(
            f"token {piece!r} is cut into words before merges are tried, so it could never be "
            "found; leave it out or give its parts"
        )
    unknown = [part for part in parts if part not in vocabulary.pieces and part not in new]
    if vocabulary.spell(piece) is None or (unknown and len(piece) > 1):
        raise UserError(
            f"token {piece!r} holds characters without a piece of their own; put "
            f"{', '.join(map(repr, unknown))} before it in the list"
        )
    if len(parts) > 2:
        raise UserError(
            f"token {piece!r} is {len(parts)} pieces ({' + '.join(parts)}), and a new token "
            f"joins two; put {parts[0] + parts[1]!r} before it in the list"
        )


def _write_sentencepiece(
    vocabulary: SentencePieceVocabulary, new_pieces: Sequence[str], folder: Path
) -> None:
    last = vocabulary.next_rank + len(new_pieces)
    if last >= _LOWEST_SCORE:
        raise UserError(
            f"{vocabulary.tokenizer.path} has scores down to {1 - vocabulary.next_rank:.0f}, and "
            f"below {-_LOWEST_SCORE} they cannot be told apart; give a model whose scores count "
            "from -1 on, as SentencePiece's trainer writes them"
        )
    proto = type(vocabulary.proto)()
    proto.CopyFrom(vocabulary.proto)
    for i, piece in enumerate(new_pieces):
        proto.pieces.add(piece=piece, score=-(vocabulary.next_rank + i))
    proto.trainer_spec.vocab_size = len(proto.pieces)
    folder.mkdir()
    model = folder / "tokenizer.model"
    model.write_bytes(proto.SerializeToString())
    _load(vocabulary, model).save_pretrained(folder / "hf")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "hf" / name).replace(folder / name)
    (folder / "hf" / "tokenizer.model").unlink()
    (folder / "hf").rmdir()


def _write_hugging_face(
    vocabulary: HuggingFaceVocabulary, new_pieces: Sequence[str], folder: Path
) -> None:
    base = vocabulary.tokenizer
    base.save_pretrained(folder)
    own = base.folder / "tokenizer.json"
    # The file says which tokens are searched in the text; transformers adds to them in memory.
    state: dict[str, Any] = (
        json.loads(own.read_text(encoding="utf-8")) if own.is_file() else vocabulary.state
    )
    model = state["model"]
    # An added token such as <pad> that the model does not hold would move behind the new ones.
    model["vocab"] |= vocabulary.backend.get_vocab(with_added_tokens=True)
    model["vocab"] |= {piece: base.vocab_size + i for i, piece in enumerate(new_pieces)}
    known = dict.fromkeys([*vocabulary.pieces, *new_pieces])
    order = model["vocab"].__getitem__
    added = [pair for piece in new_pieces for pair in splits(piece, known, order)]
    merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    model["merges"] = [*merges, *map(list, added)]
    Backend.from_str(json.dumps(state)).save(str(folder / "tokenizer.json"))


def _write_manifest(vocabulary: MergeableVocabulary, folder: Path, name: str) -> None:
    path = folder / "tokenizer.model"
    tokenizer = _load(vocabulary, path if path.is_file() else folder)
    tokenizer.name = name
    TokenizerManifest.from_tokenizer(tokenizer).write(folder / MANIFEST_FILE)


def _load(vocabulary: MergeableVocabulary, path: Path):
    return build_tokenizer(TokenizerConfig(vocabulary.tokenizer.tokenizer_type, str(path)))
