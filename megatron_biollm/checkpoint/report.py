"""What there is to say about a checkpoint on the disk, good or not, without loading it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.formats import RESHARDABLE, Format, describe_layout
from megatron_biollm.checkpoint.retention import gigabytes
from megatron_biollm.config import UserError


@dataclass(frozen=True)
class CheckpointReport:
    """One checkpoint.

    Attributes:
        folder: where it lies.
        step: of the training run; None where it cannot be read, like what follows.
        committed: the save had ended.
        whole: every file is as it was written, and names nothing that could run code.
        bytes: of all files.
        weights_only: no optimizer state (imported from elsewhere).
        format: `reshardable` loads into any layout, `fast` only into the one it was saved in.
        layout: degrees that it was saved with.
        versions: of the software that wrote it.
        problems: what is wrong, one line each.
    """

    folder: str
    step: Optional[int]
    committed: bool
    whole: bool
    bytes: int
    weights_only: Optional[bool]
    format: Optional[str]
    layout: Optional[dict[str, Any]]
    versions: Optional[dict[str, str]]
    problems: list[str]

    @property
    def good(self) -> bool:
        """A run would load it."""
        return self.committed and self.whole

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "good": self.good}

    def summary(self) -> str:
        """One line."""
        verdict = "good" if self.good else "DAMAGED" if self.committed else "NOT COMMITTED"
        parts = [f"{self.folder}: {verdict}", gigabytes(self.bytes)]
        if self.step is not None:
            parts.insert(1, f"step {self.step}")
        if self.format is not None:
            parts.append(self.format)
        if self.layout is not None:
            parts.append(describe_layout(self.layout))
        if self.weights_only:
            parts.append("weights only")
        parts += [f"{name} {version}" for name, version in (self.versions or {}).items()]
        return ", ".join(parts)


def find_checkpoints(path: Path) -> list[Path]:
    """The checkpoints that `path` means, newest first: itself, those in it, or those of a run.

    Raises:
        UserError: no such folder, or no checkpoint there.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no folder; give a checkpoint, a folder of them, or a run_dir")
    if verify.is_checkpoint(path):
        return [path]
    for directory in (path, path / "checkpoints"):
        found = verify.step_folders(directory) + verify.unfinished_folders(directory)
        if found:
            return found
    raise UserError(
        f"{path} holds no checkpoint (a folder named step_XXXXXXXX); give one that does"
    )


def inspect_checkpoint(folder: Path) -> CheckpointReport:
    """Reads every file of a checkpoint and compares it with its digest."""
    problems = list(verify.find_problems(folder))
    state, layout = _read(folder / "state.json"), _read(folder / "layout.json")
    return CheckpointReport(
        folder=str(folder),
        step=state.get("step") if state else None,
        committed=(folder / verify.MARKER).is_file() and folder.suffix != verify.PARTIAL,
        whole=not problems,
        bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        weights_only=bool(state.get("weights_only", False)) if state else None,
        format=_format(state),
        layout=layout,
        versions=_read(folder / "versions.json"),
        problems=problems,
    )


def _read(path: Path) -> Optional[dict[str, Any]]:
    """A sidecar, or None where it is absent or damaged, which is among the problems already."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _format(state: Optional[dict[str, Any]]) -> Optional[str]:
    return Format(state.get("format", RESHARDABLE)).name if state else None
