"""A base tokenizer and texts to an extended tokenizer and a report on what the extension does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.extend_files import extend_tokenizer, require_new_folder
from megatron_biollm.tokenizer.extension_report import ExtensionReport, HeldOut
from megatron_biollm.tokenizer.learn_pieces import ChunkCounter, PieceRules, learn_pieces
from megatron_biollm.tokenizer.manifest import MANIFEST_FILE, TokenizerManifest
from megatron_biollm.tokenizer.mergeable import open_vocabulary


def learn_extension(
    base: str | Path,
    documents: Iterable[tuple[str, str]],
    output: str | Path,
    count: int = 2000,
    rules: PieceRules | None = None,
    held_out: float = 0.05,
    compare: Iterable[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Learns new pieces from texts and writes the extended tokenizer.

    Args:
        base: .model file or folder of the base tokenizer.
        documents: (source, text), to learn from and, a share of them, to measure on.
        output: folder to make; it appears only when complete.
        count: pieces to add, exactly.
        rules: what a piece may be.
        held_out: share of the documents that is measured on and not learnt from.
        compare: (source, text), on which all forms of the tokenizer are compared besides.

    Returns:
        The report: `ExtensionReport.to_dict` with "manifest" and "learned_from".

    Raises:
        UserError: the base is no BPE, the output exists, no text, or too few pieces.
    """
    kept, counter = HeldOut(held_out), ChunkCounter()
    require_new_folder(Path(output))
    vocabulary = open_vocabulary(base)
    for source, text in documents:
        if not kept.takes(source, text):
            counter.add(text)
    if not counter.documents:
        raise UserError("there is no text to learn pieces from; give inputs that hold documents")
    learned = learn_pieces(vocabulary, counter.runs(vocabulary), count, rules or PieceRules())
    extension = extend_tokenizer(vocabulary, [piece.piece for piece in learned], output)
    report = ExtensionReport(vocabulary, extension, output)
    report.measure(kept.documents)
    report.compare(compare)
    return report.to_dict() | {
        "manifest": TokenizerManifest.read(Path(output) / MANIFEST_FILE).to_json(),
        "learned_from": {"documents": counter.documents, "characters": counter.characters},
        "held_out_beyond_limit": kept.left_out,
    }
