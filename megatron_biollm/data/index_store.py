"""The sample index of many corpora in few files.

A folder `epoch0000-DIGEST` holds the index of one epoch of one corpus or of a thousand: their
arrays one after another in three files, and contents.json, which says what they are. The digest is
that of the contents, so an index is never stale, and the folder appears complete or not at all.
Folders are found by what they hold: a longer run, or one with another corpus in its blend, takes
what is there and adds the rest. A folder for each corpus, as earlier versions wrote them, is read
as well. The arrays are loaded without pickle.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Optional

import numpy as np

from megatron_biollm.atomic import disk_errors, new_folder
from megatron_biollm.config import UserError
from megatron_biollm.data.epoch_index import ARRAYS, EpochIndex, EpochKey, damaged, load_index

_CONTENTS = "contents.json"
_FORMAT = 2


class IndexStore:
    """The index of any number of corpora and epochs below one folder.

    Safe when several processes write at once: of those that write the same, the first one wins.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._packs: dict[str, Pack] = {}
        self._places: dict[str, str] = {}
        self._seen: set[str] = set()

    def find(self, key: EpochKey, older: Optional[Path] = None) -> Optional[EpochIndex]:
        """The index of an epoch, mapped into memory; None if it was not built.

        older: where earlier versions kept it, if not below the same folder.

        Raises:
            UserError: its files are damaged.
        """
        name = key.name
        if name not in self._places:
            if (index := load_index(older or self.folder, key)) is not None:
                return index
            self._look()
        return self._packs[self._places[name]].index(name) if name in self._places else None

    def place(self, key: EpochKey, older: Optional[Path] = None) -> Path:
        """The folder of an index that is there; older: as in `find`."""
        name = key.name
        return (
            self.folder / self._places[name]
            if name in self._places
            else ((older or self.folder) / name)
        )

    def save(self, sizes: Mapping[EpochKey, int], indices: Iterable[EpochIndex]) -> Path:
        """Writes the indices of one epoch into one folder and returns it.

        sizes: samples of each, in the order of `indices`, which are taken one at a time.

        Raises:
            UserError: the disk is full or the folder must not be written.
        """
        entries = [
            {**key.fields(), "samples": samples, "name": key.name} for key, samples in sizes.items()
        ]
        text = json.dumps({"format": _FORMAT, "indices": entries}) + "\n"
        epoch = next(iter(sizes)).epoch
        folder = self.folder / f"epoch{epoch:04d}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
        with (
            disk_errors(folder, "free space or set data.data_cache_path to another folder"),
            new_folder(folder) as temporary,
        ):
            _write(temporary, entries, indices)
            (temporary / _CONTENTS).write_text(text, encoding="utf-8")
        self._look()
        return folder

    def _look(self) -> None:
        """Takes note of folders that have appeared."""
        if not self.folder.is_dir():
            return
        for name in {path.name for path in self.folder.glob("epoch*")} - self._seen:
            self._seen.add(name)
            if (self.folder / name / _CONTENTS).is_file():
                self._packs[name] = Pack(self.folder / name)
                self._places |= dict.fromkeys(self._packs[name].bounds, name)

    def __getstate__(self) -> dict[str, Any]:
        """Without open files: a worker process opens its own."""
        return {**self.__dict__, "_packs": {}, "_places": {}, "_seen": set()}


class Pack:
    """One folder of a store. bounds: of each index, where it begins and ends in each array."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            contents = json.loads((folder / _CONTENTS).read_text(encoding="utf-8"))
            self.bounds = _bounds(contents["indices"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise damaged(folder, f"{_CONTENTS}: {error}") from error
        self._arrays: Optional[list[np.ndarray]] = None

    def index(self, name: str) -> EpochIndex:
        """Raises UserError where an array is missing or too short."""
        if self._arrays is None:
            self._arrays = self._map()
        bounds = zip(self._arrays, self.bounds[name], strict=True)
        return EpochIndex(*(array[first:end] for array, (first, end) in bounds))

    def _map(self) -> list[np.ndarray]:
        try:
            paths = [self.folder / f"{name}.npy" for name in ARRAYS]
            arrays = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
        except (OSError, ValueError) as error:
            raise damaged(self.folder, str(error)) from error
        ends = list(self.bounds.values())[-1]
        if [len(array) for array in arrays] != [end for _, end in ends]:
            raise damaged(self.folder, "the lengths of its arrays do not fit its contents")
        return [array.view(np.ndarray) for array in arrays]


def _bounds(entries: list[dict[str, Any]]) -> dict[str, list[tuple[int, int]]]:
    """By name: first and end in each of the three arrays."""
    found, firsts = {}, [0, 0, 0]
    for entry in entries:
        samples = entry["samples"]
        ends = np.add(firsts, (entry["end"] - entry["first"], samples + 1, samples)).tolist()
        found[entry["name"]] = list(zip(firsts, ends, strict=True))
        firsts = ends
    return found


def _write(folder: Path, entries: list[dict[str, Any]], indices: Iterable[EpochIndex]) -> None:
    totals = [end for _, end in list(_bounds(entries).values())[-1]]
    with contextlib.ExitStack() as stack:
        files: list[BinaryIO] = []
        for entry, index in zip(entries, indices, strict=True):
            arrays = (index.documents, index.samples, index.shuffle)
            if not files:
                files = [stack.enter_context(f) for f in _begin(folder, arrays, totals)]
            if len(index.shuffle) != entry["samples"]:
                raise UserError(
                    f"an index of {len(index.shuffle)} samples came where {entry['samples']} were "
                    "announced; the .idx was changed meanwhile: build the index again"
                )
            for file, array in zip(files, arrays, strict=True):
                file.write(np.ascontiguousarray(array).data)


def _begin(folder: Path, arrays: Iterable[np.ndarray], totals: list[int]) -> Iterator[BinaryIO]:
    """Files of NumPy's format, as far as their headers."""
    for name, array, total in zip(ARRAYS, arrays, totals, strict=True):
        file = (folder / f"{name}.npy").open("wb")
        shape = (total, *array.shape[1:])
        described = {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, described)
        yield file
