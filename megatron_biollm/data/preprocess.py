"""Writes encoded corpora: PREFIX_KEY_document.bin, .idx and the sidecar, all at once or not."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.data.encode import EncodedBatch, EncodeOptions, encode_files, find_inputs
from megatron_biollm.data.indexed import IndexedWriter, token_dtype
from megatron_biollm.data.layout import read_layout
from megatron_biollm.data.sidecar import file_digests


@dataclass
class CorpusReport:
    """One corpus that was written."""

    prefix: str
    documents: int
    empty_documents: int
    tokens: int
    max_token_id: int
    bad_lines: int


@dataclass
class _Count:
    tokens: int = 0
    empty_documents: int = 0
    max_token_id: int = -1


def preprocess(
    options: EncodeOptions,
    tokenizer_factory: Callable[[], Any],
    manifest: Optional[dict[str, Any]] = None,
    on_batch: Callable[[EncodedBatch], None] = lambda batch: None,
) -> list[CorpusReport]:
    """Encodes the input and writes one corpus for each JSON key.

    tokenizer_factory: makes a tokenizer with `vocab_size`, `eod` and `encode_batch`; picklable,
    since every worker process calls it. manifest: the tokenizer's, for the sidecar. on_batch: told
    of every batch, for progress and for naming bad lines.

    Raises:
        UserError: no input, a bad line, no token in the whole input, or the disk is full. Then no
            file is left and an older corpus of that name is untouched.
    """
    files, tokenizer = find_inputs(options.input), tokenizer_factory()
    _check_eod(options, tokenizer)
    dtype = token_dtype(tokenizer.vocab_size)
    settings = {
        "json_keys": options.json_keys,
        "append_eod": options.append_eod,
        "partitions": options.streams,
        "dtype": dtype.str,
    }
    with contextlib.ExitStack() as stack:
        writers = {
            key: stack.enter_context(IndexedWriter(options.prefix(key), dtype))
            for key in options.json_keys
        }
        batches = encode_files(
            files, tokenizer_factory, options.workers, options.skip_bad_lines, **settings
        )
        batches = _watched(stack.enter_context(contextlib.closing(batches)), on_batch)
        counts, bad_lines = _write(batches, writers, options.streams, stack)
        reports = [
            _finish(writers[key], counts[key], bad_lines, key, options) for key in options.json_keys
        ]
        for key, report in zip(options.json_keys, reports, strict=True):
            writers[key].commit(_sidecar(writers[key], report, key, options, manifest))
    return reports


def _write(
    batches: Iterator[EncodedBatch],
    writers: dict[str, IndexedWriter],
    streams: int,
    stack: contextlib.ExitStack,
) -> tuple[dict[str, _Count], int]:
    """Streams the batches into the writers; more than one stream goes through temporary files."""
    parts = {
        (key, part): writer
        if streams == 1
        else stack.enter_context(IndexedWriter(f"{writer.temporary}.{part}", writer.dtype))
        for key, writer in writers.items()
        for part in range(streams)
    }
    counts, bad_lines = {key: _Count() for key in writers}, 0
    for batch in batches:
        bad_lines += len(batch.bad)
        for (key, part), column in batch.columns.items():
            parts[key, part].add_documents(
                column.tokens, column.sequence_lengths, column.sequences_per_document
            )
            _count(counts[key], column)
    if streams > 1:
        for (key, _), part_writer in parts.items():
            writers[key].add_prefix(part_writer.finish())
            part_writer.close()
    return counts, bad_lines


def _count(count: _Count, column: Any) -> None:
    count.tokens += len(column.tokens)
    count.empty_documents += int((column.sequences_per_document == 0).sum())
    if len(column.tokens):
        count.max_token_id = max(count.max_token_id, int(column.tokens.max()))


def _finish(
    writer: IndexedWriter, count: _Count, bad_lines: int, key: str, options: EncodeOptions
) -> CorpusReport:
    if not count.tokens:
        raise UserError(
            f"--input {options.input} has no text under {key!r} ({writer.documents} documents, all "
            f"empty, {bad_lines} bad lines); a corpus needs at least one token: check the file and "
            "--json-keys"
        )
    writer.finish()
    return CorpusReport(
        options.prefix(key),
        writer.documents,
        count.empty_documents,
        count.tokens,
        count.max_token_id,
        bad_lines,
    )


def _sidecar(
    writer: IndexedWriter,
    report: CorpusReport,
    key: str,
    options: EncodeOptions,
    manifest: Optional[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "tokenizer": manifest,
        "json_key": key,
        "append_eod": options.append_eod,
        "documents": report.documents,
        "empty_documents": report.empty_documents,
        "bad_lines": report.bad_lines,
        "sequences": read_layout(writer.temporary).sequences,
        "tokens": report.tokens,
        "max_token_id": report.max_token_id,
        "sha256": file_digests(writer.temporary),
    }


def _check_eod(options: EncodeOptions, tokenizer: Any) -> None:
    if options.append_eod and tokenizer.eod is None:
        raise UserError(
            "--append-eod is given, but the tokenizer has no end-of-document token; add an "
            "eos_token to it, or leave the flag out"
        )


def _watched(
    batches: Iterator[EncodedBatch], on_batch: Callable[[EncodedBatch], None]
) -> Iterator[EncodedBatch]:
    for batch in batches:
        on_batch(batch)
        yield batch
