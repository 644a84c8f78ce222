"""What was found in corpora, for people."""

from collections.abc import Iterator
from typing import Any, Optional

from megatron_biollm.data.lengths import Lengths, histogram


def as_text(found: list[dict[str, Any]], lengths: list[Lengths]) -> str:
    """A table of the inputs, then each one's lengths, ratios, frequent ids and documents.

    Args:
        found: entries of `inspect_tool.inspect_corpus` and `inspect_files`.
        lengths: theirs, in the same order.
    """
    lines = _table(found)
    for entry, own in zip(found, lengths, strict=True):
        lines += ["", f"{entry['label']}", *histogram(own, entry["unit"])]
        lines += list(_details(entry))
    return "\n".join(lines)


def _table(found: list[dict[str, Any]]) -> list[str]:
    """A line for each source, and their total where they are of one kind."""
    wide = max([len(entry["label"]) for entry in found] + [6])
    names = ("documents", "tokens", "characters", "mean", "median", "p99", "max")
    lines = [f"{'source':<{wide}} " + " ".join(f"{name:>15}" for name in names)]
    for entry in found:
        own = entry["lengths"]
        values = [own["documents"], entry.get("tokens"), entry.get("characters")]
        values += [own[name] for name in names[3:]]
        lines.append(f"{entry['label']:<{wide}} " + " ".join(f"{_number(v):>15}" for v in values))
    if len(found) > 1:
        sums = [sum(e["lengths"]["documents"] for e in found)]
        sums += [sum(e.get(name, 0) for e in found) or None for name in names[1:3]]
        lines.append(f"{'all':<{wide}} " + " ".join(f"{_number(v):>15}" for v in sums))
    return lines


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def _details(entry: dict[str, Any]) -> Iterator[str]:
    own = entry["lengths"]
    if own["empty"]:
        yield f"{own['empty']:,} documents are empty"
    if entry.get("bad_lines"):
        yield f"{entry['bad_lines']:,} lines hold no document"
    if "ratios" in entry:
        yield (
            "{tokens_per_word:.3f} tokens a word, {characters_per_token:.2f} characters a token "
            "(a sample of {documents:,} documents, {tokens:,} tokens)".format(**entry["ratios"])
        )
    if "eod" in entry:
        yield _eod_line(entry["eod"])
    if "ids" in entry:
        yield from _id_lines(entry["ids"])
    for problem in entry.get("problems", ()):
        yield f"problem: {problem}"
    if "problems" in entry and not entry["problems"]:
        yield "verified: structure, digests and ids are fine"
    for document in entry.get("documents", ()):
        size = f", {document['tokens']:,} tokens" if "tokens" in document else ""
        yield f"\n--- document {document['document']}{size}"
        yield document["text"]


def _eod_line(eod: Optional[dict[str, int]]) -> str:
    if eod is None:
        return "ends of documents: not checked, no --eod-id and no tokenizer tells their id"
    return (
        "ends of documents (id {id}): {ended:,} documents end with it, {not_ended:,} do not, "
        "{inside:,} stand inside documents".format(**eod)
    )


def _id_lines(ids: dict[str, Any]) -> Iterator[str]:
    line = f"{ids['different']:,} different ids occur"
    if "unused" in ids:
        line += f", {ids['unused']:,} of the vocabulary never"
        spelt = ids["byte_share"]
        line += "; " + ("no byte tokens" if spelt is None else f"{spelt:.4%} spell bytes")
        line += f", {ids['unknown_share']:.4%} are unknown"
    yield line
    yield f"{'id':>8} {'count':>15} {'share':>8}  piece"
    for row in ids["top"]:
        piece = "" if row["piece"] is None else repr(row["piece"])
        yield f"{row['id']:>8} {row['count']:>15,} {row['share']:>8.3%}  {piece}".rstrip()
