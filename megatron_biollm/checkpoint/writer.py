"""One save of a rank: planned by core, written by a process of its own, finished by rank 0.

Core would finish a save with collectives around what rank 0 writes, and a disk that fills up there
leaves the other ranks waiting. So its last steps are taken apart: every rank hands its results over
(`collect`), and rank 0 writes what is left without anybody waiting (`finish`).
"""

import contextlib
import inspect
import io
import json
import os
import queue
import textwrap
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Optional
from unittest import mock

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies import common, filesystem_async
from megatron.core.dist_checkpointing.strategies.async_utils import (
    AsyncRequest,
    TemporalAsyncCaller,
)
from megatron.core.dist_checkpointing.strategies.fully_parallel import (
    FullyParallelSaveStrategyWrapper,
)
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from torch.distributed.checkpoint.metadata import Metadata

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.digesting import DigestingFile
from megatron_biollm.checkpoint.stream_writer import CORE_METADATA
from megatron_biollm.checkpoint.write_results import WriteResults, write_guarded


@dataclass
class Share:
    """What one rank has written.

    Attributes:
        results: core's, for `.metadata`.
        digests: of its files.
        problem: why it could not write them.
    """

    results: list[Any] = field(default_factory=list)
    digests: verify.Digests = field(default_factory=dict)
    problem: Optional[str] = None


# A file of core's plan: its path, its name, and the objects and tensors that it is to hold.
Bucket = tuple[str, str, tuple[list, list]]


def write_and_digest(
    results: WriteResults, transforms: list[Any], rank: int, buckets: Sequence[Bucket], unused: Any
) -> None:
    """Writes the files of a rank, each in a thread, and leaves core's message and the digests.

    Core writes a file's items, and this gives it the file: one that is digested meanwhile.
    """
    files: dict[str, DigestingFile] = {}

    def create(path: str, mode: str) -> DigestingFile:
        return files.setdefault(path, DigestingFile(path))

    with (
        mock.patch.object(filesystem_async, "open", create, create=True),
        ThreadPoolExecutor(len(buckets)) as threads,
    ):
        told = list(threads.map(partial(_write_file, transforms), range(len(buckets)), buckets))
    problem = next((answer for answer in told if isinstance(answer, Exception)), None)
    results.put(problem or dict(enumerate(told)))
    if problem is None:
        results.put({name: files[path].digest() for path, name, _ in buckets})


@contextlib.contextmanager
def _without_crc32() -> Iterator[None]:
    """torch sums up each tensor (CRC-32) as it archives it; the digest of the file says more.

    Its switch is one of the thread that turns it.
    """
    computed = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(computed)


def _write_file(transforms: list[Any], index: int, bucket: Bucket) -> list[Any] | Exception:
    """Core's results for the items of a file, or what went wrong with it."""
    answers: queue.Queue = queue.Queue()
    at_work: queue.Queue = queue.Queue()
    at_work.put(index)
    write = filesystem_async.FileSystemWriterAsync.write_preloaded_data
    with _without_crc32():
        write(transforms, index, bucket, answers, at_work, use_fsync=True)
    return answers.get_nowait()[1]


class RankWriter:
    """The writing of one save on one rank.

    Args:
        folder: to write into.
        request: core's plan of what to write.
        storage: core's writer of that plan.
        metadata: core's table of contents, on rank 0.
        values: what is no tensor, serialized, on rank 0; None where core writes it with the rest.
        results: through which the process answers.
    """

    def __init__(
        self,
        folder: Path,
        request: AsyncRequest,
        storage: Any,
        metadata: Optional[Metadata],
        values: Optional[bytes],
        results: WriteResults,
    ) -> None:
        self.folder, self.request, self.storage = folder, request, storage
        self.metadata, self.values, self.results = metadata, values, results
        self.caller = TemporalAsyncCaller()

    def start(self) -> None:
        """Takes the snapshot: tensors of a GPU are copied to the host, then the process is forked.

        The fork's memory is that of this moment, whatever training changes afterwards.
        """
        if self.request.async_fn is None:  # nothing to write on this rank
            return
        transforms = [self.storage.transforms] if hasattr(self.storage, "transforms") else []
        write = partial(write_and_digest, self.results, transforms)
        self.caller.schedule_async_call(
            self.request._replace(async_fn=partial(write_guarded, os.getpid(), write))
        )

    def is_running(self) -> bool:
        """Whether the process still writes."""
        return self.caller.process is not None and self.caller.process.is_alive()

    def collect(self) -> Share:
        """Waits for the process and takes what it says."""
        self.caller.close()
        if self.request.async_fn is None:
            return Share()
        results = self.storage.retrieve_write_results()
        if not isinstance(results, list):  # an exception and where it was raised
            return Share(problem=reason(results[0]))
        digests = self.results.get_nowait()
        return Share(results, digests) if isinstance(digests, dict) else Share(problem=digests)

    def finish(self, results: list[list[Any]]) -> None:
        """Writes the table of contents and what is no tensor; on rank 0.

        Args:
            results: of every rank.
        """
        # A copy: core hangs the plans of all ranks on its own, which no reader needs.
        self.storage.finish(replace(self.metadata), results)
        if self.values is not None:
            (self.folder / "common.pt").write_bytes(self.values)
        (self.folder / "metadata.json").write_text(json.dumps(CORE_METADATA))

    def close(self) -> None:
        """Ends the process, if it still runs, and gives everything back."""
        self.caller.close(abort=self.is_running())
        self.results.close()


