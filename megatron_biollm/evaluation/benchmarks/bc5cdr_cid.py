"""BC5CDR-CID: which chemicals induce which diseases, by document.

BioCreative V, Wei et al. 2016, https://doi.org/10.1093/database/baw032: pairs of MeSH identifiers
of an abstract. The shared task let systems find the entities; later papers are given them.
"""

from collections.abc import Sequence

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Benchmark, Conventions, Prompt, Source
from megatron_biollm.evaluation.benchmarks.articles import ENTITIES, document, entity_names
from megatron_biollm.evaluation.benchmarks.bc5cdr import ABSTRACTS, DOWNLOAD
from megatron_biollm.evaluation.benchmarks.pubtator import Article, Mention, read_pubtator
from megatron_biollm.evaluation.items import Prediction, Triple, TripleItem
from megatron_biollm.evaluation.relations import triple_tally
from megatron_biollm.evaluation.tally import Tally

CID = "CID"
INDUCES = "induces"
_NOT_NORMALISED = "-1"


def read(source: Source, conventions: Conventions) -> list[TripleItem]:
    """The abstracts of a split.

    Raises:
        UserError: the file is missing or not as published.
    """
    path = source.path("abstracts")
    return [
        document(
            article,
            _triples(article, str(path)),
            (INDUCES,),
            _identifiers,
            conventions["entities"],
        )
        for article in read_pubtator(path)
    ]


def _identifiers(mention: Mention) -> list[str]:
    """A mention of several entities has them with bars between."""
    return [key for key in mention.identifier.split("|") if key not in ("", _NOT_NORMALISED)]


def _triples(article: Article, where: str) -> list[Triple]:
    known = entity_names(article, _identifiers)
    for relation in article.relations:
        if len(relation) != 3 or relation[0] != CID or not known.keys() >= set(relation[1:]):
            raise UserError(
                f"{where}: {relation} of article {article.pmid} must be {CID}, a chemical and a "
                f"disease that it mentions"
            )
    return [(first, second, INDUCES) for _, first, second in article.relations]


def score(
    items: Sequence[TripleItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """Micro-F1 of the pairs of all documents; conventions have no part in it."""
    return triple_tally(items, predictions)


_LINES = f"the chemical, the disease and {INDUCES}, with tabs between"

BC5CDR_CID = Benchmark(
    name="bc5cdr_cid",
    title="BC5CDR-CID",
    task="extra",
    folder="bc5cdr",
    download=DOWNLOAD,
    splits={split: {"abstracts": file} for split, file in ABSTRACTS.items()},
    test_split="test",
    fewshot_split="train",
    prompt=Prompt(
        "Find all chemicals of the document that induce a disease. Write one line for each "
        f"chemical and disease: {_LINES}. Write none if there are none.",
        (
            "Which diseases are induced by which chemicals, as the document tells? Answer with "
            f"one line for each: {_LINES}. If none is, answer none.",
            f"Extract the chemical-induced diseases of the document, one on each line, as "
            f"{_LINES}. A document without any gets the answer none.",
        ),
    ),
    read=read,
    score=score,
    conventions=(ENTITIES,),
)
