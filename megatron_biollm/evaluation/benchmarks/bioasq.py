"""BioASQ, task B: the questions of experts that are answered with yes or no.

Tsatsaronis et al. 2015 (https://doi.org/10.1186/s12859-015-0564-6), files at
http://participants-area.bioasq.org (free registration): golden answers of each batch of a task.
The test split is that of MIRAGE, the golden batches of tasks 7B to 11B (2019 to 2023); task 7B
alone is the test split of BLURB.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.accuracy import UNREADABLE, headline, score_choices
from megatron_biollm.evaluation.benchmark import Benchmark, Convention, Conventions, Prompt, Source
from megatron_biollm.evaluation.files import field, read_json
from megatron_biollm.evaluation.items import ChoiceItem, Prediction
from megatron_biollm.evaluation.tally import Tally

# Batches of each task.
BATCHES = {"7B": 5, "8B": 5, "9B": 5, "10B": 6, "11B": 4}
_LABELS = ("yes", "no")
CONTEXT = Convention(
    "context",
    ("without", "with"),
    "the question alone (MIRAGE), or with the snippets that experts have found (BLURB)",
)
_METRIC = Convention(
    "metric",
    ("accuracy", "macro_f1"),
    "accuracy (MIRAGE, BLURB), or the mean of the F1 of yes and of no (official since task 6B)",
)


def questions(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every question of the files of all roles, of any type, with where it is from.

    Raises:
        UserError: another format, or a question twice.
    """
    seen: dict[str, Path] = {}
    for path in map(source.path, source.paths):
        for row in field(read_json(path), "questions", list, str(path)):
            name = field(row, "id", str, f"{path}, a question")
            if name in seen:
                raise UserError(
                    f"{path}: question {name} is in {seen[name]} too; name each file once, and no "
                    f"training file that holds earlier test batches"
                )
            seen[name] = path
            yield f"{path}, {name}", row


def read(source: Source, conventions: Conventions) -> list[ChoiceItem]:
    """The questions of type `yesno`, by their own ids.

    Raises:
        UserError: as `questions`, an answer that is neither yes nor no, or no such question.
    """
    rows = [(w, row) for w, row in questions(source) if field(row, "type", str, w) == "yesno"]
    if not rows:
        raise UserError(
            f"{', '.join(map(str, source.paths.values()))}: no question is of type 'yesno'; give "
            f"files with golden answers"
        )
    return [_item(row, conventions["context"] == "with", where) for where, row in rows]


def score(
    items: Sequence[ChoiceItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """Accuracy, and the macro-F1 of yes and no."""
    tally = score_choices(items, predictions, conventions["unreadable"], _LABELS)
    return headline(tally, conventions["metric"])


def snippets(row: dict[str, Any], where: str) -> str:
    """The passages that experts have found for a question, one a line."""
    found = row.get("snippets") or []
    return "\n".join(field(one, "text", str, where).strip() for one in found)


def _item(row: dict[str, Any], context: bool, where: str) -> ChoiceItem:
    # One golden answer is spelled with a capital letter.
    answer = field(row, "exact_answer", str, where).lower().strip(" .")
    if answer not in _LABELS:
        raise UserError(f"{where}: the answer is {answer!r:.40}; it must be yes or no")
    return ChoiceItem(
        id=row["id"],
        document=row["id"],
        question=field(row, "body", str, where).strip(),
        choices=_LABELS,
        answer=_LABELS.index(answer),
        context=snippets(row, where) if context else "",
    )


def _golden(task: str) -> dict[str, str]:
    return {
        f"{task}{batch}": f"Task{task}GoldenEnriched/{task}{batch}_golden.json"
        for batch in range(1, BATCHES[task] + 1)
    }


SPLITS = {
    "test": {role: path for task in BATCHES for role, path in _golden(task).items()},
    **{task: _golden(task) for task in BATCHES},
    # The training file of a later task holds the golden answers of earlier ones.
    "train": {"questions": "BioASQ-training6b/BioASQ-trainingDataset6b.json"},
    "other": {"questions": ""},
}
DOWNLOAD = "BioASQ task B (registration at http://participants-area.bioasq.org/datasets)"
BIOASQ = Benchmark(
    name="bioasq",
    title="BioASQ yes/no",
    task="qa",
    folder="bioasq",
    download=DOWNLOAD,
    splits=SPLITS,
    test_split="test",
    fewshot_split="train",
    prompt=Prompt(
        "You are an expert in biomedicine. Answer the question of a colleague with yes or no.",
        (
            "The following biomedical question can be answered with yes or no. Give that one word.",
            "Say whether the following is so: yes or no.",
        ),
    ),
    read=read,
    score=score,
    conventions=(CONTEXT, _METRIC, UNREADABLE),
)
