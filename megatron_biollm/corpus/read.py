"""Files and folders of raw sources to documents, by the ending of each file's name.

``.jsonl`` and ``.jsonl.gz``, ``.txt``, and PubMed's ``.xml`` and ``.xml.gz`` are read. Files of
other kinds are named in the report and passed over. A PMID that comes again, in the same file or
in another, is counted and left out: the first one read stays (files are read in order of name).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from megatron_biollm.config import UserError
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.jsonl import read_jsonl
from megatron_biollm.corpus.readers.plain_text import read_plain_text
from megatron_biollm.corpus.readers.pubmed import read_pubmed
from megatron_biollm.corpus.report import CorpusReport, FileReport

KINDS = ".jsonl, .jsonl.gz, .txt, .xml or .xml.gz (PubMed)"


def read_corpus(
    paths: Sequence[str | Path], report: CorpusReport, text_documents: str = "file"
) -> Iterator[Document]:
    """Yields the documents of all files, and fills the report as it goes.

    Args:
        paths: files and folders; folders are searched through, hidden files left aside.
        report: takes one entry per file met.
        text_documents: what a document is in a ``.txt`` file: the whole "file", or the lines
            up to a "blank_line".

    Raises:
        UserError: a path that does not exist, or an unknown `text_documents`.
    """
    if text_documents not in ("file", "blank_line"):
        raise UserError(
            f"text_documents is {text_documents!r}; a document of a .txt file is the whole "
            "'file' or ends at a 'blank_line'; give one of the two"
        )
    seen: set[str] = set()
    for path in find_files(paths):
        file = report.start_file(str(path))
        for document in _read_file(path, file, text_documents):
            if document.source == "pubmed" and document.id in seen:
                file.duplicates += 1
                continue
            if document.source == "pubmed":
                seen.add(document.id)
            file.documents += 1
            yield document


def find_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files themselves and those inside the folders, each once, in order of name.

    Raises:
        UserError: a path that does not exist.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"corpus path {path} does not exist; give files or folders that do")
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        found |= {f: None for f in inside if f.is_file() and not _is_hidden(f, below=path)}
    return list(found)


def _read_file(path: Path, file: FileReport, text_documents: str) -> Iterator[Document]:
    reader = _reader(path.name, text_documents)
    if reader is None:
        file.passed_over = f"not one of {KINDS}"
        return
    try:
        with _open(path) as stream:
            yield from reader(stream, path.name, file)
    except (OSError, EOFError, zlib.error) as error:
        # gzip raises all three: not gzip at all, cut short, broken inside.
        file.fault(f"after {file.documents} documents", f"cannot be read further: {error}")


def _reader(name: str, text_documents: str) -> Callable[..., Iterator[Document]] | None:
    plain = name.lower().removesuffix(".gz")
    if plain.endswith(".jsonl"):
        return read_jsonl
    if plain.endswith(".xml"):
        return read_pubmed
    if name.lower().endswith(".txt"):
        return partial(read_plain_text, blank_line_splits=text_documents == "blank_line")
    return None


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _is_hidden(file: Path, below: Path) -> bool:
    return file != below and any(p.startswith(".") for p in file.relative_to(below).parts)
