"""KD-DTI: which drugs act on which targets, and how, as triples of a document.

Hou et al. 2022, https://doi.org/10.1093/bioinformatics/btab648; names are those of DrugBank and
TTD, which the text may not use. Letter case and spaces do not count. BioGPT
(https://doi.org/10.1093/bib/bbac409) publishes another score, by its repository
(github.com/microsoft/BioGPT, examples/RE-DTI): the mean over documents of their F1, where names
may agree in full or in the abbreviation that ends them in brackets.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import (
    Benchmark,
    Convention,
    Conventions,
    Prompt,
    Source,
)
from megatron_biollm.evaluation.files import field, read_json
from megatron_biollm.evaluation.items import Prediction, Triple, TripleItem
from megatron_biollm.evaluation.relations import counted, triple_tally
from megatron_biollm.evaluation.tally import Tally, need_one_each

SCORING = Convention(
    "scoring",
    ("micro", "biogpt"),
    "micro: F1 of the triples of all documents; biogpt: the mean of the documents' F1, names in "
    "full or by abbreviation, as BioGPT's 38.42",
)
_PARTS = ("drug", "target", "interaction")
_BRACKETS = re.compile(r"(.*)\((.*)\)", re.DOTALL)


def read(source: Source, conventions: Conventions) -> list[TripleItem]:
    """The documents of a split.

    Raises:
        UserError: the file is missing or not as published.
    """
    path = source.path("documents")
    articles = read_json(path)
    if not isinstance(articles, dict) or not articles:
        raise UserError(f"{path} must be an object with an article for each pmid")
    items = []
    for pmid, article in articles.items():
        where = f"{path}: {pmid}"
        text = f"{field(article, 'title', str, where)} {field(article, 'abstract', str, where)}"
        rows = field(article, "triples", list, where)
        triples = [tuple(field(row, part, str, where) for part in _PARTS) for row in rows]
        items.append(TripleItem(pmid, pmid, text, tuple(triples)))
    return items


def score(
    items: Sequence[TripleItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """F1 of triples, as the convention says."""
    if conventions["scoring"] == "micro":
        return triple_tally(items, predictions, _key)
    return _biogpt_tally(items, predictions)


def _key(triple: Triple) -> Triple:
    return tuple("".join(part.split()).casefold() for part in triple)


def _biogpt_tally(items: Sequence[TripleItem], predictions: Sequence[Prediction]) -> Tally:
    """Sums of the documents' F1, precision and recall, and how many documents there are."""
    need_one_each(items, predictions)
    rows = [
        (*_document_scores(item.triples, told or ()), 1)
        for item, told in zip(items, predictions, strict=True)
    ]
    scores = {name: _Mean(column) for column, name in enumerate(("mean_f1", "precision", "recall"))}
    return counted(items, predictions, np.array(rows, float).reshape(-1, 4), scores)


class _Mean:
    """A column divided by the last one."""

    def __init__(self, column: int) -> None:
        self.column = column

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        return counts[..., self.column] / np.maximum(counts[..., -1], 1)


def _document_scores(sought: Iterable[Triple], given: Iterable[Triple]) -> tuple[float, ...]:
    """F1, precision and recall of a document: the better of names in full and abbreviated."""
    best = np.zeros(2)
    for whole in (True, False):
        wanted, told = ({_name_key(one, whole) for one in some} for some in (sought, given))
        both, nothing = len(wanted & told), float(wanted == told)
        ratios = [both / len(some) if some else nothing for some in (told, wanted)]
        best = np.maximum(best, ratios)
    total = best.sum()
    return (float(2 * best.prod() / total) if total else 0.0, *map(float, best))


def _name_key(triple: Triple, whole: bool) -> Triple:
    return tuple(_plain(_short(part, whole)) for part in _key(triple))


def _short(name: str, whole: bool) -> str:
    """A name without the abbreviation in brackets at its end, or that abbreviation."""
    match = _BRACKETS.fullmatch(name)
    return name if not match else match[1] if whole else match[2]


def _plain(name: str) -> str:
    """Letters and digits. (That script's Roman numbers do nothing to names in small letters.)"""
    return re.sub("[^a-zA-Z0-9]", "", name.replace("-type", ""))


_LINES = "the drug, the target and how the drug acts on it (such as inhibitor), with tabs between"

KD_DTI = Benchmark(
    name="kd_dti",
    title="KD-DTI",
    task="re",
    folder="kd_dti",
    download=(
        "KD-DTI (test.json, valid.json and train.json of https://github.com/microsoft/BioGPT, "
        "data/KD-DTI/raw)"
    ),
    splits={
        "test": {"documents": "test.json"},
        "dev": {"documents": "valid.json"},
        "train": {"documents": "train.json"},
    },
    test_split="test",
    fewshot_split="dev",
    prompt=Prompt(
        "Find all drugs of the document that act on a target. Write one line for each drug and "
        f"target: {_LINES}. Write none if there are none.",
        (
            "Which drug-target interactions does the document tell? Answer with one line for "
            f"each: {_LINES}. If it tells none, answer none.",
            f"Extract the drug-target interactions of the document, one on each line, as {_LINES}. "
            "A document without any gets the answer none.",
        ),
    ),
    read=read,
    score=score,
    conventions=(SCORING,),
)
