"""Pairs of a chemical and a gene, in the tables of ChemProt and DrugProt.

Three files without headers: abstracts (pmid, title, abstract), entities (pmid, id, type, start,
end, text; offsets count characters of the title, one character and the abstract) and gold
relations (pmid, relation, `Arg1:`id, `Arg2:`id). All pairs of a chemical and a gene in one sentence
are asked, and the few related ones that are in two, so that no gold relation is lost. A pair that
has two relations is asked once for each.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Source
from megatron_biollm.evaluation.benchmarks.pairs import Entity, show
from megatron_biollm.evaluation.files import read_text
from megatron_biollm.evaluation.items import ChoiceItem
from megatron_biollm.evaluation.sentences import sentences

NO_RELATION = "no relation"
_KINDS = {"CHEMICAL": "CHEMICAL", "GENE": "GENE", "GENE-Y": "GENE", "GENE-N": "GENE"}


@dataclass
class Abstract:
    """An article with its mentions and scored relations."""

    pmid: str
    text: str
    entities: dict[str, Entity] = field(default_factory=dict)
    relations: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))


def read_pairs(source: Source, how: str, relations: Mapping[str, str]) -> list[ChoiceItem]:
    """The candidate pairs of a split.

    Args:
        source: with the files `abstracts`, `entities` and `gold`.
        how: a value of `SHOWN`.
        relations: that are scored, and what choices call them; the first choice is
            `NO_RELATION`.

    Raises:
        UserError: a file is missing or not as published.
    """
    abstracts = _read_abstracts(source.path("abstracts"))
    _add_entities(abstracts, source.path("entities"))
    _add_relations(abstracts, source.path("gold"), relations)
    return [item for one in abstracts.values() for item in _items(one, how, relations)]


def _rows(path: Path, columns: int, what: str) -> Iterator[tuple[str, list[str]]]:
    """Rows of a table without quotes, which occur in its texts."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        row = line.rstrip("\r").split("\t")
        if len(row) != columns and line.strip():
            raise UserError(f"{path}:{number} has {len(row)} columns; it must have {what}")
        if line.strip():
            yield f"{path}:{number}", row


def _read_abstracts(path: Path) -> dict[str, Abstract]:
    """Titles and abstracts with one character between, as offsets count them, by pmid."""
    rows = _rows(path, 3, "pmid, title, abstract")
    return {pmid: Abstract(pmid, f"{title} {text}") for _, (pmid, title, text) in rows}


def _add_entities(abstracts: dict[str, Abstract], path: Path) -> None:
    for where, row in _rows(path, 6, "pmid, id, type, start, end, text"):
        pmid, name, kind, start, end, text = row
        if kind not in _KINDS:
            raise UserError(f"{where} has the type {kind!r}; there are {', '.join(_KINDS)}")
        abstract = _abstract(abstracts, pmid, where)
        if not (start.isdigit() and end.isdigit()) or abstract.text[int(start) : int(end)] != text:
            raise UserError(
                f"{where}: {text!r} is said to be at {start}-{end} of {pmid}, where it is not; "
                f"the abstracts and the entities must be of the same split, as published"
            )
        abstract.entities[name] = Entity(name, _KINDS[kind], int(start), int(end), text)


def _add_relations(
    abstracts: dict[str, Abstract], path: Path, relations: Mapping[str, str]
) -> None:
    for where, (pmid, group, first, second) in _rows(path, 4, "pmid, group, Arg1, Arg2"):
        if group not in relations:
            raise UserError(f"{where} has the relation {group!r}; there are {', '.join(relations)}")
        abstract = _abstract(abstracts, pmid, where)
        pair = first.removeprefix("Arg1:"), second.removeprefix("Arg2:")
        for name in pair:
            if name not in abstract.entities:
                raise UserError(f"{where} names {name!r}, which is no entity of {pmid}")
        abstract.relations[pair].append(group)


def _abstract(abstracts: dict[str, Abstract], pmid: str, where: str) -> Abstract:
    if pmid not in abstracts:
        raise UserError(f"{where} is of {pmid!r}, which is no abstract of this split")
    return abstracts[pmid]


def _items(abstract: Abstract, how: str, relations: Mapping[str, str]) -> Iterator[ChoiceItem]:
    choices = (NO_RELATION, *relations.values())
    entities = list(abstract.entities.values())
    bounds = sentences(abstract.text, [(one.start, one.end) for one in entities])
    for pair in _pairs(abstract, entities, bounds):
        first, second = (abstract.entities[name] for name in pair)
        start = max(b[0] for b in bounds if b[0] <= min(first.start, second.start))
        end = min(b[1] for b in bounds if b[1] >= max(first.end, second.end))
        question = show(abstract.text[start:end], _moved(first, start), _moved(second, start), how)
        groups = abstract.relations.get(pair, [])
        for group in groups or [""]:
            name = ".".join((abstract.pmid, *pair, *([group] if len(groups) > 1 else [])))
            answer = choices.index(relations[group]) if group else 0
            yield ChoiceItem(name, abstract.pmid, question, choices, answer)


def _pairs(
    abstract: Abstract, entities: Sequence[Entity], bounds: Sequence[tuple[int, int]]
) -> list[tuple[str, str]]:
    """A chemical and a gene of each sentence, then the related ones of two sentences."""
    pairs = []
    for start, end in bounds:
        inside = [one for one in entities if start <= one.start and one.end <= end]
        genes = [one.id for one in inside if one.kind == "GENE"]
        pairs += [(one.id, gene) for one in inside if one.kind == "CHEMICAL" for gene in genes]
    return list(dict.fromkeys([*pairs, *abstract.relations]))


def _moved(entity: Entity, start: int) -> Entity:
    return replace(entity, start=entity.start - start, end=entity.end - start)
