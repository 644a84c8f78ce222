"""A model's answers to benchmarks in a folder, from which it is scored, now or later.

    answers.json          who answered, and for each file what was asked and how
    medqa.s0p0.jsonl      {"id": ..., "prediction": ..., "text": ...}, a line for each item

A file name ends in the seed of the examples and the number of the instruction. Answers made
elsewhere need the JSONL alone, named `medqa.jsonl` after the benchmark: with `prediction` (what
`items` says of it, spans and triples as lists), or with `text` alone, which is then read.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.atomic import disk_errors, whole_file, write_json
from megatron_biollm.config import UserError
from megatron_biollm.evaluation.asking import Asking
from megatron_biollm.evaluation.files import read_json_lines
from megatron_biollm.evaluation.items import (
    AnyItem,
    ChoiceItem,
    DocumentItem,
    LabelsItem,
    NumberItem,
    Prediction,
    Span,
    SpanItem,
    TextItem,
)
from megatron_biollm.evaluation.prompts import read_answers

INDEX = "answers.json"
VERSION = 1


@dataclass(frozen=True)
class Answer:
    """What a model said to one item.

    Attributes:
        id: of the item.
        prediction: see `items`.
        texts: what it wrote; several for self-consistency, none where choices were weighed.
        log_likelihoods: of the choices, as they were compared.
        prompt: what it read; stored for the first items only.
    """

    id: str
    prediction: Prediction
    texts: tuple[str, ...] = ()
    log_likelihoods: tuple[float, ...] = ()
    prompt: str = ""


@dataclass(frozen=True)
class Run:
    """What was asked and how, for one file of answers.

    Attributes:
        benchmark, split: that was answered.
        conventions: every one with its value.
        asking: how it was asked.
        limit: the first so many items; None for all.
        files: that were read in place of the usual ones, by role.
        items_sha256: digest of the items, of which an answer is only worth anything together.
        shortened, too_long: prompts that lost examples, or their beginning too.
        seconds: that the answers took.
    """

    benchmark: str
    split: str
    conventions: Mapping[str, str]
    asking: Asking = field(default_factory=Asking)
    limit: Optional[int] = None
    files: Mapping[str, str] = field(default_factory=dict)
    items_sha256: str = ""
    shortened: int = 0
    too_long: int = 0
    seconds: float = 0.0

    @property
    def file(self) -> str:
        """Name of the answers' file."""
        return f"{self.benchmark}.s{self.asking.seed}p{self.asking.paraphrase}.jsonl"

    def same_as(self, other: "Run") -> bool:
        """Whether both ask the same; how long it took does not matter."""
        plain = {"shortened": 0, "too_long": 0, "seconds": 0.0}
        return replace(self, **plain) == replace(other, **plain)


