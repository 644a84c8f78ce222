"""What the reference model makes of each answer, computed once and kept in a file.

A file of JSON lines. The first says of which checkpoint, tokenizer and template the numbers are;
each of the others holds the hash of a sample (ids and answer masks of its two rows) and log p of
both rows. Lines are appended as they are computed, so what was cut off goes on where it was.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from megatron_biollm.atomic import disk_errors
from megatron_biollm.config import UserError
from megatron_biollm.finetune.encoded_preferences import EncodedPreferences
from megatron_biollm.rows import RowFile, read_rows

_REMEDY = (
    "delete it, or give another finetune.reference_path, and the numbers are computed from this "
    "run's checkpoint"
)


@dataclass(frozen=True)
class ReferenceKey:
    """SHA-256 of what the numbers depend on besides the samples themselves.

    checkpoint: of its digests, as its marker has it. tokenizer, template: as for the ids.
    """

    checkpoint: str
    tokenizer: str
    template: str


@dataclass(frozen=True)
class ReferenceFile:
    """path: of the file. key: what its numbers must be of. data: samples that they are of."""

    path: Path
    key: ReferenceKey
    data: EncodedPreferences

    def read(self) -> np.ndarray:
        """log p of both rows of each sample, float64 [samples, 2]; NaN where it is not known.

        Raises:
            UserError: the file is of another checkpoint, tokenizer or template, or is damaged.
        """
        known: dict[str, list[float]] = {}
        if self.path.is_file():
            header, *rows = read_rows(self.path) or [{}]
            self._check(header)
            with self._damaged():
                known = {row["sample"]: [float(x) for x in row["logps"]] for row in rows}
        missing = [float("nan")] * 2
        names = [_name(value) for value in self.data.sample_hash]
        with self._damaged():
            return np.array([known.get(name, missing) for name in names], np.float64).reshape(-1, 2)

    def append(self, samples: Iterable[int], logps: np.ndarray) -> None:
        """Adds the numbers of some samples, [samples, 2].

        Raises:
            UserError: it cannot be written; what is there stays.
        """
        with disk_errors(self.path, "free space, or set finetune.reference_path", "the rest stays"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = RowFile(self.path)
            with contextlib.closing(file):
                rows = [] if file.size else [{"reference": asdict(self.key)}]
                for sample, values in zip(samples, logps.tolist(), strict=True):
                    name = _name(self.data.sample_hash[sample])
                    rows.append({"sample": name, "logps": values})
                for row in rows:
                    problem = file.append(row)
                    if problem is not None:
                        raise problem

    def _check(self, header: dict) -> None:
        stored = header.get("reference")
        if not isinstance(stored, dict):
            raise UserError(f"{self.path} holds no reference log-probabilities; {_REMEDY}")
        different = [name for name, value in asdict(self.key).items() if stored.get(name) != value]
        if different:
            raise UserError(
                f"the reference log-probabilities {self.path} are of another "
                f"{' and another '.join(different)} than this run's, and must be of the same; "
                f"{_REMEDY}"
            )

    @contextlib.contextmanager
    def _damaged(self):
        try:
            yield
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path} is damaged ({error!r}); {_REMEDY}") from error


def reference_path(data: EncodedPreferences, key: ReferenceKey, folder: str | None) -> Path:
    """Where the numbers of a file lie: beside its ids, or under its name in `folder`."""
    if folder is not None:
        return Path(folder) / f"{Path(data.prefix).name}.reference.jsonl"
    return data.folder / f"reference_{key.checkpoint[:16]}.jsonl"


def _name(sample_hash: np.uint64) -> str:
    return f"{int(sample_hash):016x}"
