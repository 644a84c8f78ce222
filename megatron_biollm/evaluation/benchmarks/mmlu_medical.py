"""MMLU-medical: the subjects of MMLU that concern medicine.

Hendrycks et al. 2021 (https://arxiv.org/abs/2009.03300), files in data.tar at
https://github.com/hendrycks/test: a table without a header for each subject and split.
"""

from collections.abc import Sequence
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.accuracy import UNREADABLE, headline, score_choices
from megatron_biollm.evaluation.benchmark import Benchmark, Convention, Conventions, Prompt, Source
from megatron_biollm.evaluation.files import filled, read_table
from megatron_biollm.evaluation.items import ChoiceItem, Prediction
from megatron_biollm.evaluation.tally import Tally

# Test questions of each subject: of the first six 1089, of all 1871.
_PUBLISHED = {
    "anatomy": 135, "clinical_knowledge": 265, "college_biology": 144, "college_medicine": 173,
    "medical_genetics": 100, "professional_medicine": 272,
    "high_school_biology": 310, "nutrition": 306, "virology": 166,
}  # fmt: skip
NINE_SUBJECTS = tuple(_PUBLISHED)
SIX_SUBJECTS = NINE_SUBJECTS[:6]
_SUBJECTS = Convention(
    "subjects",
    ("6", "9"),
    "6 subjects, 1089 test questions (Med-PaLM, MIRAGE, Open Medical-LLM leaderboard), or 9, 1871 "
    "(Meditron)",
)
_AVERAGE = Convention(
    "average",
    ("micro", "macro"),
    "over all questions, or the mean over subjects of their accuracies",
)
_LETTERS = "ABCD"


def read(source: Source, conventions: Conventions) -> list[ChoiceItem]:
    """The questions of a folder's files, `<subject>_<split>.csv`, subject by subject.

    Raises:
        UserError: a subject has no file, or with file and line: another format, an answer that is
            no letter from A to D.
    """
    folder = source.path("folder")
    subjects = NINE_SUBJECTS if conventions["subjects"] == "9" else SIX_SUBJECTS
    files = {subject: _file(folder, subject, source.download) for subject in subjects}
    return [item for subject, path in files.items() for item in _items(path, subject)]


def score(
    items: Sequence[ChoiceItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """Accuracy over questions and over subjects, and of each subject."""
    tally = score_choices(items, predictions, conventions["unreadable"], over_groups=True)
    return headline(tally, "group_accuracy") if conventions["average"] == "macro" else tally


def _file(folder: Path, subject: str, download: str) -> Path:
    found = sorted(folder.glob(f"{subject}_*.csv*"))
    if len(found) != 1:
        raise UserError(
            f"{folder} has {len(found)} files {subject}_*.csv; it must have one of each subject, "
            f"as in {download}"
        )
    return found[0]


def _items(path: Path, subject: str) -> list[ChoiceItem]:
    rows = enumerate(read_table(path, 6))
    items = [_item(row, f"{subject}/{place:04d}", subject, where) for place, (where, row) in rows]
    return filled(items, path, {f"{name}_test.csv": count for name, count in _PUBLISHED.items()})


def _item(row: list[str], name: str, subject: str, where: str) -> ChoiceItem:
    question, *choices, letter = row
    if letter not in tuple(_LETTERS):
        raise UserError(f"{where}: the answer is {letter!r:.40}; it must be A, B, C or D")
    return ChoiceItem(
        id=name,
        document=name,
        question=question.strip(),
        choices=tuple(choice.strip() for choice in choices),
        answer=_LETTERS.index(letter),
        group=subject,
    )


MMLU_MEDICAL = Benchmark(
    name="mmlu_medical",
    title="MMLU-medical",
    task="qa",
    folder="mmlu_medical",
    download="MMLU, data.tar (https://github.com/hendrycks/test)",
    splits={"test": {"folder": "test"}, "val": {"folder": "val"}, "dev": {"folder": "dev"}},
    test_split="test",
    fewshot_split="dev",
    fewshot_by_group=True,
    prompt=Prompt(
        "You know medicine and biology well. Pick the one right option of the following question "
        "and name its letter.",
        (
            "The following is a multiple-choice question from an examination in medicine or "
            "biology. Answer with a letter from A to D.",
            "Choose the correct option for this question and reply with its letter.",
        ),
    ),
    read=read,
    score=score,
    conventions=(_SUBJECTS, _AVERAGE, UNREADABLE),
)
