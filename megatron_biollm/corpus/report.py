"""What came in, what was kept, and why the rest was not."""

from __future__ import annotations

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

    documents: kept. duplicates: left out, their PMID was read before. without_text: records
    that hold neither title nor abstract, or an empty text. fault_count: broken places;
    `faults` shows the first of them. passed_over: why the file as a whole was not read.
    """

    path: str
    documents: int = 0
    duplicates: int = 0
    without_text: int = 0
    fault_count: int = 0
    faults: list[Fault] = field(default_factory=list)
    passed_over: str | None = None

    def fault(self, position: str, reason: str) -> None:
        """Counts a broken place and keeps it to be shown."""
        self.fault_count += 1
        if len(self.faults) < SHOWN_FAULTS:
            self.faults.append(Fault(position, reason))


@dataclass
class CorpusReport:
    """The files of a corpus in the order they were met."""

    files: list[FileReport] = field(default_factory=list)

    def start_file(self, path: str) -> FileReport:
        self.files.append(FileReport(path))
        return self.files[-1]

    def total(self, count: str) -> int:
        """Sum of one of the counts over all files."""
        return sum(getattr(file, count) for file in self.files)

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
            "documents": self.total("documents"),
            "duplicates": self.total("duplicates"),
            "without_text": self.total("without_text"),
            "faults": self.total("fault_count"),
        }
        return {"totals": totals, "files": [asdict(file) for file in self.files]}

    def to_text(self) -> str:
        """A table for people: one line per file, its faults below it, totals at the end."""
        lines = [f"{'documents':>9} {'duplicate':>9} {'no text':>8} {'faults':>7}  file"]
        for file in self.files:
            lines += _file_lines(file)
        lines.append(
            f"{self.total('documents')} documents from "
            f"{len(self.files) - len(self.passed_over)} files; {len(self.passed_over)} files "
            f"passed over, {self.total('duplicates')} duplicates, {self.total('without_text')} "
            f"records without text, {self.total('fault_count')} faults"
        )
        return "\n".join(lines)


def _file_lines(file: FileReport) -> list[str]:
    if file.passed_over:
        return [f"{'passed over':>36}  {file.path}: {file.passed_over}"]
    counts = f"{file.documents:>9} {file.duplicates:>9} {file.without_text:>8}"
    lines = [f"{counts} {file.fault_count:>7}  {file.path}"]
    lines += [f"{'':>36}    {fault.position}: {fault.reason}" for fault in file.faults]
    hidden = file.fault_count - len(file.faults)
    return lines + ([f"{'':>36}    and {hidden} more"] if hidden else [])
