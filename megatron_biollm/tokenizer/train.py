"""Training a byte-fallback BPE tokenizer in LLaMA's style.

Ids: <unk> 0, <s> 1, </s> 2, the 256 byte pieces, then characters and merges. Spaces are markers,
digits stand alone, no piece reaches over a word, and characters that are rare in the texts are
spelt in bytes, so every text has ids and comes back from them unchanged (but for the space
marker U+2581 itself, which comes back as a space). Text never becomes a special token.
"""

from __future__ import annotations

import json
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from megatron_biollm.config import UserError
from megatron_biollm.log import get_logger
from megatron_biollm.tokenizer.hf_files import (
    SPACE,
    space_marker_decoder,
    space_marker_normalizer,
    write_hf_files,
)

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")
MIN_VOCAB_SIZE = 512

_BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
# A word with its marker, one digit, a run of signs, one white-space character, one marker.
_WORD = rf"{SPACE}?\p{{L}}[\p{{L}}\p{{M}}]*|\p{{N}}|{SPACE}?[^\s{SPACE}\p{{L}}\p{{N}}]+|\s|{SPACE}"
# LLaMA-2's trainer settings.
_CHARACTER_COVERAGE = 0.9995
_MAX_PIECE_LENGTH = 16


def train_tokenizer(texts: Iterable[str], vocab_size: int, output_dir: str | Path) -> Path:
    """Learns a tokenizer and writes it as a folder for `transformers.AutoTokenizer`.

    The same texts in the same order give the same files. They are read once; a temporary copy
    beside `output_dir` serves the second pass, so memory grows with the number of different
    words only.

    Args:
        texts: one string per document.
        vocab_size: ids in all; fewer come out when the texts hold too few words (a warning).
        output_dir: folder to make; it appears only when complete.

    Returns:
        The folder.

    Raises:
        UserError: vocabulary below 512, no text, or a folder that exists and is not empty.
    """
    output = Path(output_dir)
    _check(vocab_size, output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=output.parent) as copy:
        counts = _count_characters(texts, copy)
        if not counts:
            raise UserError(
                "there is no text to train a tokenizer on; give inputs that hold documents"
            )
        learned = _learn(_read_copy(copy), vocab_size, _alphabet(counts, vocab_size))
    backend = _llama_style(*learned)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as staging:
        write_hf_files(backend, Path(staging) / "new", "<unk>", "<s>", "</s>", None)
        (Path(staging) / "new").replace(output)
    _warn_if_smaller(backend.get_vocab_size(), vocab_size)
    return output


def _check(vocab_size: int, output: Path) -> None:
    if vocab_size < MIN_VOCAB_SIZE:
        raise UserError(
            f"vocab size {vocab_size} is too small: {len(SPECIAL_TOKENS)} special tokens, 256 "
            f"bytes, characters and merges need at least {MIN_VOCAB_SIZE}; give more"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(
            f"output {output} exists and is not an empty folder; a tokenizer is never replaced, "
            "since data made with it would change meaning: give another name or remove it first"
        )


def _count_characters(texts: Iterable[str], copy: TextIO) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
        copy.write(json.dumps(text) + "\n")
    return counts


def _read_copy(copy: TextIO) -> Iterator[str]:
    copy.seek(0)
    return (json.loads(line) for line in copy)


def _alphabet(counts: Counter[str], vocab_size: int) -> list[str]:
    """Characters with a piece of their own: the most frequent, up to the coverage.

    Chosen here because the library breaks ties at its own limit by chance.
    """
    counts = Counter({c: n for c, n in counts.items() if unicodedata.category(c)[0] not in "CZ"})
    limit = (vocab_size - len(SPECIAL_TOKENS) - len(_BYTE_PIECES)) // 2
    wanted, covered, chosen = _CHARACTER_COVERAGE * counts.total(), 0, [SPACE]
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= wanted or len(chosen) >= limit:
            break
        covered += count
        chosen.append(character)
    return chosen


def _learn(
    texts: Iterator[str], vocab_size: int, alphabet: list[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces in order of their ids (without special tokens and bytes), and the merges."""
    learner = Tokenizer(BPE(unk_token=SPECIAL_TOKENS[0]))
    learner.normalizer = space_marker_normalizer()
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), "isolated")
    trainer = BpeTrainer(
        vocab_size=vocab_size - len(_BYTE_PIECES),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        max_token_length=_MAX_PIECE_LENGTH,
        show_progress=sys.stderr.isatty(),
    )
    learner.train_from_iterator(texts, trainer)
    model = json.loads(learner.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    return pieces[len(SPECIAL_TOKENS) :], merges


def _llama_style(pieces: list[str], merges: list[tuple[str, str]]) -> Tokenizer:
    vocabulary = [*SPECIAL_TOKENS, *_BYTE_PIECES, *pieces]
    model = BPE(
        vocab={piece: i for i, piece in enumerate(vocabulary)},
        merges=merges,
        unk_token=SPECIAL_TOKENS[0],
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Tokenizer(model)
    backend.normalizer = space_marker_normalizer()
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), "isolated")
    backend.decoder = space_marker_decoder()
    return backend


def _warn_if_smaller(got: int, wanted: int) -> None:
    if got < wanted:
        get_logger(__name__).warning(
            "the texts hold words for %d tokens only, %d were asked for; the tokenizer has %d",
            got,
            wanted,
            got,
        )
