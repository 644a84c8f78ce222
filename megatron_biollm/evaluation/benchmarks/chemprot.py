"""ChemProt: what chemicals do to genes and proteins, in sentences of PubMed abstracts.

BioCreative VI, Krallinger et al. 2017 (https://biocreative.bioinformatics.udel.edu/tasks/
biocreative-vi/track-5/). Five groups of relations are scored. All pairs of a chemical and a gene
in one sentence are asked, and the few related ones that are in two, so that no gold relation is
lost. A pair that has two relations is asked once for each.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import (
    Benchmark,
    Convention,
    Conventions,
    Prompt,
    Source,
)
from megatron_biollm.evaluation.benchmarks.pairs import SHOWN, Entity, show
from megatron_biollm.evaluation.files import read_text
from megatron_biollm.evaluation.items import ChoiceItem, Prediction
from megatron_biollm.evaluation.relations import pair_tally
from megatron_biollm.evaluation.sentences import sentences
from megatron_biollm.evaluation.tally import Tally

# The groups that are scored, and what a model is told of them.
GROUPS = {
    "CPR:3": "upregulator or activator",
    "CPR:4": "downregulator or inhibitor",
    "CPR:5": "agonist",
    "CPR:6": "antagonist",
    "CPR:9": "substrate or product",
}
CHOICES = ("no relation", *GROUPS.values())
_KINDS = {"CHEMICAL": "CHEMICAL", "GENE": "GENE", "GENE-Y": "GENE", "GENE-N": "GENE"}
AVERAGE = Convention(
    "average",
    ("micro", "macro"),
    "micro: F1 over the five groups together, as BioCreative VI and BLURB; macro: the mean of "
    "their F1, as Chen et al. 2025",
)


@dataclass
class Abstract:
    """An article with its mentions and scored relations."""

    pmid: str
    text: str
    entities: dict[str, Entity] = field(default_factory=dict)
    relations: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))


def read(source: Source, conventions: Conventions) -> list[ChoiceItem]:
    """The candidate pairs of a split.

    Raises:
        UserError: a file is missing or not as published.
    """
    abstracts = read_abstracts(source.path("abstracts"))
    _add_entities(abstracts, source.path("entities"))
    _add_relations(abstracts, source.path("gold"))
    how = conventions["mentions"]
    return [item for one in abstracts.values() for item in _items(one, how)]


def _rows(path: Path, columns: int, what: str) -> Iterator[tuple[str, list[str]]]:
    """Rows of a table without quotes, which occur in its texts."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        row = line.rstrip("\r").split("\t")
        if len(row) != columns and line.strip():
            raise UserError(f"{path}:{number} has {len(row)} columns; it must have {what}")
        if line.strip():
            yield f"{path}:{number}", row


def read_abstracts(path: Path) -> dict[str, Abstract]:
    """Titles and abstracts with one character between, as offsets count them, by pmid.

    Raises:
        UserError: the file cannot be read or has other columns.
    """
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


def _add_relations(abstracts: dict[str, Abstract], path: Path) -> None:
    for where, (pmid, group, first, second) in _rows(path, 4, "pmid, group, Arg1, Arg2"):
        if group not in GROUPS:
            raise UserError(f"{where} has the relation {group!r}; there are {', '.join(GROUPS)}")
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


def _items(abstract: Abstract, how: str) -> Iterator[ChoiceItem]:
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
            answer = CHOICES.index(GROUPS[group]) if group else 0
            yield ChoiceItem(name, abstract.pmid, question, CHOICES, answer)


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


def score(
    items: Sequence[ChoiceItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """F1 over the five groups, averaged as the convention says."""
    return pair_tally(items, predictions, tuple(GROUPS), f"{conventions['average']}_f1")


def _split(name: str, ending: str = "") -> dict[str, str]:
    """Files by role; those of the test say that they are the gold standard."""
    start = f"chemprot_{name}{ending}/chemprot_{name}"
    return {
        "abstracts": f"{start}_abstracts{ending}.tsv",
        "entities": f"{start}_entities{ending}.tsv",
        "gold": f"{start}_gold_standard.tsv",
    }


CHEMPROT = Benchmark(
    name="chemprot",
    title="ChemProt",
    task="re",
    folder="chemprot",
    download=(
        "the ChemProt corpus of BioCreative VI (ChemProt_Corpus.zip of "
        "https://biocreative.bioinformatics.udel.edu/news/corpora/chemprot-corpus-biocreative-vi/)"
    ),
    splits={
        "test": _split("test", "_gs"),
        "dev": _split("development"),
        "train": _split("training"),
        "sample": _split("sample"),
    },
    test_split="test",
    fewshot_split="train",
    prompt=Prompt(
        "What does the chemical do to the gene or protein, as the sentence says? The two are "
        "@CHEMICAL$ and @GENE$, or stand between tags. Answer with one of: "
        f"{'; '.join(CHOICES)}.",
        (
            "Name the relation between the marked chemical and the marked gene in the sentence. "
            f"It is one of: {'; '.join(CHOICES)}.",
            "Read the sentence and classify how the chemical (@CHEMICAL$) affects the gene or "
            f"protein (@GENE$): {'; '.join(CHOICES)}.",
        ),
    ),
    read=read,
    score=score,
    conventions=(AVERAGE, SHOWN),
)
