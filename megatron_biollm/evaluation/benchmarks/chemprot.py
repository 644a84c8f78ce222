"""ChemProt: what chemicals do to genes and proteins, in sentences of PubMed abstracts.

BioCreative VI, Krallinger et al. 2017 (https://biocreative.bioinformatics.udel.edu/tasks/
biocreative-vi/track-5/). Five groups of relations are scored.
"""

from collections.abc import Sequence

from megatron_biollm.evaluation.benchmark import (
    Benchmark,
    Convention,
    Conventions,
    Prompt,
    Source,
)
from megatron_biollm.evaluation.benchmarks.chemical_pairs import NO_RELATION, read_pairs
from megatron_biollm.evaluation.benchmarks.pairs import SHOWN
from megatron_biollm.evaluation.items import ChoiceItem, Prediction
from megatron_biollm.evaluation.relations import pair_tally
from megatron_biollm.evaluation.tally import Tally

# The groups that are scored, and what a model is told of them.
GROUPS = {
    "CPR:3": "upregulator or activator",
    "CPR:4": "downregulator or inhibitor",
    "CPR:5": "agonist",
    "CPR:6": "antagonist",
    "CPR:9": "substrate or product",
}
CHOICES = (NO_RELATION, *GROUPS.values())
AVERAGE = Convention(
    "average",
    ("micro", "macro"),
    "micro: F1 over the five groups together, as BioCreative VI and BLURB; macro: the mean of "
    "their F1, as Chen et al. 2025",
)


def read(source: Source, conventions: Conventions) -> list[ChoiceItem]:
    """The candidate pairs of a split.

    Raises:
        UserError: a file is missing or not as published.
    """
    return read_pairs(source, conventions["mentions"], GROUPS)


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
