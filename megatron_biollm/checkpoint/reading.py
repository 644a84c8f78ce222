"""Values of a checkpoint go from its files straight into the memory of this rank's tensors.

torch reads each tensor's archive into fresh memory and copies it from there, one after another.
"""

import contextlib
import math
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Optional
from unittest import mock

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem

from megatron_biollm.checkpoint.payload import Payload, find_payload, read_exactly

THREADS = 4


class Transfer(NamedTuple):
    """Values at a place of a file that belong into a tensor of this rank."""

    item: ReadItem
    path: Path
    offset: int
    target: torch.Tensor


@contextlib.contextmanager
def straight_into_tensors() -> Iterator[None]:
    """Inside the `with`, torch's reader reads itself only what does not lie as it is wanted.

    That is: objects, values of another precision, columns of a tensor, and what goes to a GPU.
    """
    read_by_torch = FileSystemReader.read_data

    def read_data(self: FileSystemReader, plan: LoadPlan, planner: LoadPlanner) -> Any:
        rest = _read(self, plan, planner)
        return read_by_torch(self, replace(plan, items=rest), planner)

    with mock.patch.object(FileSystemReader, "read_data", read_data):
        yield


def _read(reader: FileSystemReader, plan: LoadPlan, planner: LoadPlanner) -> list[ReadItem]:
    """Reads all that can be read straight; gives the rest."""
    with ThreadPoolExecutor(THREADS) as threads:
        found = list(threads.map(partial(_payload, reader), plan.items))
        transfers = [
            _transfer(item, payload, planner)
            for item, payload in zip(plan.items, found, strict=True)
        ]
        straight = [one for one in transfers if one is not None]
        for one, _ in zip(straight, threads.map(_move, straight), strict=True):
            planner.commit_tensor(one.item, one.target)
    pairs = zip(plan.items, transfers, strict=True)
    return [item for item, one in pairs if one is None]


def _payload(reader: FileSystemReader, item: ReadItem) -> Optional[Payload]:
    """Where the values of the stored tensor lie; None where torch must find out."""
    entry = reader.storage_data[item.storage_index]
    if item.type == LoadItemType.BYTE_IO or getattr(entry, "transform_descriptors", None):
        return None
    try:
        return find_payload(Path(reader.path) / entry.relative_path, entry.offset, entry.length)
    except (KeyError, zipfile.BadZipFile):  # another form of archive than today's
        return None


def _transfer(
    item: ReadItem, payload: Optional[Payload], planner: LoadPlanner
) -> Optional[Transfer]:
    """None where the values do not lie in the file as the tensor wants them."""
    if payload is None or not _are_rows(item, payload.shape):
        return None
    target = planner.resolve_tensor(item).detach()
    plain = type(target) is torch.Tensor and target.is_cpu and target.is_contiguous()
    if not plain or target.dtype != payload.dtype or target.shape != item.lengths:
        return None
    before = item.storage_offsets[0] * math.prod(payload.shape[1:]) if payload.shape else 0
    offset = payload.offset + before * payload.dtype.itemsize
    return Transfer(item, payload.path, offset, target)


def _are_rows(item: ReadItem, shape: tuple[int, ...]) -> bool:
    """Whether whole rows of the stored tensor are wanted, which lie together."""
    return not any(item.storage_offsets[1:]) and tuple(item.lengths[1:]) == shape[1:]


def _move(transfer: Transfer) -> None:
    read_exactly(transfer.path, transfer.offset, transfer.target)
