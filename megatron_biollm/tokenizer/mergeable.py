"""The pieces of a BPE tokenizer as merges see them, whichever library runs it."""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.hf_files import SPACE
from megatron_biollm.tokenizer.tokenizer import (
    SENTENCEPIECE_TYPES,
    HuggingFaceTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    TokenizerConfig,
    build_tokenizer,
)

Rank = Callable[[str, str], float | None]

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def join(symbols: Sequence[str], rank: Rank) -> list[str]:
    """Merges neighbours, the pair of the lowest rank first and the left one of equals.

    Args:
        rank: of a pair, None where the pair is not merged.
    """
    symbols = list(symbols)
    while True:
        pairs = ((rank(a, b), i) for i, (a, b) in enumerate(itertools.pairwise(symbols)))
        at = min((pair for pair in pairs if pair[0] is not None), default=(None, None))[1]
        if at is None:
            return symbols
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


class MergeableVocabulary:
    """What both libraries' BPE share.

    tokenizer: the tokenizer itself.
    pieces: the pieces that merges may use, with their ids; no control, byte or added tokens.
    next_rank: of the first merge behind all of its own.
    joins_digits: whether a piece of its own holds a digit and anything else.
    space_before: what a word alone needs before it to get the ids it has behind a space.
    """

    tokenizer: Tokenizer
    pieces: dict[str, int]
    next_rank: float
    joins_digits: bool
    space_before: str

    def rank(self, left: str, right: str) -> float | None:
        """Of the tokenizer's own merges."""
        raise NotImplementedError

    def text(self, piece: str) -> str:
        """As people write it, with a space where the piece begins a word."""
        raise NotImplementedError

    def runs(self, chunks: Sequence[str]) -> Iterator[list[list[str]]]:
        """Per chunk of text (it stands behind a space): runs of pieces that could be merged.

        A character that is spelt in bytes is one symbol that `pieces` does not hold.
        """
        raise NotImplementedError

    def is_one_word(self, piece: str) -> bool:
        """Whether a splitter that comes before merges leaves the piece whole."""
        return True

    def spell(self, piece: str) -> list[int] | None:
        """The tokenizer's ids for a piece that stands alone; None where a character has none."""
        ids: list[int] = []
        for symbol in join(list(piece), self.rank):
            known = [self.pieces.get(symbol)] if symbol in self.pieces else self._bytes(symbol)
            if None in known:
                return None
            ids += known
        return ids

    def _bytes(self, symbol: str) -> list[int | None]:
        return [self._byte_ids.get(byte) for byte in symbol.encode()]

    def _finish(self, ids: dict[str, int]) -> None:
        bytes_of = {piece: _BYTE.fullmatch(piece) for piece in ids}
        self._byte_ids = {int(m[1], 16): ids[piece] for piece, m in bytes_of.items() if m}
        words = (self.text(piece).strip() for piece in self.pieces)
        self.joins_digits = any(len(w) > 1 and any(map(str.isdecimal, w)) for w in words)


class SentencePieceVocabulary(MergeableVocabulary):
    """Of a SentencePiece BPE model: any two pieces that spell a third are merged."""

    def __init__(self, tokenizer: SentencePieceTokenizer):
        from sentencepiece import SentencePieceProcessor
        from sentencepiece.sentencepiece_model_pb2 import ModelProto

        self.tokenizer = tokenizer
        self.proto = ModelProto.FromString(tokenizer.path.read_bytes())
        spec = self.proto.trainer_spec
        if spec.model_type != spec.BPE:
            raise _not_bpe(tokenizer.path, f"{_kind(spec)} model")
        normal = [(i, p) for i, p in enumerate(self.proto.pieces) if p.type == p.NORMAL]
        self.pieces = {p.piece: i for i, p in normal}
        self._ranks = {p.piece: -p.score for _, p in normal}
        # Pieces of space markers alone may have a score of -1e9, where float32 cannot count on.
        self.next_rank = 1 + max(-p.score for _, p in normal if p.piece.strip(SPACE))
        self._processor = SentencePieceProcessor(model_file=str(tokenizer.path))
        self.space_before = _space_before(lambda t: self._processor.encode(t, out_type=str))
        self._finish({p.piece: i for i, p in enumerate(self.proto.pieces) if p.type == p.BYTE})

    def rank(self, left: str, right: str) -> float | None:
        return self._ranks.get(left + right)

    def text(self, piece: str) -> str:
        return piece.replace(SPACE, " ")

    def runs(self, chunks: Sequence[str]) -> Iterator[list[list[str]]]:
        texts = [self.space_before + chunk for chunk in chunks]
        for pieces in self._processor.encode(texts, out_type=str, num_threads=1):
            yield _split_runs(pieces, [0] * len(pieces), self.pieces)


