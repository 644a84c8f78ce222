"""Whether a checkpoint is whole: commit marker, completeness, digests.

A checkpoint is written to `step_XXXXXXXX.partial`; when every file is there and digested, the
marker is written and the folder renamed. So a folder without the marker, or with another name,
was never committed.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from megatron_biollm.checkpoint.safe_pickle import check_checkpoint_pickles
from megatron_biollm.config import UserError

DIGESTS, MARKER, PARTIAL = "digests.json", "COMMITTED", ".partial"
STEP_FOLDER = re.compile(r"step_(\d{8,})")


class BadCheckpoint(UserError):
    """The checkpoint is damaged, incomplete or was never committed."""


def step_folder(directory: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies once committed."""
    return directory / f"step_{step:08d}"


def committed_steps(directory: Path) -> list[int]:
    """Steps whose folders carry the final name and the marker, oldest first."""
    if not directory.is_dir():
        return []
    found = [(STEP_FOLDER.fullmatch(p.name), p) for p in directory.iterdir()]
    return sorted(int(match[1]) for match, p in found if match and (p / MARKER).is_file())


def digest_files(folder: Path, names: Iterable[str]) -> dict[str, dict[str, object]]:
    """Size and SHA-256 of each named file of `folder`."""
    return {name: _digest(folder / name) for name in names}


def files_to_digest(folder: Path) -> list[str]:
    """Every file of a checkpoint but the digests themselves and the marker, sorted."""
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(name for name in names if name not in (DIGESTS, MARKER))


def read_digests(folder: Path) -> dict[str, dict[str, object]]:
    """The recorded sizes and digests of a committed checkpoint.

    Raises:
        BadCheckpoint: no such folder, not committed, or the marker does not fit the digests.
    """
    if not folder.is_dir():
        raise BadCheckpoint(f"{folder} does not exist; give the path of a step_XXXXXXXX folder")
    if not (folder / MARKER).is_file() or not (folder / DIGESTS).is_file():
        raise BadCheckpoint(
            f"{folder} was never committed (no {MARKER} with {DIGESTS}): the save was cut off; "
            f"use an older checkpoint and delete this one"
        )
    text = (folder / DIGESTS).read_bytes()
    if hashlib.sha256(text).hexdigest() != (folder / MARKER).read_text().strip():
        raise BadCheckpoint(f"{folder / DIGESTS} does not match {MARKER}: it was changed")
    return json.loads(text)


def verify_checkpoint(folder: Path, part: int = 0, parts: int = 1) -> list[str]:
    """Compares the files of a committed checkpoint with their digests.

    Args:
        folder: of one step.
        part: this reader's share of the files, when several share the reading.
        parts: how many share it.

    Returns:
        The names of the files checked.

    Raises:
        BadCheckpoint: naming the first missing, resized or changed file.
        UserError: a pickle inside names something a checkpoint does not need.
    """
    recorded = read_digests(folder)
    mine = sorted(recorded)[part::parts]
    for name in mine:
        _compare(folder / name, recorded[name])
    if part == 0:
        check_checkpoint_pickles(folder)
    return mine


def commit(partial: Path, final: Path, digests: dict[str, dict[str, object]]) -> None:
    """Writes digests and marker, then gives the folder its final name: the last act of a save."""
    text = json.dumps(digests, indent=1, sort_keys=True).encode()
    (partial / DIGESTS).write_bytes(text)
    (partial / MARKER).write_text(hashlib.sha256(text).hexdigest() + "\n")
    partial.rename(final)


def _compare(path: Path, recorded: dict[str, object]) -> None:
    if not path.is_file():
        raise BadCheckpoint(f"{path} is missing; use an older checkpoint")
    size = path.stat().st_size
    if size != recorded["bytes"]:
        raise BadCheckpoint(
            f"{path} has {size} bytes, {recorded['bytes']} were written; use an older checkpoint"
        )
    if _digest(path)["sha256"] != recorded["sha256"]:
        raise BadCheckpoint(
            f"{path} was changed after it was written (SHA-256 differs); use an older checkpoint"
        )


def _digest(path: Path) -> dict[str, object]:
    with open(path, "rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }
