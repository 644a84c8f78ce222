"""HoC: which hallmarks of cancer an abstract is about; any number of ten.

Baker et al. 2016, https://doi.org/10.1093/bioinformatics/btv585, by document, with the split of
https://github.com/BIDS-Xu-Lab/Biomedical-NLP-Benchmarks.
"""

from collections.abc import Sequence

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import (
    Benchmark,
    Convention,
    Conventions,
    Prompt,
    Source,
)
from megatron_biollm.evaluation.files import read_text
from megatron_biollm.evaluation.items import LabelsItem, Prediction
from megatron_biollm.evaluation.labels import labels_tally
from megatron_biollm.evaluation.tally import Tally

HALLMARKS = (
    "sustaining proliferative signaling",
    "evading growth suppressors",
    "resisting cell death",
    "enabling replicative immortality",
    "inducing angiogenesis",
    "activating invasion and metastasis",
    "genomic instability and mutation",
    "tumor promoting inflammation",
    "cellular energetics",
    "avoiding immune destruction",
)
AVERAGE = Convention(
    "average",
    ("micro", "example", "macro"),
    "micro: F1 over all labels together, as BLURB; example: the mean of the abstracts' F1, as "
    "BLUE; macro: the mean of the labels' F1",
)
_HEADER = ["pmid", "text", "labels"]


def read(source: Source, conventions: Conventions) -> list[LabelsItem]:
    """The abstracts of a split.

    Raises:
        UserError: the file is missing or not as published.
    """
    path = source.path("abstracts")
    header, *lines = read_text(path).split("\n")
    if header.rstrip("\r").split("\t") != _HEADER:
        raise UserError(f"{path}:1 is {header!r:.80}; it must be {'<tab>'.join(_HEADER)}")
    rows = enumerate((line.rstrip("\r") for line in lines), 2)
    return [_item(line.split("\t"), f"{path}:{number}") for number, line in rows if line]


def _item(row: list[str], where: str) -> LabelsItem:
    if len(row) != len(_HEADER):
        raise UserError(f"{where} has {len(row)} columns; it must have {', '.join(_HEADER)}")
    labels = tuple(name.strip() for name in row[2].split(";") if name.strip())
    for name in labels:
        if name not in HALLMARKS:
            raise UserError(f"{where} has the label {name!r}; there are {', '.join(HALLMARKS)}")
    return LabelsItem(row[0], row[0], row[1], HALLMARKS, labels)


def score(
    items: Sequence[LabelsItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """F1 of the labels, averaged as the convention says."""
    return labels_tally(items, predictions, f"{conventions['average']}_f1", HALLMARKS)


HOC = Benchmark(
    name="hoc",
    title="HoC",
    task="extra",
    folder="extra_hoc",
    download=(
        "the Hallmarks of Cancer corpus (https://github.com/BIDS-Xu-Lab/"
        "Biomedical-NLP-Benchmarks, benchmarks/[MLC]HoC/datasets/full_set)"
    ),
    splits={split: {"abstracts": f"{split}.tsv"} for split in ("test", "dev", "train")},
    test_split="test",
    fewshot_split="train",
    prompt=Prompt(
        "Which hallmarks of cancer is the abstract about? Name all that apply, with commas "
        "between, or none.",
        (
            "Label the abstract with every hallmark of cancer that it discusses, with commas "
            "between; answer none if it discusses none.",
            "Choose the hallmarks of cancer that the following abstract reports on. Separate them "
            "by commas, or write none.",
        ),
    ),
    read=read,
    score=score,
    conventions=(AVERAGE,),
)
