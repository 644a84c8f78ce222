"""Arrays sorted out to many files on disk, so that each part can be sorted in memory by itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np


class Scratch:
    """Numbered files in a folder of their own that is gone when the work is done or broken off."""

    def __init__(self, folder: Path, parts: int):
        self.folder, self.parts = folder, parts

    def __enter__(self) -> Scratch:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.files = [self._path(part).open("wb") for part in range(self.parts)]
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files:
            file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, part: int, entries: np.ndarray) -> None:
        self.files[part].write(entries.tobytes())

    def take(self, part: int, dtype: np.dtype) -> np.ndarray:
        """All that was added to a part, in order."""
        self.files[part].flush()
        return np.fromfile(self._path(part), dtype)

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:05d}"
