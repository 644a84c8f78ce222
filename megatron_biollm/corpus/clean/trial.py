"""Filters tried on a sample of documents: what each would drop, from which source, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.steps import Drop, Flow, Processor


def try_processors(documents: Iterable[Document], processors: Sequence[Processor]) -> list[Flow]:
    """Sends documents through processors, one after the other, and counts; keeps none of them.

    Returns:
        one flow per processor: documents in and out by source, drops by source and reason with
        samples of each, and what the processor tallied.
    """
    flows = [Flow(processor.name) for processor in processors]
    for document in documents:
        for processor, flow in zip(processors, flows, strict=True):
            flow.came[document.source] += 1
            outcome = processor(document)
            if isinstance(outcome, Drop):
                flow.drop(document, outcome)
                break
            document = outcome
            flow.keep(document)
    for processor, flow in zip(processors, flows, strict=True):
        flow.tally.update(getattr(processor, "tally", {}))
    return flows


def to_text(flows: Iterable[Flow], characters: int = 120) -> str:
    """Drop rates by processor, source and reason, with samples cut to so many characters."""
    lines = []
    for flow in flows:
        lines.append(f"{flow.name}: {flow.left.total()} of {flow.came.total()} documents kept")
        for source, reasons in flow.dropped.items():
            for reason, count in reasons.most_common():
                share = 100 * count / flow.came[source]
                lines.append(f"  {source}: {count} {reason} ({share:.2f} % of {flow.came[source]})")
                lines += _samples(flow, source, reason, characters)
        lines += [f"  {count} {name}" for name, count in flow.tally.most_common()]
    return "\n".join(lines)


def _samples(flow: Flow, source: str, reason: str, characters: int) -> list[str]:
    shown = [s for s in flow.samples if (s["source"], s["reason"]) == (source, reason)]
    return [f"      {s['id']} [{s['detail']}] {s['text'][:characters]!r}" for s in shown]
