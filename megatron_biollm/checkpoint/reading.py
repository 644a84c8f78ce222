"""Values of a checkpoint go from its files straight into the memory of this rank's tensors.

torch reads each tensor's archive into fresh memory and copies it from there, one after another.
Files that are still to be verified are read once for both: their bytes are digested where they
arrive.
"""

import contextlib
import math
import pickle
import struct
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Optional
from unittest import mock

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem

from megatron_biollm.checkpoint.digest import Entry
from megatron_biollm.checkpoint.payload import Payload, as_bytes, find_payload, read_exactly
from megatron_biollm.checkpoint.ranks import gather
from megatron_biollm.checkpoint.verify import (
    VALUES,
    BadCheckpoint,
    Place,
    Verification,
    read_digests,
)

THREADS = 4
OPTIMIZER = "optimizer."  # how core's keys of the optimizer's state begin


class Transfer:
    """Values at a place of a file that belong into a tensor of this rank.

    item: what is wanted of the checkpoint. path, start: file and first byte. target: the tensor,
    whose rows lie in the file as in its memory.
    """

    def __init__(self, item: ReadItem, path: Path, start: int, target: torch.Tensor) -> None:
        self.item, self.path, self.start, self.target = item, path, start, target
        self.staged: Optional[torch.Tensor] = None

    @property
    def place(self) -> Place:
        """Where the file's bytes go."""
        return Place(
            self.start,
            self.target.nbytes,
            lambda: as_bytes(self._values()),
            self._filled,
            only_here=self._is_only_here(),
        )

    def move(self) -> None:
        """Reads the values alone."""
        read_exactly(self.path, self.start, self._values())
        self._filled()

    def _is_only_here(self) -> bool:
        """Replicas of a rank want the same weights, each another part of the optimizer's state."""
        is_state = self.item.storage_index.fqn.startswith(OPTIMIZER)
        return is_state or torch.distributed.get_world_size() == 1

    def _values(self) -> torch.Tensor:
        """The tensor, or one for its values where no file can be read into it."""
        if _is_host_memory(self.target):
            return self.target
        self.staged = torch.empty_like(self.target, device="cpu")
        return self.staged

    def _filled(self) -> None:
        if self.staged is not None:
            self.target.copy_(self.staged)
            self.staged = None


@contextlib.contextmanager
def straight_into_tensors(
    unverified: Optional[Path] = None, ranks: Optional[torch.distributed.ProcessGroup] = None
) -> Iterator[None]:
    """Inside the `with`, torch's reader reads itself only what does not lie as it is wanted.

    That is: objects, values of another precision, and columns of a tensor.

    Args:
        unverified: folder of a committed checkpoint whose files of tensors nobody has compared
            with their digests; `ranks` do so together, as they read.
        ranks: all that load.

    Raises:
        BadCheckpoint: on all of them: such a file was changed.
    """
    read_by_torch = FileSystemReader.read_data
    to_verify = None if unverified is None else _own_files(unverified, ranks)

    def read_data(self: FileSystemReader, plan: LoadPlan, planner: LoadPlanner) -> Any:
        nonlocal to_verify
        files = {}
        # Core 0.19 reads the common values before, on every rank by itself.
        together = to_verify is not None and any(i.type == LoadItemType.TENSOR for i in plan.items)
        if together:
            files, to_verify = to_verify, None
        with _failing_together(ranks) if together else contextlib.nullcontext():
            rest = _read(self, plan, planner, files)
        return read_by_torch(self, replace(plan, items=rest), planner)

    with mock.patch.object(FileSystemReader, "read_data", read_data):
        yield
    assert to_verify is None


@contextlib.contextmanager
def _failing_together(ranks: torch.distributed.ProcessGroup) -> Iterator[None]:
    """What one rank meets inside is raised on all: core 0.19 lets each load alone.

    Raises:
        BadCheckpoint: on every rank, if any has met a file that was changed.
        ValueError: on the others, if one failed otherwise.
    """
    failure: Optional[Exception] = None
    try:
        yield
    except Exception as error:
        failure = error
    told = None if failure is None else (str(failure), isinstance(failure, BadCheckpoint))
    met = gather(told, ranks)
    for text in (text for text, is_bad in filter(None, met) if is_bad):
        raise BadCheckpoint(text) from failure
    if failure is not None:
        raise failure
    for rank, found in enumerate(met):
        if found is not None:
            raise ValueError(f"rank {rank}: {found[0]}")


