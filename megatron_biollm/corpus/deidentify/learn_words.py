"""Learns which words are common ones and no names: those that texts write in lower case.

A name that slipped into lower case somewhere is told by the texts that write it with a capital, and
by its place in a list of names, which asks for more evidence.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.corpus.deidentify.name_lists import NameLists, load_names
from megatron_biollm.corpus.open import BROKEN, open_streams
from megatron_biollm.corpus.read import find_files, read_file
from megatron_biollm.corpus.report import FileReport
from megatron_biollm.log import Progress

# Texts that must write a word in lower case, and how many times as many may give it a capital.
_LEAST_TEXTS, _MOST_CAPITALS = 2, 30
_LEAST_TEXTS_OF_NAME, _MOST_CAPITALS_OF_NAME = 3, 10
_MOST_CAPITALS_OF_FIRST_NAME = 1
_LEAST_CAPITALS = 0.01  # of the characters; with fewer, names may stand in lower case too
# No part of an address on the net, of a code, of a word with a hyphen or an apostrophe.
_BEFORE, _AFTER = r"(?<![\w@.:/\\'’&#=-])", r"(?![\w@/\\=_-]|[.:]\w|['’][^\Ws])"
_LOWER = re.compile(_BEFORE + r"[a-zß-öø-ÿ]{2,30}" + _AFTER)
_CAPITAL = re.compile(_BEFORE + r"[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ]{1,29}" + _AFTER)


def learn_words(texts: Iterable[str], names: NameLists) -> list[str]:
    """Words, sorted, that at least two texts write in lower case and few write with a capital.

    Texts that hardly use capitals, or begin without one, teach nothing.
    """
    lower: Counter[str] = Counter()
    capital: Counter[str] = Counter()
    for text in texts:
        if _is_cased(text):
            lower.update(set(_LOWER.findall(text)))
            capital.update({word.lower() for word in _CAPITAL.findall(text)})
    return sorted(w for w, n in lower.items() if _is_common(w, n, capital[w], names))


def learn_words_file(paths: Sequence[str | Path], target: Path) -> tuple[dict[str, int], str]:
    """Writes `words.txt.gz`: what the texts of files and folders teach, one word a line.

    Files that no reader knows count line by line. Leave labelled sets out on which the
    de-identification is measured: they would teach it the very words that it shall find.

    Returns:
        How many texts and words, as a dict and as a sentence.

    Raises:
        UserError: a path that does not exist, texts without words, a file that cannot be written.
    """
    progress = Progress(None, "learning words", unit="texts")
    counts = {"texts": 0}
    words = learn_words(_counted(progress.track(_texts(paths)), counts), load_names())
    if not words:
        raise UserError(
            f"{', '.join(map(str, paths))}: no word stands in lower case in two texts; give files "
            "of running text"
        )
    try:
        # Without a time in its head the same words give the same file.
        target.write_bytes(gzip.compress("\n".join([*words, ""]).encode(), 9, mtime=0))
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error}; give a folder you may write to"
        ) from error
    counts["words"] = len(words)
    return counts, f"{len(words)} words from {counts['texts']} texts in {target}"


def _is_cased(text: str) -> bool:
    capitals = sum(map(str.isupper, text))
    return not text[:1].islower() and capitals >= _LEAST_CAPITALS * len(text)


def _is_common(word: str, lower: int, capital: int, names: NameLists) -> bool:
    """lower, capital: texts that write the word so."""
    if word not in names:
        return lower >= _LEAST_TEXTS and capital <= lower * _MOST_CAPITALS
    first = word in names.common_first
    most = _MOST_CAPITALS_OF_FIRST_NAME if first else _MOST_CAPITALS_OF_NAME
    return lower >= _LEAST_TEXTS_OF_NAME and capital <= lower * most


def _counted(texts: Iterable[str], counts: dict[str, int]) -> Iterator[str]:
    for text in texts:
        counts["texts"] += 1
        yield text


def _texts(paths: Sequence[str | Path]) -> Iterator[str]:
    for path in find_files(paths):
        report = FileReport(str(path))
        for document in read_file(path, report):
            yield document.text
        if report.passed_over:
            yield from _lines(path)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file, or of the members of an archive; what is not UTF-8 is left out."""
    try:
        for _, stream in open_streams(path, FileReport(str(path))):
            for line in stream:
                try:
                    yield line.decode("utf-8")
                except UnicodeDecodeError:
                    continue
    except BROKEN:
        return
