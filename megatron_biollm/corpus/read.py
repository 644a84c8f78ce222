"""Files and folders of raw sources to documents, by what each file's content shows it to be.

Packed files (.gz, .zst, .xz) and archives (.tar, .tar.gz, .zip) are opened on the way. Files that
no reader knows are named in the report and passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.open import BROKEN, is_archive, open_streams
from megatron_biollm.corpus.readers import plain_text
from megatron_biollm.corpus.readers.format import HEAD_BYTES, Format
from megatron_biollm.corpus.readers.registry import find_format, known_formats
from megatron_biollm.corpus.report import CorpusReport, FileReport

_COMPANIONS = (".md5", ".sha256", ".part", "downloads.jsonl", "README.md")


def read_corpus(
    paths: Sequence[str | Path],
    report: CorpusReport,
    text_documents: str = "file",
    source: str | None = None,
) -> Iterator[Document]:
    """Yields the documents of all files, and fills the report as it goes.

    Args:
        paths: files and folders; folders are searched through, hidden files, checksums,
            records of downloads and of shards left aside.
        report: takes one entry per file met.
        text_documents: what a document is in a ``.txt`` file: the whole "file", or the lines
            up to a "blank_line".
        source: what the files are, where their content cannot say it ("clinical_notes").

    Raises:
        UserError: a path that does not exist, or an unknown `text_documents`.
    """
    if text_documents not in ("file", "blank_line"):
        raise UserError(
            f"text_documents is {text_documents!r}; a document of a .txt file is the whole "
            "'file' or ends at a 'blank_line'; give one of the two"
        )
    for path in find_files(paths):
        yield from read_file(path, report.start_file(str(path)), text_documents, source)


def read_file(
    path: Path, report: FileReport, text_documents: str = "file", source: str | None = None
) -> Iterator[Document]:
    """Yields the documents of one file; what is broken is counted and ends no run.

    report: takes counts, faults, and why the file was passed over if no reader knows it.
    """
    try:
        for name, stream in open_streams(path, report):
            form = _known_as(stream.peek(HEAD_BYTES)[:HEAD_BYTES], name, text_documents, source)
            if form is None and is_archive(path):
                report.drop("unknown_member")
                continue
            if form is None:
                report.passed_over = f"none of {known_formats(source)}"
                continue
            report.format = form.name
            for document in form.read(stream, name, report):
                report.documents += 1
                yield document
            if is_archive(path):
                # A member that breaks off takes no other along; the archive itself may.
                report.broken = False
    except BROKEN as error:
        report.break_off(f"after {report.documents} documents", f"cannot be read further: {error}")


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
        found |= {f: None for f in inside if f.is_file() and not _is_aside(f, below=path)}
    return list(found)


def require_documents(count: int, report: CorpusReport) -> None:
    """Raises UserError for an empty corpus, saying what its files were instead."""
    if count:
        return
    met = [f"{Path(f.path).name}: {f.passed_over}" for f in report.passed_over[:5]]
    for file in report.broken[:5]:
        met.append(f"{Path(file.path).name}, {file.faults[0].position}: {file.faults[0].reason}")
    raise UserError(
        f"the corpus is empty: {len(report.files)} files hold 0 documents"
        + (f" ({'; '.join(met)})" if met else "")
        + f"; give files with text ({known_formats()})"
    )


def _known_as(head: bytes, name: str, text_documents: str, source: str | None) -> Format | None:
    form = find_format(head, name, source)
    if form in plain_text.FORMATS and text_documents == "blank_line":
        return plain_text.BLOCKS
    return form


def _is_aside(file: Path, below: Path) -> bool:
    """Hidden, or beside the sources in order to describe them; not if the file itself is given."""
    hidden = any(part.startswith(".") for part in file.relative_to(below).parts)
    of_shard = file.suffix == ".json" and file.with_suffix(".jsonl.zst").exists()
    return file != below and (hidden or of_shard or file.name.endswith(_COMPANIONS))
