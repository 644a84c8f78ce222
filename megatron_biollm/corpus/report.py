"""What came in, what was kept, and why the rest was not."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field

# A file of a million bad lines must not fill the memory; all are counted, these are shown.
SHOWN_FAULTS = 20


@dataclass(frozen=True)
class Fault:
    """One broken place: a line or a position in a file, and what is wrong there."""

    position: str
    reason: str


@dataclass
class FileReport:
    """Counts of one file.

    format: name of the format it was read as.
    documents: kept.
    dropped: records that are whole but not kept, by reason ("no_text", "duplicate_id").
    fault_count: broken places; `faults` shows the first of them.
    broken: the file breaks off: what follows the last fault could not be read at all.
    passed_over: why the file as a whole was not read.
    deleted: identifiers that this file withdraws from what earlier files gave.
    """

    path: str
    format: str | None = None
    documents: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    fault_count: int = 0
    faults: list[Fault] = field(default_factory=list)
    broken: bool = False
    passed_over: str | None = None
    deleted: list[str] = field(default_factory=list)

    def fault(self, position: str, reason: str) -> None:
        """Counts a broken place and keeps it to be shown."""
        self.fault_count += 1
        if len(self.faults) < SHOWN_FAULTS:
            self.faults.append(Fault(position, reason))

    def break_off(self, position: str, reason: str) -> None:
        """A fault behind which nothing of the file can be read."""
        self.fault(position, reason)
        self.broken = True

    def drop(self, reason: str, count: int = 1) -> None:
        """Counts records that are left out for one reason."""
        self.dropped[reason] += count

    @property
    def records(self) -> int:
        """Records met, kept or not."""
        return self.documents + self.dropped.total()

    def to_dict(self) -> dict:
        """Plain JSON values."""
        return {**asdict(self), "dropped": dict(self.dropped)}


@dataclass
class CorpusReport:
    """The files of a corpus in the order they were met."""

    files: list[FileReport] = field(default_factory=list)

    def start_file(self, path: str) -> FileReport:
        self.files.append(FileReport(path))
        return self.files[-1]

    @property
    def documents(self) -> int:
        return sum(file.documents for file in self.files)

    @property
    def dropped(self) -> Counter[str]:
        """Records left out, by reason, over all files."""
        return sum((file.dropped for file in self.files), Counter())

    @property
    def fault_count(self) -> int:
        return sum(file.fault_count for file in self.files)

    @property
    def passed_over(self) -> list[FileReport]:
        return [file for file in self.files if file.passed_over]

    @property
    def broken(self) -> list[FileReport]:
        return [file for file in self.files if file.fault_count]

    def to_dict(self) -> dict:
        """Totals and one entry per file, as plain JSON values."""
        totals = {
            "files": len(self.files),
            "passed_over": len(self.passed_over),
            "documents": self.documents,
            "dropped": dict(self.dropped),
            "faults": self.fault_count,
        }
        return {"totals": totals, "files": [file.to_dict() for file in self.files]}

    def to_text(self) -> str:
        """A table for people: one line per file, its drops and faults below, totals at the end."""
        lines = [f"{'documents':>9} {'dropped':>8} {'faults':>7}  file"]
        for file in self.files:
            lines += _file_lines(file)
        lines.append(
            f"{self.documents} documents from {len(self.files) - len(self.passed_over)} files; "
            f"{len(self.passed_over)} files passed over, {self.dropped.total()} records dropped"
            f"{_reasons(self.dropped)}, {self.fault_count} faults"
        )
        return "\n".join(lines)


def _file_lines(file: FileReport) -> list[str]:
    if file.passed_over:
        return [f"{'passed over':>26}  {file.path}: {file.passed_over}"]
    counts = f"{file.documents:>9} {file.dropped.total():>8} {file.fault_count:>7}"
    lines = [f"{counts}  {file.path}{_reasons(file.dropped)}"]
    lines += [f"{'':>26}    {fault.position}: {fault.reason}" for fault in file.faults]
    hidden = file.fault_count - len(file.faults)
    return lines + ([f"{'':>26}    and {hidden} more"] if hidden else [])


def _reasons(dropped: Counter[str]) -> str:
    if not dropped:
        return ""
    return f" ({', '.join(f'{count} {reason}' for reason, count in sorted(dropped.items()))})"
