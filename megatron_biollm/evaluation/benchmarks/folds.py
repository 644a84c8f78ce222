"""GAD and EU-ADR: whether a sentence says that a gene and a disease are associated.

Bravo et al. 2015, https://doi.org/10.1186/s12859-015-0472-9, and van Mulligen et al. 2012,
https://doi.org/10.1016/j.jbi.2012.04.004, as BioBERT published them: ten folds of sentences whose
gene and disease are masked. Sentences do not tell their articles, so each is its own document.
BLURB scores the first fold of GAD, and takes the last 535 of its 4,796 sentences for development;
BioBERT means over ten folds.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import (
    Benchmark,
    Convention,
    Conventions,
    Prompt,
    Source,
)
from megatron_biollm.evaluation.f1 import (
    COUNTS,
    flat,
    macro_found,
    precision,
    recall,
)
from megatron_biollm.evaluation.files import read_text
from megatron_biollm.evaluation.items import ChoiceItem, Prediction
from megatron_biollm.evaluation.relations import counted
from megatron_biollm.evaluation.tally import Tally, need_one_each

CHOICES = ("not associated", "associated")
FOLDS = tuple(str(fold) for fold in range(1, 11))
_HEADER = ["index", "sentence", "label"]
_ONE = "1: F1 of the first fold, as BLURB of GAD"
_TEN = "10: the mean of the F1 of ten folds, as BioBERT"


def read(source: Source, conventions: Conventions, development: int) -> list[ChoiceItem]:
    """The sentences of the split's first fold, or of all ten.

    Args:
        development: how many sentences at the end of a training file are for development.

    Raises:
        UserError: a file is missing or not as published.
    """
    items = []
    for fold in FOLDS[: int(conventions["folds"])]:
        path = source.path(f"fold{fold}")
        rows = list(_rows(path))
        if not rows:
            raise UserError(f"{path} has no sentence; it must have a sentence and 0 or 1 a line")
        cut = max(0, len(rows) - development)
        part = {"train": rows[:cut], "dev": rows[cut:]}.get(source.split, rows)
        items += [_item(fold, *row) for row in part]
    return items


def _item(fold: str, number: int, sentence: str, answer: int) -> ChoiceItem:
    name = f"{fold}.{number}"
    return ChoiceItem(name, name, sentence, CHOICES, answer, group=f"fold {fold}")


def _rows(path: Path) -> Iterator[tuple[int, str, int]]:
    """Line, sentence, label; a test file has a header and an index before each sentence."""
    columns = 2
    for number, line in enumerate(read_text(path).split("\n"), 1):
        row = line.rstrip("\r").split("\t")
        if number == 1 and row == _HEADER:
            columns = len(_HEADER)
        elif line.strip():
            if len(row) != columns or row[-1] not in ("0", "1"):
                raise UserError(
                    f"{path}:{number} is {line!r:.80}; it must be a sentence, a tab and 0 or 1, "
                    f"after an index where the first line is {'<tab>'.join(_HEADER)}"
                )
            yield number, row[-2], int(row[-1])


def score(
    items: Sequence[ChoiceItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """F1 of the associated pairs; of several folds, the mean of theirs.

    A fold of which a draw, a resample or a part of the items has no such pair, neither sought nor
    told, is left out of the mean: its F1 is not defined.

    Raises:
        UserError: not one prediction for each item.
    """
    need_one_each(items, predictions)
    groups = dict.fromkeys(one.group for one in items) or {"": None}
    folds = {name: place for place, name in enumerate(groups)}
    counts = np.zeros((len(items), len(folds), COUNTS))
    for row, (item, told) in enumerate(zip(items, predictions, strict=True)):
        if told not in (None, 0, 1):
            raise UserError(f"{item.id}: {told!r} is no choice; give 0, 1 or nothing")
        counts[row, folds[item.group]] = told == item.answer == 1, told == 1, item.answer == 1
    # The folds are not named: stored counts are understood without items, and tell how many.
    scores = {
        "f1": macro_found(),
        "precision": macro_found(precision),
        "recall": macro_found(recall),
    }
    return counted(items, predictions, flat(counts), scores)


def _benchmark(
    name: str, title: str, task: str, folder: str, standard: str, development: int
) -> Benchmark:
    other = "10" if standard == "1" else "1"
    training = {f"fold{fold}": f"{fold}/train.tsv" for fold in FOLDS}
    cut = {"dev": training} if development else {}
    return Benchmark(
        name=name,
        title=title,
        task=task,
        folder=folder,
        download=(
            f"{title} as BioBERT published it "
            f"(https://github.com/dmis-lab/biobert-pytorch, download.sh; datasets/RE)"
        ),
        splits={
            "test": {f"fold{fold}": f"{fold}/test.tsv" for fold in FOLDS},
            **cut,
            "train": training,
        },
        test_split="test",
        fewshot_split="train",
        prompt=Prompt(
            "Does the sentence say that the gene @GENE$ and the disease @DISEASE$ are associated? "
            "Answer associated or not associated.",
            (
                "Classify the relation between @GENE$ and @DISEASE$ in the sentence: associated "
                "or not associated.",
                "Read the sentence. Is the gene (@GENE$) associated with the disease (@DISEASE$), "
                "or not associated?",
            ),
        ),
        read=partial(read, development=development),
        score=score,
        conventions=(Convention("folds", (standard, other), f"{_ONE}; {_TEN}"),),
    )


GAD = _benchmark("gad", "GAD", "re", "gad", "1", development=535)
EUADR = _benchmark("euadr", "EU-ADR", "extra", "extra_euadr", "10", development=0)
