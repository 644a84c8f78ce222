"""DrugProt: thirteen relations of chemicals and genes, in sentences of PubMed abstracts.

BioCreative VII, Miranda-Escalada et al. 2023, https://doi.org/10.1093/database/baad080. The
relations of the test set were never published, so the development set is scored; part of its
abstracts are ChemProt's test set.
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

TYPES = (
    "INDIRECT-DOWNREGULATOR", "INDIRECT-UPREGULATOR", "DIRECT-REGULATOR", "ACTIVATOR", "INHIBITOR",
    "AGONIST", "AGONIST-ACTIVATOR", "AGONIST-INHIBITOR", "ANTAGONIST", "PRODUCT-OF", "SUBSTRATE",
    "SUBSTRATE_PRODUCT-OF", "PART-OF",
)  # fmt: skip
RELATIONS = {name: name.lower().replace("_", " or ") for name in TYPES}
CHOICES = (NO_RELATION, *RELATIONS.values())
AVERAGE = Convention(
    "average",
    ("micro", "macro"),
    "micro: F1 over the thirteen relations together, as BioCreative VII; macro: the mean of "
    "their F1",
)


def read(source: Source, conventions: Conventions) -> list[ChoiceItem]:
    """The candidate pairs of a split.

    Raises:
        UserError: a file is missing or not as published.
    """
    return read_pairs(source, conventions["mentions"], RELATIONS)


def score(
    items: Sequence[ChoiceItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """F1 over the thirteen relations, averaged as the convention says."""
    return pair_tally(items, predictions, TYPES, f"{conventions['average']}_f1")


def _split(name: str) -> dict[str, str]:
    """Files by role; "abstracs" is how they are spelt."""
    start = f"drugprot-gs-training-development/{name}/drugprot_{name}"
    return {
        "abstracts": f"{start}_abstracs.tsv",
        "entities": f"{start}_entities.tsv",
        "gold": f"{start}_relations.tsv",
    }


DRUGPROT = Benchmark(
    name="drugprot",
    title="DrugProt",
    task="extra",
    folder="extra_drugprot",
    download=(
        "the DrugProt corpus (drugprot-gs-training-development.zip of "
        "https://zenodo.org/records/5119892)"
    ),
    splits={"dev": _split("development"), "train": _split("training")},
    test_split="dev",
    fewshot_split="train",
    prompt=Prompt(
        "What is the chemical to the gene or protein, as the sentence says? The two are "
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