def _own_files(folder: Path, ranks: torch.distributed.ProcessGroup) -> dict[Path, Entry]:
    """What this rank is to verify: the files that it would have written, as it wants most of them.

    Core names them `__RANK_NUMBER.distcp`.
    """
    return {
        folder / name: recorded
        for name, recorded in read_digests(folder).items()
        if name.endswith(VALUES) and int(name.split("_")[2]) % ranks.size() == ranks.rank()
    }


def _read(
    reader: FileSystemReader,
    plan: LoadPlan,
    planner: LoadPlanner,
    unverified: dict[Path, Entry],
) -> list[ReadItem]:
    """Reads all that can be read straight, and files to verify from end to end; gives the rest."""
    with ThreadPoolExecutor(THREADS) as threads:
        found = threads.map(partial(_payload, reader), plan.items)
        pairs = [(item, payload) for item, payload in zip(plan.items, found, strict=True)]
        transfers = [_transfer(item, payload, planner) for item, payload in pairs]
        straight = [one for one in transfers if one is not None]
        passes, single = _passes(straight, unverified)
        acts = [file.finish for file in passes] + [one.move for one in single]
        for act in [threads.submit(act) for act in acts]:
            act.result()
    for one in straight:
        planner.commit_tensor(one.item, one.target)
    return [item for item, one in zip(plan.items, transfers, strict=True) if one is None]


def _passes(
    transfers: list[Transfer], unverified: dict[Path, Entry]
) -> tuple[list[Verification], list[Transfer]]:
    """Readings of whole files that serve as many of the transfers as they can; and the others."""
    places: dict[Path, list[Place]] = {path: [] for path in unverified}
    single = []
    for one in sorted(transfers, key=lambda one: one.start):
        place, before = one.place, places.get(one.path)
        # What two tensors want is read again for the second.
        if before is None or not place.size or (before and place.start < before[-1].stop):
            single.append(one)
        else:
            before.append(place)
    files = unverified.items()
    return [Verification(path, recorded, places[path]) for path, recorded in files], single


def _payload(reader: FileSystemReader, item: ReadItem) -> Optional[Payload]:
    """Where the values of the stored tensor lie; None where torch must find out."""
    entry = reader.storage_data[item.storage_index]
    if item.type == LoadItemType.BYTE_IO or getattr(entry, "transform_descriptors", None):
        return None
    try:
        return find_payload(Path(reader.path) / entry.relative_path, entry.offset, entry.length)
    # Another form of archive than today's, or a file that turns out to be damaged.
    except (KeyError, ValueError, struct.error, zipfile.BadZipFile, pickle.UnpicklingError):
        return None


def _transfer(
    item: ReadItem, payload: Optional[Payload], planner: LoadPlanner
) -> Optional[Transfer]:
    """None where the values do not lie in the file as the tensor wants them."""
    if payload is None or not _are_rows(item, payload.shape):
        return None
    target = planner.resolve_tensor(item).detach()
    plain = type(target) is torch.Tensor and target.is_contiguous() and _can_be_filled(target)
    if not plain or target.dtype != payload.dtype or target.shape != item.lengths:
        return None
    before = item.storage_offsets[0] * math.prod(payload.shape[1:]) if payload.shape else 0
    return Transfer(item, payload.path, payload.offset + before * payload.dtype.itemsize, target)


def _are_rows(item: ReadItem, shape: tuple[int, ...]) -> bool:
    """Whether whole rows of the stored tensor are wanted, which lie together."""
    return not any(item.storage_offsets[1:]) and tuple(item.lengths[1:]) == shape[1:]


def _can_be_filled(tensor: torch.Tensor) -> bool:
    return _is_host_memory(tensor) or tensor.is_cuda


def _is_host_memory(tensor: torch.Tensor) -> bool:
    return tensor.is_cpu
