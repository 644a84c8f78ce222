"""NCBI disease: diseases in the abstracts of 793 articles.

Doğan et al. 2014, https://doi.org/10.1016/j.jbi.2013.12.006; the tokenised version is the one that
papers score (Crichton et al. 2017, https://doi.org/10.1186/s12859-017-1776-8). One article of the
training split is in it twice. The conventional score is strict F1 of one type.
"""

from megatron_biollm.evaluation.benchmark import Benchmark, Conventions, Source
from megatron_biollm.evaluation.benchmarks.ner import (
    MENTIONS,
    ner_prompt,
    read_placed,
    score_spans,
)
from megatron_biollm.evaluation.items import SpanItem

DISEASE = "Disease"
_KINDS = ("SpecificDisease", "DiseaseClass", "Modifier", "CompositeMention")


def read(source: Source, conventions: Conventions) -> list[SpanItem]:
    """The sentences of a split.

    Raises:
        UserError: a file is missing or not as published.
    """
    return read_placed(source, conventions, dict.fromkeys(_KINDS, DISEASE))


NCBI_DISEASE = Benchmark(
    name="ncbi_disease",
    title="NCBI-disease",
    task="ner",
    folder="ncbi_disease",
    download=(
        "the NCBI disease corpus (https://www.ncbi.nlm.nih.gov/CBBresearch/Dogan/DISEASE/; "
        "tokenised: https://github.com/spyysalo/ncbi-disease, folder conll)"
    ),
    splits={
        "test": {"abstracts": "NCBItestset_corpus.txt", "sentences": "conll/test.tsv"},
        "dev": {"abstracts": "NCBIdevelopset_corpus.txt", "sentences": "conll/devel.tsv"},
        "train": {"abstracts": "NCBItrainset_corpus.txt", "sentences": "conll/train.tsv"},
    },
    test_split="test",
    fewshot_split="train",
    prompt=ner_prompt("diseases", (DISEASE,)),
    read=read,
    score=score_spans,
    conventions=(MENTIONS,),
)
