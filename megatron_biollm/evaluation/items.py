"""What a benchmark asks, one item at a time, whatever file it came from.

An item's `document` is the unit that intervals resample: sentences of one abstract are not
independent. `id` is unique within a benchmark and its split, and the same in every run.

Predictions, by kind of item: for a `ChoiceItem` the index of a choice, or None for an answer that
cannot be read; for a `SpanItem` spans; for a `TripleItem` triples; for a `TextItem` a text; for a
`LabelsItem` labels; for a `NumberItem` a number or None; for a `DocumentItem` its log-likelihood
and number of tokens.
"""

from dataclasses import dataclass
from typing import Union


@dataclass(frozen=True)
class Item:
    """What all items have."""

    id: str
    document: str


@dataclass(frozen=True)
class ChoiceItem(Item):
    """One of several choices is right; a labelled relation between two marked mentions too.

    Attributes:
        question: what is asked; of a relation, the sentence with its two mentions marked.
        choices: texts, in the order of the file; of a relation, all its labels.
        answer: index of the right one.
        context: text to answer from; empty for none.
        group: subject, for tables by group; empty for none.
    """

    question: str
    choices: tuple[str, ...]
    answer: int
    context: str = ""
    group: str = ""


@dataclass(frozen=True, order=True)
class Span:
    """A mention: characters `start` to `end` (exclusive) of an item's text, and its type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True)
class SpanItem(Item):
    """A sentence (or a passage) whose mentions are sought.

    Attributes:
        text: in which offsets count characters.
        spans: the mentions, sorted.
        alternatives: of a span, other extents that also count as finding it; of an extent that is
            no span, those that are at least not wrong.
        types: all that are sought, whether the text has them or not.
    """

    text: str
    spans: tuple[Span, ...]
    alternatives: tuple[tuple[Span, tuple[Span, ...]], ...] = ()
    types: tuple[str, ...] = ()


@dataclass(frozen=True)
class TripleItem(Item):
    """A document whose relations are sought.

    Attributes:
        text: the document.
        triples: (first entity, second entity, relation), as the scorer compares them; a fourth part
            says whether the relation is news.
        names: of an entity, all names by which the text may call it; empty where an entity is
            compared by its own text.
        relations: all that are sought; empty where a relation may be any text.
    """

    text: str
    triples: tuple[tuple[str, ...], ...]
    names: tuple[tuple[str, tuple[str, ...]], ...] = ()
    relations: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextItem(Item):
    """A text to be written, such as the note of a conversation.

    Attributes:
        text: the source.
        references: texts that count as right.
        group: section that is asked for, told to the model; empty for none.
        part: for tables, not told to the model; empty for none.
    """

    text: str
    references: tuple[str, ...]
    group: str = ""
    part: str = ""


@dataclass(frozen=True)
class LabelsItem(Item):
    """A text with any number of labels out of `choices`."""

    text: str
    choices: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class NumberItem(Item):
    """A quantity to be told from a text."""

    text: str
    value: float


@dataclass(frozen=True)
class DocumentItem(Item):
    """A text that is foretold as it stands; nothing is asked of it."""

    text: str


AnyItem = Union[ChoiceItem, SpanItem, TripleItem, TextItem, LabelsItem, NumberItem, DocumentItem]
Triple = tuple[str, ...]
Told = Union[tuple[Span, ...], tuple[Triple, ...], tuple[str, ...], tuple[float, int]]
Prediction = Union[None, int, float, str, Told]
