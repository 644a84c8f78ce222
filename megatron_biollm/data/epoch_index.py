"""The order of one epoch of one corpus: what it depends on, and its three arrays.

Folders of one such index, which earlier versions wrote, are read here; `index_store` has those of
many.
"""

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from megatron_biollm.config import UserError

_FORMAT = 1
ARRAYS = ("document_index", "sample_index", "shuffle_index")


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

    @cached_property
    def name(self) -> str:
        """A digest of all of it."""
        text = json.dumps([_FORMAT, self.fields()], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return f"epoch{self.epoch:04d}-{digest[:24]}"

    def fields(self) -> dict[str, str | int]:
        """What `name` is a digest of."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

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


def load_index(cache: Path, key: EpochKey) -> EpochIndex | None:
    """Maps an index of a folder of its own into memory; None if there is none.

    Raises:
        UserError: its files are damaged.
    """
    folder = cache / key.name
    if not folder.is_dir():
        return None
    try:
        index = EpochIndex(
            *(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS)
        )
    except (OSError, ValueError) as error:
        raise damaged(folder, str(error)) from error
    samples, documents = len(index.shuffle), key.end - key.first
    if index.samples.shape != (samples + 1, 2) or len(index.documents) != documents:
        raise damaged(folder, "the lengths of its arrays do not fit together")
    return index


def damaged(folder: Path, reason: str) -> UserError:
    """What to say of a folder whose files do not make an index."""
    return UserError(
        f"the sample index {folder} cannot be read: {reason}; delete this folder and build it "
        "again with tools/build_index.py"
    )
