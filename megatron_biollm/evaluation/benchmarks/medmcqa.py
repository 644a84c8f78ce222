"""MedMCQA: questions of the entrance examinations of Indian medical colleges.

Pal et al. 2022 (https://arxiv.org/abs/2203.14371), files at https://github.com/MedMCQA/MedMCQA.
Answers of the test set are not public: everybody reports the development set.
"""

from collections.abc import Sequence
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.accuracy import UNREADABLE, score_choices
from megatron_biollm.evaluation.benchmark import Benchmark, Convention, Conventions, Prompt, Source
from megatron_biollm.evaluation.files import field, filled, read_json_lines
from megatron_biollm.evaluation.items import ChoiceItem, Prediction
from megatron_biollm.evaluation.tally import Tally

_OPTIONS = ("opa", "opb", "opc", "opd")
_PUBLISHED = {"dev.json": 4183, "train.json": 182822}
_COP = Convention(
    "cop",
    ("1-based", "0-based"),
    "how `cop`, the correct option, is counted: from 1 in the original files, from 0 in the copy "
    "on the Hugging Face hub",
)


def read(source: Source, conventions: Conventions) -> list[ChoiceItem]:
    """The questions of a file, by their own ids.

    Raises:
        UserError: with file and line: another format, or a correct option that there is not.
    """
    path, base = source.path("questions"), int(conventions["cop"][0])
    return filled(
        [_item(row, base, where) for where, row in read_json_lines(path)], path, _PUBLISHED
    )


def score(
    items: Sequence[ChoiceItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """Accuracy, and of each subject."""
    return score_choices(items, predictions, conventions["unreadable"])


def _item(row: dict[str, Any], base: int, where: str) -> ChoiceItem:
    answer = field(row, "cop", int, where) - base
    if not 0 <= answer < len(_OPTIONS):
        raise UserError(
            f"{where}: the correct option is cop={row['cop']}, counted from {base}; it must be "
            f"{base} to {base + 3} (or say cop={1 - base}-based, if the file counts so)"
        )
    name = field(row, "id", str, where)
    return ChoiceItem(
        id=name,
        document=name,
        question=field(row, "question", str, where).strip(),
        choices=tuple(field(row, option, str, where).strip() for option in _OPTIONS),
        answer=answer,
        group=field(row, "subject_name", str, where),
    )


MEDMCQA = Benchmark(
    name="medmcqa",
    title="MedMCQA",
    task="qa",
    folder="medmcqa",
    download="MedMCQA, data.zip (https://github.com/MedMCQA/MedMCQA)",
    splits={"dev": {"questions": "dev.json"}, "train": {"questions": "train.json"}},
    test_split="dev",
    fewshot_split="train",
    prompt=Prompt(
        "You are a doctor sitting an entrance examination for medical specialists. Choose the "
        "best of the options and name its letter.",
        (
            "The following question of a medical entrance examination has one right option. Give "
            "its letter.",
            "Answer this multiple-choice question on medicine or dentistry with the letter of the "
            "correct option.",
        ),
    ),
    read=read,
    score=score,
    conventions=(_COP, UNREADABLE),
)
