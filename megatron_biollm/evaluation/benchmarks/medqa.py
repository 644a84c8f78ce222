"""MedQA: questions of the United States medical licensing examination.

Jin et al. 2021 (https://arxiv.org/abs/2009.13081), files at https://github.com/jind11/MedQA:
`phrases_no_exclude_*.jsonl` with four options, which papers report, and `*.jsonl` with five. Also
read: the five options as tables of Chen et al. (https://github.com/BIDS-Xu-Lab/
Biomedical-NLP-Benchmarks), and the development set of MediQ (https://github.com/stellalisy/mediQ),
whose facts lie apart from the question.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.accuracy import UNREADABLE, score_choices
from megatron_biollm.evaluation.benchmark import Benchmark, Conventions, Prompt, Source
from megatron_biollm.evaluation.files import field, filled, read_json_lines, read_records
from megatron_biollm.evaluation.items import ChoiceItem, Prediction
from megatron_biollm.evaluation.tally import Tally

_COLUMNS = ("", "meta_info", "question", "answer_idx", "answer", "options")
_PUBLISHED = {
    "phrases_no_exclude_test.jsonl": 1273,
    "phrases_no_exclude_dev.jsonl": 1272,
    "phrases_no_exclude_train.jsonl": 10178,
}


def read(source: Source, conventions: Conventions) -> list[ChoiceItem]:
    """The questions of a file; `id` is the place in it, from 0, in four digits, as MIRAGE counts.

    Raises:
        UserError: with file and line: another format, or an answer that is no option.
    """
    path = source.path("questions")
    rows = _table_rows(path) if ".tsv" in path.suffixes else read_json_lines(path)
    items = [_item(row, f"{number:04d}", where) for number, (where, row) in enumerate(rows)]
    return filled(items, path, _PUBLISHED)


def score(
    items: Sequence[ChoiceItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """Accuracy, and of each examination step."""
    return score_choices(items, predictions, conventions["unreadable"])


def _table_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a table in the form of the JSON lines; options are written as a Python list."""
    for where, row in read_records(path, _COLUMNS, "\t"):
        try:
            listed = ast.literal_eval(row["options"])
            options = {one["key"]: one["value"] for one in listed}
        except (ValueError, SyntaxError, TypeError, KeyError) as error:
            raise UserError(
                f"{where}: the options are {row['options']!r:.80}; they must be a list of "
                f"{{'key': letter, 'value': text}}"
            ) from error
        yield where, {**row, "options": options}


def _item(row: dict[str, Any], name: str, where: str) -> ChoiceItem:
    options = field(row, "options", dict, where)
    answer = field(row, "answer_idx", str, where)
    if answer not in options or options[answer] != field(row, "answer", str, where):
        raise UserError(
            f"{where}: the answer {answer!r}, {row['answer']!r:.80}, is none of the options "
            f"{', '.join(options)}, or one with another text"
        )
    facts = field(row, "context", list, where) if "context" in row else []
    return ChoiceItem(
        id=name,
        document=name,
        question=" ".join([*facts, field(row, "question", str, where)]).strip(),
        choices=tuple(field(options, letter, str, where) for letter in options),
        answer=list(options).index(answer),
        group=str(row.get("meta_info", "")),
    )


MEDQA = Benchmark(
    name="medqa",
    title="MedQA",
    task="qa",
    folder="medqa",
    download="MedQA, data_clean/questions/US/4_options (https://github.com/jind11/MedQA)",
    splits={
        "test": {"questions": "phrases_no_exclude_test.jsonl"},
        "dev": {"questions": "phrases_no_exclude_dev.jsonl"},
        "train": {"questions": "phrases_no_exclude_train.jsonl"},
        "dev_mediq": {"questions": "mediq_all_dev_good.jsonl"},
        "test_5_options": {"questions": "5_options/test.tsv"},
        "dev_5_options": {"questions": "5_options/dev.tsv"},
        "train_5_options": {"questions": "5_options/train.tsv"},
    },
    test_split="test",
    fewshot_split="dev_mediq",
    prompt=Prompt(
        "You are a physician taking the licensing examination. Read the case, weigh the options "
        "and name the one that is best, with its letter.",
        (
            "Below is a multiple-choice question for doctors. Exactly one option is right: answer "
            "with its letter.",
            "Solve this examination question in clinical medicine. Reply with the letter of the "
            "correct option.",
        ),
    ),
    read=read,
    score=score,
    conventions=(UNREADABLE,),
)
