"""PubMedQA: does an abstract's finding answer its title's question with yes, no or maybe?

Jin et al. 2019 (https://arxiv.org/abs/1909.06146), files at https://github.com/pubmedqa/pubmedqa:
`ori_pqal.json` with 1000 labelled questions, of which `test_ground_truth.json` names the 500 for
testing; the others are for training. A part that the project's own script has cut
(`test_set.json`, `pqal_fold0/dev_set.json`) is read from its path.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.accuracy import UNREADABLE, score_choices
from megatron_biollm.evaluation.benchmark import Benchmark, Convention, Conventions, Prompt, Source
from megatron_biollm.evaluation.files import field, filled, read_json
from megatron_biollm.evaluation.items import ChoiceItem, Prediction
from megatron_biollm.evaluation.tally import Tally

_LABELS = ("yes", "no", "maybe")
_CONTEXT = Convention(
    "context",
    ("with", "without"),
    "with the abstract, its conclusion left out (the paper's reasoning-required setting), or the "
    "question alone (MIRAGE)",
)


def read(source: Source, conventions: Conventions) -> list[ChoiceItem]:
    """The questions of a file by PubMed id; those that `labels` names, without those of `others`.

    Raises:
        UserError: with the file: another format, a label that is none, labels without a question.
    """
    path = source.path("questions")
    rows = _table(path)
    if "labels" in source.paths:
        rows = _labelled(rows, source.path("labels"), path)
    if "others" in source.paths:
        others = _table(source.path("others"))
        rows = {pmid: row for pmid, row in rows.items() if pmid not in others}
    context = conventions["context"] == "with"
    items = [_item(pmid, row, context, f"{path}, {pmid}") for pmid, row in rows.items()]
    return filled(items, path)


def score(
    items: Sequence[ChoiceItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """Accuracy and macro-F1 over yes, no and maybe."""
    return score_choices(items, predictions, conventions["unreadable"], _LABELS)


def _table(path: Path) -> dict[str, Any]:
    rows = read_json(path)
    if not isinstance(rows, dict) or not rows:
        raise UserError(f"{path} is no JSON object of PubMed ids; its format is not the published")
    return rows


def _labelled(rows: dict[str, Any], labels: Path, questions: Path) -> dict[str, Any]:
    """The rows that a file of labels names, in its order."""
    chosen = {}
    for pmid, label in _table(labels).items():
        row = rows.get(pmid)
        if not isinstance(row, dict) or row.get("final_decision") != label:
            found = row.get("final_decision") if isinstance(row, dict) else row
            raise UserError(
                f"{labels}: {pmid} is {label!r}, but {found!r} in {questions}; the two files must "
                f"be of one download"
            )
        chosen[pmid] = row
    return chosen


def _item(pmid: str, row: Any, context: bool, where: str) -> ChoiceItem:
    label = field(row, "final_decision", str, where)
    if label not in _LABELS:
        raise UserError(f"{where}: the label is {label!r}; it must be one of {', '.join(_LABELS)}")
    passages = field(row, "CONTEXTS", list, where)
    return ChoiceItem(
        id=pmid,
        document=pmid,
        question=field(row, "QUESTION", str, where),
        choices=_LABELS,
        answer=_LABELS.index(label),
        context="\n".join(map(str, passages)) if context else "",
    )


_FILES = {"questions": "ori_pqal.json"}
PUBMEDQA = Benchmark(
    name="pubmedqa",
    title="PubMedQA",
    task="qa",
    folder="pubmedqa",
    download="PubMedQA, data/ (https://github.com/pubmedqa/pubmedqa)",
    splits={
        "test": {**_FILES, "labels": "test_ground_truth.json"},
        "train": {**_FILES, "others": "test_ground_truth.json"},
        "all": _FILES,
    },
    test_split="test",
    fewshot_split="train",
    prompt=Prompt(
        "You are an expert in biomedical research. Judge from the abstract whether the answer to "
        "the question is yes, no or maybe, and give that one word.",
        (
            "Read the findings and answer the research question with one word: yes, no or maybe.",
            "Does the study support what is asked? Reply yes, no or, where it leaves that open, "
            "maybe.",
        ),
    ),
    read=read,
    score=score,
    conventions=(_CONTEXT, UNREADABLE),
)
