"""Two mentions in a sentence whose relation is asked: shown by what they are, or marked."""

from dataclasses import dataclass

from megatron_biollm.evaluation.benchmark import Convention

SHOWN = Convention(
    "mentions",
    ("masked", "marked"),
    "masked: what the two are stands in their place (@GENE$), as BLURB; marked: their names stay, "
    "between <gene> and </gene>",
)


@dataclass(frozen=True)
class Entity:
    """A mention that may have a relation.

    Attributes:
        id: in its document.
        kind: what stands in its place.
        start: its first character; of one in pieces, of the first piece.
        end: after its last one.
        text: what is there.
    """

    id: str
    kind: str
    start: int
    end: int
    text: str


def show(text: str, first: Entity, second: Entity, how: str) -> str:
    """A text with two mentions masked or marked; as one where they overlap.

    Args:
        text: a sentence.
        first: in characters of the text.
        second: the same.
        how: a value of `SHOWN`.
    """
    early, late = sorted((first, second), key=lambda one: (one.start, one.end))
    if late.start < early.end:
        kind = f"{first.kind}-{second.kind}"
        early = Entity("", kind, early.start, max(early.end, late.end), "")
        return _clean(text[: early.start] + _shown(text, early, how) + text[early.end :])
    middle = text[early.end : late.start]
    before, after = text[: early.start], text[late.end :]
    return _clean(before + _shown(text, early, how) + middle + _shown(text, late, how) + after)


def _shown(text: str, entity: Entity, how: str) -> str:
    if how == "masked":
        return f"@{entity.kind}$"
    kind = entity.kind.lower()
    return f"<{kind}>{text[entity.start : entity.end]}</{kind}>"


def _clean(text: str) -> str:
    return " ".join(text.split())
