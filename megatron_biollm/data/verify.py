"""Whether an indexed corpus is whole: its structure, its digests, its ids."""

from dataclasses import asdict, dataclass, field
from typing import Any, Optional

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.data.layout import REMEDY, Layout, check_index, read_layout
from megatron_biollm.data.sidecar import file_digests, max_token_id, read_sidecar, sidecar_path


@dataclass
class VerifyReport:
    """What was found in one corpus. problems: everything that is wrong; notes: worth knowing."""

    prefix: str
    dtype: str = ""
    documents: int = 0
    empty_documents: int = 0
    sequences: int = 0
    tokens: int = 0
    max_token_id: int = -1
    tokenizer: Optional[str] = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "fine": self.fine}


def verify_prefix(prefix: str, vocab_size: Optional[int] = None) -> VerifyReport:
    """Reads both files from end to end and compares them with the sidecar, if there is one.

    vocab_size: every id must be below it; taken from the sidecar's tokenizer if None.
    """
    report = VerifyReport(str(prefix))
    try:
        layout = read_layout(prefix)
        _describe(layout, report)
        check_index(layout)
        sidecar = read_sidecar(prefix)
    except UserError as error:
        report.problems.append(str(error))
        return report
    report.max_token_id = max_token_id(layout)
    if sidecar is None:
        report.notes.append(f"{sidecar_path(prefix)} is missing: no digests to compare with")
    else:
        _compare_sidecar(prefix, sidecar, report)
        vocab_size = vocab_size or (sidecar.get("tokenizer") or {}).get("vocab_size")
    _check_ids(report, vocab_size)
    return report


def _describe(layout: Layout, report: VerifyReport) -> None:
    report.dtype = layout.dtype.name
    report.documents, report.sequences = layout.documents, layout.sequences
    report.tokens = layout.tokens
    report.empty_documents = int((np.diff(layout.document_bounds()) == 0).sum())
    if not layout.tokens:
        report.problems.append(f"{report.prefix} holds no token at all: {REMEDY}")
    if report.empty_documents:
        report.notes.append(f"{report.empty_documents} documents are empty; training ignores them")


def _compare_sidecar(prefix: str, sidecar: dict[str, Any], report: VerifyReport) -> None:
    report.tokenizer = (sidecar.get("tokenizer") or {}).get("sha256")
    for name in ("documents", "tokens", "max_token_id"):
        if name in sidecar and sidecar[name] != getattr(report, name):
            report.problems.append(
                f"{sidecar_path(prefix)} says {name} {sidecar[name]}, but the files have "
                f"{getattr(report, name)}: {REMEDY}"
            )
    for suffix, digest in file_digests(prefix).items():
        expected = sidecar.get("sha256", {}).get(suffix)
        if digest != expected:
            report.problems.append(
                f"{prefix}.{suffix} has the sha256 {digest}, but the sidecar recorded {expected}; "
                f"the file was changed after it was written: {REMEDY}"
            )


def _check_ids(report: VerifyReport, vocab_size: Optional[int]) -> None:
    if vocab_size is None:
        report.notes.append("no vocabulary size is known, so the ids were not checked against it")
    elif report.max_token_id >= vocab_size:
        report.problems.append(
            f"{report.prefix} holds the token id {report.max_token_id}, but the vocabulary has "
            f"{vocab_size} entries (ids from 0); encode it again with the right tokenizer"
        )
