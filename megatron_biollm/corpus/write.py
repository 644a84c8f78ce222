"""Documents to one JSONL file, complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.read import find_files
from megatron_biollm.corpus.readers.registry import known_formats
from megatron_biollm.corpus.report import CorpusReport


def write_jsonl(documents: Iterable[Document], path: str | Path, report: CorpusReport) -> int:
    """Writes documents as JSONL; the file appears under its name only when complete.

    Args:
        documents: usually `read_corpus` with the same report.
        path: file to write; its folder is made.
        report: says, when there is no document at all, what was met instead.

    Returns:
        The number of documents.

    Raises:
        UserError: no document (empty corpus), or the file cannot be written; nothing is left.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for document in documents:
                file.write(document.to_json() + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        require_documents(count, report)
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error}; give a folder with free space that you may write to"
        ) from error
    finally:
        if temporary.is_file():
            temporary.unlink()
    return count


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


def refuse_faults(documents: Iterable[Document], report: CorpusReport) -> Iterator[Document]:
    """Passes documents on and raises UserError after the last one, all faults named at once."""
    yield from documents
    if report.broken:
        raise UserError(
            f"{report.fault_count} faults in {len(report.broken)} files, where none is "
            f"allowed: repair the files, or allow faults\n{report.to_text()}"
        )


def refuse_output_among(paths: Sequence[str | Path], output: str | Path) -> None:
    """Raises UserError if the file to write is one of those to read."""
    if Path(output).resolve() in {file.resolve() for file in find_files(paths)}:
        raise UserError(
            f"output {output} is also read as input, so its documents would come twice; write "
            "it outside the input folders, or remove it first"
        )
