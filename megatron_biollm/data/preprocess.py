"""Writes encoded corpora: PREFIX_KEY_document.bin, .idx and the sidecar, all at once or not.

The input is cut into shards (`lines`), each worker encodes and writes shards of its own (`encode`,
`shards`), and this process appends them in order while the others go on (`merge_shards`).
"""

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Optional

import numpy as np

from megatron_biollm.atomic import disk_errors
from megatron_biollm.config import UserError
from megatron_biollm.data.encode import DTYPES, BatchEncoder, EncodeOptions
from megatron_biollm.data.encoder_plan import plan_encoder
from megatron_biollm.data.fast_encode import EncoderPlan, TextEncoder
from megatron_biollm.data.index_file import megatron_dtype
from megatron_biollm.data.lines import Shard, find_inputs, plan_shards
from megatron_biollm.data.merge_shards import CorpusReport, Merger
from megatron_biollm.data.shards import Seal, WorkFolder, file_identity, write_shard
from megatron_biollm.data.workers import ordered_map
from megatron_biollm.log import get_logger
from megatron_biollm.tokenizer.sentences import SentenceSplitter, biomedical_parameters
from megatron_biollm.tokenizer.tokenizer import Tokenizer

_SAMPLE_EVERY = 64  # shards between two whose ids are compared with the tokenizer's own
_NOT_IN_SHARDS = ("input", "output_prefix", "workers", "keep_sequential_samples", "partitions")


@dataclass(frozen=True)
class Task:
    """A shard to encode, or one that an earlier run has finished.

    name: in the work folder. block: its lines, where the main process unpacked them.
    """

    shard: Shard
    name: str
    sample: bool
    block: Optional[bytes] = None
    finished: Optional[Seal] = None


def preprocess(
    options: EncodeOptions,
    tokenizer: Tokenizer,
    manifest: Optional[dict[str, Any]] = None,
    on_shard: Callable[[Seal], None] = lambda seal: None,
    files: Optional[list[str]] = None,
) -> list[CorpusReport]:
    """Encodes the input and writes one corpus for each JSON key.

    manifest: the tokenizer's, for the sidecar. on_shard: told of every shard in the order of the
    input, for progress and for naming bad lines. files: to read; those of `options.input` if None.

    Raises:
        UserError: no input, a bad line, no token in the whole input, a worker that died, or the
            disk is full. Then an older corpus of that name is untouched, and what is finished
            stays in PREFIX.shards for the next run of the same command.
    """
    files = files or find_inputs(options.input)
    plan = plan_encoder(tokenizer, options.literal_control_tokens, options.exact)
    dtype = corpus_dtype(options, plan)
    sha256 = manifest["sha256"] if manifest else tokenizer.sha256
    folder = WorkFolder(options.output_prefix, _identity(options, sha256, plan, dtype))
    with _opened(folder), contextlib.ExitStack() as stack:
        mergers = [
            stack.enter_context(contextlib.closing(Merger(folder, key, options.streams, dtype)))
            for key in range(len(options.json_keys))
        ]
        make = partial(ShardEncoder, options, plan, dtype.str, folder)
        seals = _encode(make, _tasks(files, folder, options), options.workers)
        for seal in stack.enter_context(contextlib.closing(seals)):
            on_shard(seal)
            for merger in mergers:
                merger.add(seal)
        reports = _reports(mergers, options, folder)
        _commit(mergers, reports, options, manifest)
    folder.remove()
    return reports


class ShardEncoder:
    """Encodes and writes shards in one process."""

    def __init__(self, options: EncodeOptions, plan: EncoderPlan, dtype: str, folder: WorkFolder):
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process per core is busy already
        self.folder = folder
        split = None
        if options.split_sentences:
            split = SentenceSplitter(options.lang, options.keep_newlines).load()
        self.encode = BatchEncoder(TextEncoder(plan, dtype), options, dtype, split)

    def __call__(self, task: Task) -> Seal:
        if task.finished:
            return task.finished
        with _disk_errors(self.folder.path):
            batches = self.encode(task.shard, task.block, task.sample)
            return write_shard(self.folder, task.name, batches)


