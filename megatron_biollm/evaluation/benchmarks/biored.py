"""BioRED: relations of genes, diseases, chemicals, variants, species and cell lines, by document.

Luo et al. 2022, https://doi.org/10.1093/bib/bbac282, in PubTator text or BioC. Relations are
between normalised entities; a model calls each by any of its names in the text. They have no
direction: the order of the two does not count. As in the paper, the entities are given.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import (
    Benchmark,
    Convention,
    Conventions,
    Prompt,
    Source,
)
from megatron_biollm.evaluation.benchmarks.articles import ENTITIES, document, entity_names
from megatron_biollm.evaluation.benchmarks.bioc import read_bioc_json, read_bioc_xml
from megatron_biollm.evaluation.benchmarks.pubtator import Article, Mention, read_pubtator
from megatron_biollm.evaluation.files import read_text
from megatron_biollm.evaluation.items import Prediction, Triple, TripleItem
from megatron_biollm.evaluation.relations import triple_tally
from megatron_biollm.evaluation.tally import Tally

_NEWS = "Say of each relation whether it is news."
RELATIONS = (
    "Association", "Positive_Correlation", "Negative_Correlation", "Bind", "Cotreatment",
    "Comparison", "Drug_Interaction", "Conversion",
)  # fmt: skip
NOVELTY = ("Novel", "No")
MATCH = Convention(
    "match",
    ("pair_and_type", "pair", "pair_type_and_novelty"),
    "what of a relation must be right: both entities and its type; the entities; or whether it is "
    "news too",
)


def read(source: Source, conventions: Conventions) -> list[TripleItem]:
    """The documents of a split.

    Raises:
        UserError: a file is missing or not as published.
    """
    path = source.path("documents")
    return [_item(article, conventions, str(path)) for article in read_articles(path)]


def read_articles(path: Path) -> list[Article]:
    """The articles of a file of PubTator text, BioC XML or BioC JSON.

    Raises:
        UserError: it is none of them, or not as published.
    """
    text = read_text(path)
    first = text.lstrip()[:1]
    articles = (
        read_bioc_xml(text, str(path)) if first == "<"
        else read_bioc_json(text, str(path)) if first == "{"
        else read_pubtator(path)
    )  # fmt: skip
    if not articles:
        raise UserError(f"{path} has no article; it must be PubTator text, BioC XML or BioC JSON")
    return articles


def _item(article: Article, conventions: Conventions, where: str) -> TripleItem:
    with_novelty = conventions["match"] == "pair_type_and_novelty"
    triples = [
        triple if with_novelty else triple[:3]
        for triple in _triples(article, set(entity_names(article, _identifiers)), where)
    ]
    item = document(article, triples, RELATIONS, _identifiers, conventions["entities"])
    return replace(item, text=f"{item.text}\n\n{_NEWS}") if with_novelty else item


def _identifiers(mention: Mention) -> list[str]:
    return mention.identifier.split(",")


def _triples(article: Article, known: set[str], where: str) -> Iterator[Triple]:
    for relation in article.relations:
        kind, *pair, novel = relation if len(relation) == 4 else (*relation, "", "", "")[:4]
        if kind not in RELATIONS or novel not in NOVELTY:
            raise UserError(
                f"{where}: {relation} of article {article.pmid} must be one of "
                f"{', '.join(RELATIONS)}, two entities, and one of {', '.join(NOVELTY)}"
            )
        for key in pair:
            if key not in known:
                raise UserError(
                    f"{where}: {article.pmid} relates {key!r}, which it does not mention"
                )
        yield (*pair, kind, novel)


def score(
    items: Sequence[TripleItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """Micro-F1 of relations, of which the convention says what must be right."""
    parts = {"pair": 2, "pair_and_type": 3, "pair_type_and_novelty": 4}[conventions["match"]]
    return triple_tally(items, predictions, lambda triple: (*sorted(triple[:2]), *triple[2:parts]))


_LINES = (
    f"the two entities and the relation with tabs between, and after another tab {NOVELTY[0]} or "
    f"{NOVELTY[1]} where it is asked whether the relation is news. Relations: "
    f"{', '.join(RELATIONS)}"
)

BIORED = Benchmark(
    name="biored",
    title="BioRED",
    task="re",
    folder="biored",
    download="BioRED (BIORED.zip of https://ftp.ncbi.nlm.nih.gov/pub/lu/BioRED/)",
    splits={
        "test": {"documents": "Test.PubTator"},
        "dev": {"documents": "Dev.PubTator"},
        "train": {"documents": "Train.PubTator"},
    },
    test_split="test",
    fewshot_split="train",
    prompt=Prompt(
        "Find all relations between entities of the document. Write one line for each: "
        f"{_LINES}. Write none if there are none.",
        (
            "Which relations between biomedical entities does the document tell? Answer with one "
            f"line for each: {_LINES}. If it tells none, answer none.",
            f"Extract the relations of the document, one on each line, as {_LINES}. A document "
            "without any gets the answer none.",
        ),
    ),
    read=read,
    score=score,
    conventions=(MATCH, ENTITIES),
)
