"""The order of one epoch of one corpus, as three arrays in a folder of their own.

A folder's name is a digest of everything the arrays depend on, so an index is never stale, and it
appears complete or not at all. The arrays are loaded without pickle.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from megatron_biollm.atomic import disk_errors, new_folder
from megatron_biollm.config import UserError

_FORMAT = 1
_ARRAYS = ("document_index", "sample_index", "shuffle_index")


@dataclass(frozen=True)
class EpochKey:
    """What an epoch's order depends on, and nothing else.

    fingerprint: of the corpus, from `layout.fingerprint`. first, end: the range of its sequences
    that the split takes. The path is no part of it, so a corpus may be copied with its index.
    """

    fingerprint: str
    first: int
    end: int
    seq_length: int
    seed: int
    epoch: int

    def folder_name(self) -> str:
        text = json.dumps([_FORMAT, asdict(self)], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return f"epoch{self.epoch:04d}-{digest[:24]}"

    def random_seed(self) -> int:
        """Of the epoch's shuffles; the first epoch takes the run's seed, as Megatron-LM does."""
        if self.epoch == 0:
            return self.seed
        return int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])


@dataclass(frozen=True)
class EpochIndex:
    """documents: int32 [sequences of the split], shuffled. samples: [samples + 1, 2], where each
    sample begins: position in `documents`, offset in tokens. shuffle: [samples], their order.
    """

    documents: np.ndarray
    samples: np.ndarray
    shuffle: np.ndarray


def save_index(cache: Path, key: EpochKey, index: EpochIndex) -> Path:
    """Writes the index below `cache` and returns its folder; safe when several processes do.

    Raises:
        UserError: the disk is full or the folder must not be written.
    """
    folder = cache / key.folder_name()
    with (
        disk_errors(folder, "free space or set data.data_cache_path to another folder"),
        new_folder(folder) as temporary,
    ):
        arrays = (index.documents, index.samples, index.shuffle)
        for name, values in zip(_ARRAYS, arrays, strict=True):
            np.save(temporary / f"{name}.npy", values, allow_pickle=False)
        description = json.dumps(asdict(key), indent=2) + "\n"
        (temporary / "description.json").write_text(description, encoding="utf-8")
    return folder


def load_index(cache: Path, key: EpochKey) -> EpochIndex | None:
    """Maps the index into memory; None if it was not built.

    Raises:
        UserError: its files are damaged.
    """
    folder = cache / key.folder_name()
    if not folder.is_dir():
        return None
    try:
        index = EpochIndex(
            *(
                np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in _ARRAYS
            )
        )
    except (OSError, ValueError) as error:
        raise _damaged(folder, str(error)) from error
    samples, documents = len(index.shuffle), key.end - key.first
    if index.samples.shape != (samples + 1, 2) or len(index.documents) != documents:
        raise _damaged(folder, "the lengths of its arrays do not fit together")
    return index


def _damaged(folder: Path, reason: str) -> UserError:
    return UserError(
        f"the sample index {folder} cannot be read: {reason}; delete this folder and build it "
        "again with tools/build_index.py"
    )