class Answers:
    """A folder of answers. model: who gave them, as it will be shown and compared."""

    def __init__(self, folder: Path, model: Mapping[str, Any]) -> None:
        self.folder, self.model = folder, dict(model)
        self.runs: list[Run] = []

    @classmethod
    def open(cls, folder: Path) -> "Answers":
        """The answers in a folder.

        Raises:
            UserError: there are none, or their index is damaged.
        """
        path = folder / INDEX
        if not path.is_file():
            return cls._made_elsewhere(folder)
        try:
            stored = json.loads(path.read_bytes())
            if stored["version"] != VERSION:
                raise UserError(
                    f"{path} has version {stored['version']}, and this program reads {VERSION}; "
                    f"have the questions answered again"
                )
            answers = cls(folder, stored["model"])
            answers.runs = [_run(row) for row in stored["runs"]]
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{path} is damaged ({error!r}); have the questions answered again"
            ) from error
        return answers

    @classmethod
    def _made_elsewhere(cls, folder: Path) -> "Answers":
        files = sorted(folder.glob("*.jsonl"))
        if not files:
            raise UserError(
                f"{folder} holds neither {INDEX} nor BENCHMARK.jsonl; give a folder of answers"
            )
        answers = cls(folder, {"name": folder.name})
        answers.runs = [Run(file.name.split(".")[0], "", {}) for file in files]
        return answers

    def holds(self, run: Run) -> bool:
        """Whether the same was answered before."""
        return any(one.same_as(run) for one in self.runs)

    def add(self, run: Run, answers: Sequence[Answer]) -> None:
        """Writes the answers of a run, in place of those it replaces; the index comes last.

        Raises:
            UserError: the folder cannot be written.
        """
        with disk_errors(self.folder, "free some disk space and start again"):
            with whole_file(self.folder / run.file) as file:
                for one in answers:
                    row = json.dumps(_row(one), ensure_ascii=False)
                    file.write(row.encode(errors="surrogatepass") + b"\n")
            self.runs = [one for one in self.runs if one.file != run.file] + [run]
            rows = [asdict(one) for one in self.runs]
            write_json(self.folder / INDEX, {"version": VERSION, "model": self.model, "runs": rows})

    def predictions(self, run: Run, items: Sequence[AnyItem]) -> list[Prediction]:
        """The predictions for items, in their order.

        Raises:
            UserError: an item without an answer, an answer without an item or to other items, or
                one that is no answer to such an item.
        """
        path = self.folder / run.file
        if not path.is_file():
            path = self.folder / f"{run.benchmark}.jsonl"
        if run.items_sha256 and run.items_sha256 != digest(items):
            raise UserError(
                f"{path} answers other items than {run.benchmark} has now: its files, or how they "
                f"are read, have changed; have the questions answered again"
            )
        by_id = {one.id: one for one in items}
        found: dict[str, Prediction] = {}
        for where, row in read_json_lines(path):
            name = str(row.get("id"))
            if name not in by_id or name in found:
                problem = "a second time" if name in found else "which the split does not have"
                raise UserError(f"{where} answers item {name!r}, {problem}; check the split")
            found[name] = _prediction(row, by_id[name], where)
        missing = [one.id for one in items if one.id not in found]
        if missing:
            raise UserError(
                f"{path} has no answer to {len(missing)} of {len(items)} items, such as "
                f"{missing[0]!r}; score the items that were asked (--limit), or answer them all"
            )
        return [found[one.id] for one in items]


def digest(items: Sequence[AnyItem]) -> str:
    """Of all that is asked and its answers."""
    text = hashlib.sha256()
    for one in items:
        text.update(repr(one).encode(errors="surrogatepass"))
    return text.hexdigest()


def _row(answer: Answer) -> dict[str, Any]:
    row: dict[str, Any] = {"id": answer.id, "prediction": answer.prediction}
    if isinstance(answer.prediction, tuple):
        row["prediction"] = [
            [one.start, one.end, one.type] if isinstance(one, Span) else one
            for one in answer.prediction
        ]
    if len(answer.texts) == 1:
        row["text"] = answer.texts[0]
    elif answer.texts:
        row["texts"] = answer.texts
    if answer.log_likelihoods:
        row["log_likelihoods"] = answer.log_likelihoods
    return row | ({"prompt": answer.prompt} if answer.prompt else {})


def _run(row: dict[str, Any]) -> Run:
    known = {one.name for one in fields(Run)}
    if extra := sorted(set(row) - known):
        raise KeyError(f"unknown {', '.join(extra)}")
    return Run(**{**row, "asking": Asking(**row["asking"])})


def _prediction(row: dict[str, Any], item: AnyItem, where: str) -> Prediction:
    if "prediction" not in row:
        texts = row.get("texts", [row["text"]] if "text" in row else [])
        if isinstance(item, DocumentItem):
            raise UserError(
                f"{where} has no 'prediction'; of a text it is [log-likelihood, tokens]"
            )
        if not texts or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{where} has neither 'prediction' nor 'text'; it needs one of them")
        return read_answers(texts, item)
    value = row["prediction"]
    try:
        return None if value is None else _typed(value, item)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{where}: {value!r:.80} is no prediction for a {type(item).__name__} ({error})"
        ) from error


def _typed(value: Any, item: AnyItem) -> Prediction:
    """A value of JSON as the prediction for an item."""
    if isinstance(item, ChoiceItem):
        if not isinstance(value, int) or not 0 <= value < len(item.choices):
            raise ValueError(f"it must be 0 to {len(item.choices) - 1}")
        return value
    if isinstance(item, NumberItem):
        return float(value)
    if isinstance(item, TextItem):
        return str(value)
    if isinstance(item, SpanItem):
        return tuple(Span(int(start), int(end), str(kind)) for start, end, kind in value)
    if isinstance(item, DocumentItem):
        log_likelihood, tokens = value
        return float(log_likelihood), int(tokens)
    if isinstance(item, LabelsItem):
        return tuple(str(one) for one in value)
    return tuple(tuple(str(part) for part in one) for one in value)
