"""BC5CDR: chemicals, and diseases, in the abstracts of 1500 articles; two benchmarks of one corpus.

BioCreative V, Li et al. 2016, https://doi.org/10.1093/database/baw068; the tokenised version is the
one that papers score (Crichton et al. 2017, https://doi.org/10.1186/s12859-017-1776-8).
"""

from functools import partial

from megatron_biollm.evaluation.benchmark import Benchmark, Conventions, Source
from megatron_biollm.evaluation.benchmarks.ner import (
    MENTIONS,
    ner_prompt,
    read_placed,
    score_spans,
)
from megatron_biollm.evaluation.items import SpanItem

DOWNLOAD = (
    "the BioCreative V CDR corpus (https://biocreative.bioinformatics.udel.edu/tasks/"
    "biocreative-v/track-3-cdr/; tokenised: "
    "https://github.com/cambridgeltl/MTL-Bioinformatics-2016, data/BC5CDR-*-IOB)"
)
ABSTRACTS = {
    "test": "CDR_TestSet.PubTator.txt",
    "dev": "CDR_DevelopmentSet.PubTator.txt",
    "train": "CDR_TrainingSet.PubTator.txt",
}
_TOKENISED = {"test": "test.tsv", "dev": "devel.tsv", "train": "train.tsv"}


def read(source: Source, conventions: Conventions, kind: str) -> list[SpanItem]:
    """The sentences of a split, with mentions of one kind.

    Raises:
        UserError: a file is missing or not as published.
    """
    return read_placed(source, conventions, {kind: kind})


def _benchmark(kind: str, plural: str, folder: str) -> Benchmark:
    return Benchmark(
        name=f"bc5cdr_{kind.lower()}",
        title=f"BC5CDR-{kind.lower()}",
        task="ner",
        folder="bc5cdr",
        download=DOWNLOAD,
        splits={
            split: {"abstracts": ABSTRACTS[split], "sentences": f"{folder}/{file}"}
            for split, file in _TOKENISED.items()
        },
        test_split="test",
        fewshot_split="train",
        prompt=ner_prompt(plural, (kind,)),
        read=partial(read, kind=kind),
        score=score_spans,
        conventions=(MENTIONS,),
    )


BC5CDR_CHEMICAL = _benchmark("Chemical", "chemicals and drugs", "BC5CDR-chem-IOB")
BC5CDR_DISEASE = _benchmark("Disease", "diseases", "BC5CDR-disease-IOB")