class Planner:
    """Plans saves, and keeps core's plan of each format for the next one.

    Args:
        group: data-parallel ranks, with the same weights.
        fully_parallel: share the writing of these weights among them.
    """

    def __init__(self, group: torch.distributed.ProcessGroup, fully_parallel: bool) -> None:
        self.group, self.fully_parallel = group, fully_parallel
        self.strategies: dict[str, _Strategy] = {}

    def plan(self, content: dict[str, Any], folder: Path, kind: str) -> RankWriter:
        """Plans the save of `content`, whose structure is that of the last one of its `kind`."""
        known = self.strategies.pop(kind, None)  # gone, should planning fail
        strategy = known or _Strategy("torch_dist", 1, cached_metadata=True)
        results, values = WriteResults(), []
        with mock.patch.object(filesystem_async, "_results_queue", results), _kept(values):
            request = dist_checkpointing.save(
                content,
                str(folder),
                sharded_strategy=self._shared(strategy),
                async_sharded_save=True,
                validate_access_integrity=known is None,
                **_core_writer(),
            )
        self.strategies[kind] = strategy
        value = values[0] if values else None
        return RankWriter(folder, request, *strategy.take_planned(), value, results)

    def _shared(self, strategy: "_Strategy") -> Any:
        if not self.fully_parallel or self.group.size() == 1:
            return strategy
        if strategy.shared is None:
            strategy.shared = FullyParallelSaveStrategyWrapper(
                strategy, self.group, do_cache_distribution=True
            )
        return strategy.shared


class _Strategy(TorchDistSaveShardedStrategy):
    """Core's, which also tells its writer and its table of contents."""

    shared: Optional[FullyParallelSaveStrategyWrapper] = None
    planned: Any = None

    def _get_save_and_finalize_callbacks(self, writer: Any, planned: Any, *more: Any) -> Any:
        self.planned = (writer, planned[1])
        return super()._get_save_and_finalize_callbacks(writer, planned, *more)

    def take_planned(self) -> tuple[Any, Optional[Metadata]]:
        planned, self.planned = self.planned, None
        return planned


@contextlib.contextmanager
def _kept(values: list[bytes]) -> Iterator[None]:
    """Serializes into `values` what 0.16 would write to `common.pt` amid the planning."""

    def keep(self: Any, state: Any, folder: Any) -> None:
        if torch.distributed.get_rank() == 0:
            file = io.BytesIO()
            torch.save(state, file)
            values.append(file.getvalue())

    strategy = getattr(common, "TorchCommonSaveStrategy", None)
    if strategy is None:
        yield
        return
    with mock.patch.object(strategy, "save_common", keep):
        yield


def _core_writer() -> dict[str, str]:
    # Later versions of core would use a package of its own, if asked for nothing.
    takes = inspect.signature(dist_checkpointing.save).parameters
    return {"async_strategy": "mcore"} if "async_strategy" in takes else {}


def reason(error: BaseException) -> str:
    """The start of what happened; core's own exceptions hold those of the ranks."""
    failures = getattr(error, "failures", None)
    if failures:
        rank, (error, _) = next(iter(failures.items()))
        return f"rank {rank}: {reason(error)}"
    if failures is not None:
        return "another rank failed; see its message"
    lines = str(error).strip().splitlines()
    return textwrap.shorten(lines[0], 300) if lines else repr(error)
