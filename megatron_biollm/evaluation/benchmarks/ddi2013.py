"""DDI-2013: interactions between drugs, in sentences of DrugBank and of PubMed abstracts.

Herrero-Zazo et al. 2013, https://doi.org/10.1016/j.jbi.2013.07.011; SemEval-2013 task 9
(https://aclanthology.org/S13-2056). All pairs of drugs in a sentence are asked, as the corpus
lists them; the one pair of the training split that interacts without a type is left out.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lxml import etree

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.archive import parse_xml, read_members
from megatron_biollm.evaluation.benchmark import (
    Benchmark,
    Convention,
    Conventions,
    Prompt,
    Source,
)
from megatron_biollm.evaluation.benchmarks.pairs import SHOWN, Entity, show
from megatron_biollm.evaluation.items import ChoiceItem, Prediction
from megatron_biollm.evaluation.relations import pair_tally
from megatron_biollm.evaluation.tally import Tally

TYPES = ("advise", "effect", "mechanism", "int")
CHOICES = ("false", *TYPES)
SCORING = Convention(
    "scoring",
    ("micro", "macro", "detection"),
    "micro: F1 over the four types together, as SemEval-2013 and BLURB; macro: the mean of their "
    "F1; detection: F1 of finding any interaction",
)
_FOLDERS = {"test": "Test/Test for DDI Extraction task/", "train": "Train/"}


def read(source: Source, conventions: Conventions) -> list[ChoiceItem]:
    """The candidate pairs of a split, from the published zip or a folder of its files.

    Raises:
        UserError: the archive is missing, damaged or not as published.
    """
    path = source.path("archive")
    items = [
        item
        for name, data in _members(path, _FOLDERS[source.split])
        for item in _items(data, conventions["mentions"], f"{path}:{name}")
    ]
    if not items:
        raise UserError(
            f"{path} has no pair of drugs below {_FOLDERS[source.split]!r}; "
            f"it must be {source.download}"
        )
    return items


def _members(path: Path, folder: str) -> Iterator[tuple[str, bytes]]:
    """The files of a split; all, where there are no splits, as in a folder of one."""
    members = list(read_members(path, (".xml",)))
    has_splits = any(one in name for name, _ in members for one in _FOLDERS.values())
    yield from (one for one in members if folder in one[0] or not has_splits)


def _items(data: bytes, how: str, where: str) -> Iterator[ChoiceItem]:
    root = parse_xml(data, where)
    document = _attribute(root, "id", where)
    for sentence in root.iterfind("sentence"):
        text = _attribute(sentence, "text", where)
        drugs = {one.id: one for one in _drugs(sentence, text, where)}
        for pair in sentence.iterfind("pair"):
            name = _attribute(pair, "id", where)
            answer = _answer(pair, f"{where}: {name}")
            first, second = (_attribute(pair, end, name) for end in ("e1", "e2"))
            if first not in drugs or second not in drugs:
                raise UserError(f"{where}: {name} names a drug that its sentence does not have")
            if answer is not None:
                question = show(text, drugs[first], drugs[second], how)
                yield ChoiceItem(name, document, question, CHOICES, answer)


def _attribute(element: etree._Element, name: str, where: str) -> str:
    value = element.get(name)
    if value is None:
        raise UserError(
            f"{where}: <{element.tag}> has no {name!r}; the format is not the published one"
        )
    return value


def _drugs(sentence: etree._Element, text: str, where: str) -> Iterator[Entity]:
    for element in sentence.iterfind("entity"):
        name, mention = (_attribute(element, key, where) for key in ("id", "text"))
        pieces = _pieces(_attribute(element, "charOffset", where), f"{where}: {name}")
        # Of one mention the published offsets are one too small.
        pieces = next((some for some in _shifts(pieces) if _said(text, some, mention)), [])
        if not pieces:
            raise UserError(
                f"{where}: {name}, {mention!r}, is not at {element.get('charOffset')} of its "
                f"sentence; the file is not the published one"
            )
        yield Entity(name, "DRUG", *pieces[0], mention)


def _pieces(offsets: str, where: str) -> list[tuple[int, int]]:
    """Extents as `first-last;first-last`, the last character included."""
    try:
        pairs = [tuple(map(int, piece.split("-"))) for piece in offsets.split(";")]
        return [(start, last + 1) for start, last in pairs]
    except ValueError as error:
        raise UserError(f"{where} is at {offsets!r}; it must be first-last") from error


def _shifts(pieces: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    yield pieces
    yield [(start + 1, end + 1) for start, end in pieces]


def _said(text: str, pieces: list[tuple[int, int]], mention: str) -> bool:
    found = "".join(text[start:end] for start, end in pieces)
    return "".join(found.split()) == "".join(mention.split())


def _answer(pair: etree._Element, where: str) -> int | None:
    """Index of the label; None of an interaction without a type."""
    if pair.get("ddi") == "false":
        return 0
    kind = pair.get("type")
    if pair.get("ddi") != "true" or (kind is not None and kind not in TYPES):
        raise UserError(
            f"{where} has ddi={pair.get('ddi')!r} and type={kind!r}; "
            f"they must be false, or true and one of {', '.join(TYPES)}"
        )
    return None if kind is None else CHOICES.index(kind)


def score(
    items: Sequence[ChoiceItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """F1 over the types of interaction, as the convention says."""
    return pair_tally(items, predictions, TYPES, f"{conventions['scoring']}_f1")


_MEANINGS = (
    "false (no interaction), advise (a recommendation), effect (an effect of the interaction), "
    "mechanism (how they interact), int (an interaction without more detail)"
)

DDI2013 = Benchmark(
    name="ddi2013",
    title="DDI-2013",
    task="re",
    folder="ddi2013",
    download="the DDI corpus (DDICorpus-2013.zip of https://github.com/isegura/DDICorpus)",
    splits={split: {"archive": "DDICorpus-2013.zip"} for split in _FOLDERS},
    test_split="test",
    fewshot_split="train",
    prompt=Prompt(
        "What does the sentence say about an interaction of the two drugs? They are written "
        f"@DRUG$, or stand between tags. Answer with one of: {_MEANINGS}.",
        (
            f"Classify the interaction of the two marked drugs in the sentence as {_MEANINGS}.",
            f"How do the drugs @DRUG$ and @DRUG$ interact, as the sentence says? {_MEANINGS}.",
        ),
    ),
    read=read,
    score=score,
    conventions=(SCORING, SHOWN),
)
