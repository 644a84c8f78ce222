"""Conversations from other forms, written as JSON lines of messages."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Optional

from megatron_biollm.atomic import disk_errors, whole_file
from megatron_biollm.config import UserError
from megatron_biollm.finetune.import_forms import (
    read_alpaca,
    read_messages,
    read_qa,
    read_sharegpt,
)
from megatron_biollm.finetune.import_medquad import read_medquad
from megatron_biollm.finetune.import_notes import read_aci_bench, read_mts_dialog
from megatron_biollm.finetune.imported import Dropped, Imported
from megatron_biollm.log import Progress
from megatron_biollm.tokenizer.messages import ConversationError, check_conversation

Reader = Callable[[Path], Iterator[Imported | Dropped]]
FORMATS = ("messages", "qa", "alpaca", "sharegpt", "medquad", "mts-dialog", "aci-bench")


@dataclass(frozen=True)
class ImportOptions:
    """What is read and how it is written.

    format: one of FORMATS. inputs: files or folders, in this order. output: JSON lines.
    system: message put before conversations that have none. held_out: share of groups (one
    document, or one question) that goes to a second file, `OUTPUT_heldout.jsonl`; which ones
    depends on their text alone. question, answer: columns or fields of the format "qa".
    unique: leave out conversations that came before, word for word.

    Raises:
        UserError: an unknown format, a share outside [0, 1), or an output that is an input.
    """

    format: str
    inputs: Sequence[Path]
    output: Path
    system: Optional[str] = None
    held_out: float = 0.0
    question: str = "question"
    answer: str = "answer"
    unique: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(f"format {self.format!r} is unknown; give one of {', '.join(FORMATS)}")
        if not 0 <= self.held_out < 1:
            raise UserError(f"--held-out {self.held_out} must be at least 0 and below 1")
        if self.system is not None and not self.system.strip():
            raise UserError("--system is empty; give the message, or leave the option out")
        written = {path.resolve() for path in (self.output, self.held_out_output)}
        for path in self.inputs:
            if path.resolve() in written:
                raise UserError(f"{path} is input and output at once; give another --output")

    @property
    def held_out_output(self) -> Path:
        return self.output.with_name(f"{self.output.stem}_heldout{self.output.suffix}")

    def reader(self) -> Reader:
        readers: dict[str, Reader] = {
            "messages": read_messages,
            "qa": partial(read_qa, question=self.question, answer=self.answer),
            "alpaca": read_alpaca,
            "sharegpt": read_sharegpt,
            "medquad": read_medquad,
            "mts-dialog": read_mts_dialog,
            "aci-bench": read_aci_bench,
        }
        return readers[self.format]


@dataclass
class ImportReport:
    """What became of the records.

    read: records. kept: conversations in the output. held_out: those in the second file.
    dropped: by reason, how many. first: by reason, the place of the first one.
    """

    output: str
    held_out_output: Optional[str]
    read: int = 0
    kept: int = 0
    held_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def drop(self, dropped: Dropped) -> None:
        self.dropped[dropped.reason] = self.dropped.get(dropped.reason, 0) + 1
        self.first.setdefault(dropped.reason, dropped.where)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def import_conversations(options: ImportOptions) -> ImportReport:
    """Reads the inputs and writes the output; both files appear complete or not at all.

    Raises:
        UserError: an input that is absent or not of this format, no conversation in all of them,
            or a full disk.
    """
    aside = options.held_out_output if options.held_out else None
    report = ImportReport(str(options.output), str(aside) if aside else None)
    with (
        disk_errors(options.output, "free space and start again"),
        whole_file(options.output) as kept,
        whole_file(aside) if aside else contextlib.nullcontext() as held_out,
        Progress(None, options.format, "records") as progress,
    ):
        for item in _checked(options):
            report.read += 1
            progress.update()
            _write(item, options, report, kept, held_out)
        _check(report, options)
    return report


def _checked(options: ImportOptions) -> Iterator[Imported | Dropped]:
    read, seen = options.reader(), set[bytes]()
    for path in options.inputs:
        for item in read(path):
            yield _judged(item, options, seen) if isinstance(item, Imported) else item


def _judged(item: Imported, options: ImportOptions, seen: set[bytes]) -> Imported | Dropped:
    try:
        check_conversation(item.messages)
    except ConversationError as error:
        return Dropped(item.where, error.reason)
    if not options.unique:
        return item
    digest = hashlib.sha256(json.dumps(item.messages).encode()).digest()[:16]
    if digest in seen:
        return Dropped(item.where, "the same as an earlier one")
    seen.add(digest)
    return item


def _write(
    item: Imported | Dropped,
    options: ImportOptions,
    report: ImportReport,
    kept: BinaryIO,
    held_out: Optional[BinaryIO],
) -> None:
    if isinstance(item, Dropped):
        report.drop(item)
        return
    if held_out is not None and _share(item) < options.held_out:
        report.held_out += 1
        file = held_out
    else:
        report.kept += 1
        file = kept
    line = json.dumps(_row(item, options.system), ensure_ascii=False)
    # Half a character in an id or in what the source says; messages are checked.
    file.write(line.encode(errors="replace") + b"\n")


def _row(item: Imported, system: Optional[str]) -> dict[str, Any]:
    messages = [{"role": m["role"], "content": m["content"]} for m in item.messages]
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    row = {"messages": messages, "id": item.id or Path(item.where).name}
    return row | ({"meta": item.meta} if item.meta else {})


def _share(item: Imported) -> float:
    """A number in [0, 1) that depends on what belongs together alone."""
    questions = (m["content"] for m in item.messages if m["role"] == "user")
    group = item.group or " ".join(next(questions, "").lower().split())
    digest = hashlib.sha256(group.encode(errors="replace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _check(report: ImportReport, options: ImportOptions) -> None:
    if report.kept:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in report.dropped.items())
    raise UserError(
        f"none of {report.read} records of {', '.join(map(str, options.inputs))} gave a "
        f"conversation ({reasons or 'there are none'}); give other files or another --format"
    )