class HuggingFaceVocabulary(MergeableVocabulary):
    """Of a `tokenizers` BPE: a list of pairs is merged, inside the words of its splitter."""

    def __init__(self, tokenizer: HuggingFaceTokenizer):
        self.tokenizer = tokenizer
        self.backend = tokenizer.transformers_tokenizer.backend_tokenizer
        self.state: dict[str, Any] = json.loads(self.backend.to_str())
        model = self.state["model"]
        if model["type"] != "BPE" or model.get("end_of_word_suffix"):
            raise _not_bpe(tokenizer.folder, f"{model['type']} tokenizer")
        added = {token["content"] for token in self.state["added_tokens"]}
        special = set(tokenizer.transformers_tokenizer.all_special_tokens)
        self.pieces = {
            piece: i
            for piece, i in model["vocab"].items()
            if piece not in added | special and not _BYTE.fullmatch(piece)
        }
        pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        self._ranks = {(left, right): float(i) for i, (left, right) in enumerate(pairs)}
        self.next_rank = float(len(pairs))
        self._byte_of = _byte_of_character() if _is_byte_level(self.state) else {}
        self.space_before = _space_before(
            lambda t: self.backend.encode(t, add_special_tokens=False).ids
        )
        self._finish(model["vocab"] if model.get("byte_fallback") else {})

    def rank(self, left: str, right: str) -> float | None:
        return self._ranks.get((left, right))

    def text(self, piece: str) -> str:
        if not self._byte_of:
            return piece.replace(SPACE, " ")
        return bytes(self._byte_of[c] for c in piece if c in self._byte_of).decode(errors="replace")

    def is_one_word(self, piece: str) -> bool:
        splitter = self.backend.pre_tokenizer
        text = self.text(piece) if self._byte_of else piece
        return splitter is None or len(splitter.pre_tokenize_str(text)) == 1

    def runs(self, chunks: Sequence[str]) -> Iterator[list[list[str]]]:
        texts = [self.space_before + chunk for chunk in chunks]
        for encoding in self.backend.encode_batch(texts, add_special_tokens=False):
            yield _split_runs(encoding.tokens, encoding.word_ids, self.pieces)


def open_vocabulary(path: str | Path) -> MergeableVocabulary:
    """The vocabulary of a base tokenizer: a .model file, or a folder.

    In a folder with both, tokenizer.model is what LLaMA-2's makers trained, and it is taken.

    Raises:
        UserError: no tokenizer there, not a BPE, or two files in the folder that differ.
    """
    path = Path(path)
    if not path.is_file() and not (path / "tokenizer.model").is_file():
        return HuggingFaceVocabulary(build_tokenizer(TokenizerConfig(tokenizer_model=str(path))))
    vocabulary = SentencePieceVocabulary(
        build_tokenizer(TokenizerConfig(SENTENCEPIECE_TYPES[0], str(path)))
    )
    if (path / "tokenizer.json").is_file():
        _check_same_ids(path, vocabulary.tokenizer)
    return vocabulary


def _check_same_ids(folder: Path, model: Tokenizer) -> None:
    own, other = (
        model.pieces(),
        build_tokenizer(TokenizerConfig(tokenizer_model=str(folder))).pieces(),
    )
    if other != own:
        more = ", ".join(map(repr, other[len(own) : len(own) + 3]))
        raise UserError(
            f"tokenizer.json in {folder} has {len(other)} pieces and tokenizer.model {len(own)}, "
            f"and they differ{f' ({more} ...)' if more else ''}; give {folder / 'tokenizer.model'} "
            "to extend that one alone, or a folder with only the one that the model was trained "
            "with"
        )


def _split_runs(
    tokens: Sequence[str], words: Sequence[int | None], known: dict[str, int]
) -> list[list[str]]:
    """Runs inside one word, without white space and what merges cannot use."""
    runs: list[list[str]] = [[]]
    before = None
    for symbol, word, usable in _join_bytes(tokens, words, known):
        usable = usable and not _breaks(symbol)
        if word != before or not usable:
            runs.append([])
        if usable:
            runs[-1].append(symbol)
        before = word
    return [run for run in runs if run]


def _join_bytes(
    tokens: Sequence[str], words: Sequence[int | None], known: dict[str, int]
) -> Iterator[tuple[str, int | None, bool]]:
    """Tokens with their words, byte pieces joined to characters, and whether merges can use it."""
    pending = b""
    for token, word in zip(tokens, words, strict=True):
        byte = None if token in known else _BYTE.fullmatch(token)
        if byte is None:
            pending = b""
            yield token, word, token in known
            continue
        pending += bytes([int(byte[1], 16)])
        try:
            character = pending.decode()
        except UnicodeDecodeError:
            continue
        yield character, word, True
        pending = b""


def _breaks(symbol: str) -> bool:
    return symbol.isspace() or unicodedata.category(symbol[-1])[0] in "CZ"


def _space_before(encode: Callable[[str], list]) -> str:
    """What to put before a chunk that stood behind a space, to get the same pieces again."""
    whole, first = encode("x word"), encode("x")
    return "" if first + encode("word") == whole else " "


def _is_byte_level(state: dict[str, Any]) -> bool:
    return '"ByteLevel"' in json.dumps([state["pre_tokenizer"], state["normalizer"]])


def _byte_of_character() -> dict[str, int]:
    """GPT-2's table: printable bytes stand for themselves, the others for characters from 256 on.

    `tokenizers` gives the characters as a set, so that their bytes follow from their order.
    """
    printable = [b for b in range(256) if chr(b) in ByteLevel.alphabet()]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def _kind(spec: Any) -> str:
    return {spec.UNIGRAM: "unigram", spec.WORD: "word", spec.CHAR: "character"}[spec.model_type]


def _not_bpe(where: Path, kind: str) -> UserError:
    return UserError(
        f"{where} is a {kind}, and only BPE can be continued; give a BPE base such as LLaMA-2's"
    )