def corpus_dtype(options: EncodeOptions, plan: EncoderPlan) -> np.dtype:
    """The dtype of the ids.

    Raises:
        UserError: a dtype is asked for that cannot hold the vocabulary.
    """
    forced = DTYPES[options.dtype]
    dtype = megatron_dtype(plan.vocab_size) if forced is None else np.dtype(forced)
    if plan.vocab_size - 1 > np.iinfo(dtype).max:
        raise UserError(
            f"--dtype is {options.dtype}, but the tokenizer has {plan.vocab_size} ids and the "
            f"largest that fits is {np.iinfo(dtype).max}; leave the flag out, or give int32"
        )
    return dtype


def _encode(
    make: Callable[[], ShardEncoder], tasks: Iterator[Task], workers: int
) -> Iterator[Seal]:
    with contextlib.closing(ordered_map(make, tasks, workers)) as seals:
        yield from seals


def _tasks(files: list[str], folder: WorkFolder, options: EncodeOptions) -> Iterator[Task]:
    identity = lru_cache(maxsize=1)(file_identity)
    for number, (shard, block) in enumerate(plan_shards(files, options.workers)):
        name = folder.name(shard, identity(shard.file))
        finished = folder.finished(name)
        block = None if finished else block
        yield Task(shard, name, number % _SAMPLE_EVERY == 0, block, finished)


def _identity(
    options: EncodeOptions, tokenizer_sha256: str, plan: EncoderPlan, dtype: np.dtype
) -> dict[str, Any]:
    asked = dataclasses.asdict(options)
    return {
        **{name: value for name, value in asked.items() if name not in _NOT_IN_SHARDS},
        "streams": options.streams,
        "sentences": biomedical_parameters() if options.split_sentences else None,
        "tokenizer": tokenizer_sha256,
        "special_ids": [plan.prefix, plan.suffix, plan.eod],
        "dtype": dtype.str,
    }


@contextlib.contextmanager
def _opened(folder: WorkFolder) -> Iterator[None]:
    """The work folder, for this process alone; what is finished in it outlives an error."""
    with _disk_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder.path, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        if reused := folder.remove_unfinished():
            get_logger(__name__).info("%s holds %d finished shards", folder.path, reused)
        with _disk_errors(folder.path):
            yield
    except BaseException:
        if folder.path.is_dir() and not folder.remove_unfinished():
            folder.remove()
        raise
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: WorkFolder) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"another process is writing {folder.path}; wait for it, or give another "
            "--output-prefix"
        ) from error
    except OSError:  # some network file systems have no locks
        get_logger(__name__).warning("%s cannot be locked; run one process on it", folder.path)


def _disk_errors(path: Path) -> contextlib.AbstractContextManager:
    remedy = "free space or choose another --output-prefix"
    return disk_errors(path, remedy, kept="finished shards are kept")


def _reports(
    mergers: list[Merger], options: EncodeOptions, folder: WorkFolder
) -> list[CorpusReport]:
    reports = []
    for merger, key in zip(mergers, options.json_keys, strict=True):
        report = merger.report(options.prefix(key))
        if not report.tokens:
            folder.remove()
            raise UserError(
                f"--input {options.input} has no text under {key!r} ({report.documents} documents, "
                f"all empty, {report.bad_lines} bad lines); a corpus needs at least one token: "
                "check the file and --json-keys"
            )
        reports.append(report)
    return reports


def _commit(
    mergers: list[Merger],
    reports: list[CorpusReport],
    options: EncodeOptions,
    manifest: Optional[dict[str, Any]],
) -> None:
    digests = [merger.finish() for merger in mergers]
    for merger, report, key, digest in zip(
        mergers, reports, options.json_keys, digests, strict=True
    ):
        merger.commit(report.prefix, _sidecar(report, key, options, manifest, digest))


def _sidecar(
    report: CorpusReport,
    key: str,
    options: EncodeOptions,
    manifest: Optional[dict[str, Any]],
    digests: dict[str, str],
) -> dict[str, Any]:
    counts = {name: value for name, value in vars(report).items() if name != "prefix"}
    return {
        "tokenizer": manifest,
        "json_key": key,
        "append_eod": options.append_eod,
        **counts,
        "sha256": digests,
    }
