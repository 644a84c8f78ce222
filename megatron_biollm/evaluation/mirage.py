"""Answers of GPT-3.5 and GPT-4 that MIRAGE has published, as predictions.

Xiong et al. 2024 (https://arxiv.org/abs/2402.13178), files at
https://github.com/Teddy-XiongGZ/MIRAGE, `prediction/*/cot/OpenAI`: for each question a JSON file
with a list of one generated text, `<model>/<split>_<question>.json`, in a folder or a tar archive.
The models saw the questions without abstracts or snippets. MIRAGE counts a text in which its rule
finds no letter as the first choice: the convention `unreadable: first`.
"""

import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Optional

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.accuracy import score_choices
from megatron_biollm.evaluation.answers import INDEX, Answer, Answers, Run, digest
from megatron_biollm.evaluation.asking import STORED, Asking
from megatron_biollm.evaluation.benchmark import Benchmark
from megatron_biollm.evaluation.choice_text import read_choice
from megatron_biollm.evaluation.items import ChoiceItem

_FIELD = re.compile(r'^.*"answer_choice": "', re.S)
# The order in which MIRAGE looks; the first that is found counts.
_RULES = tuple(
    re.compile(rule)
    for rule in (
        r"^\s*([A-D])$", r"^\s*([A-D]) or", r"^\s*([A-D]) and", r"^\s*([A-D])/", r"^\s*([A-D]),",
        r"[Oo]ption ([A-D])", r":\s*([A-D])", r"^\s*([A-D])\.", r'^\s*([A-D])"', r"^\s*([A-D]):",
    )
)  # fmt: skip


def mirage_choice(text: str, item: ChoiceItem) -> Optional[int]:
    """The choice that MIRAGE's rule finds in a text: of several letters the first, no words."""
    answer = _FIELD.sub("", text).strip()
    for rule in _RULES:
        found = rule.search(answer)
        if found:
            index = "ABCD".index(found[1])
            return index if index < len(item.choices) else None
    return None


READERS: Mapping[str, Callable[[str, ChoiceItem], Optional[int]]] = {
    "mirage": mirage_choice,
    "own": read_choice,
}


def stored_texts(path: Path, model: str, items: Sequence[ChoiceItem]) -> list[str]:
    """The text that a model wrote for each item; empty where the file holds none.

    Args:
        path: a folder or tar archive with a folder of the model in it; nothing is unpacked.
        model: as the folder is called, such as `gpt-4-32k`.

    Raises:
        UserError: no such file or model, a damaged archive, another format, an item without an
            answer, or answers to other questions.
    """
    texts = {_question(name): _text(data, name) for name, data in _files(path, model)}
    if not texts:
        raise UserError(f"{path} has no answers of {model!r}; name a folder in it")
    asked = {item.id for item in items}
    missing, other = sorted(asked - texts.keys()), sorted(texts.keys() - asked)
    if missing or other:
        raise UserError(
            f"{path}, {model}: {len(missing)} questions have no answer ({', '.join(missing[:3])}) "
            f"and {len(other)} answers no question ({', '.join(other[:3])}); give the answers to "
            f"this benchmark and split, whole"
        )
    return [texts[item.id] for item in items]


def closed_book(benchmark: Benchmark) -> dict[str, str]:
    """The conventions by which MIRAGE asked: every one with its value, and no context."""
    without = {one.name: "without" for one in benchmark.conventions if one.name == "context"}
    return benchmark.choose(without)


def open_folder(out: Path, model: str) -> Answers:
    """A folder of stored answers, those of an earlier import of the same model included.

    Raises:
        UserError: it holds another model's answers.
    """
    if not (out / INDEX).is_file():
        return Answers(out, {"name": model})
    answers = Answers.open(out)
    if answers.model != {"name": model}:
        raise UserError(
            f"{out} holds the answers of {answers.model.get('name')!r}, not of {model!r}; choose "
            f"another --out"
        )
    return answers


def import_answers(
    benchmark: Benchmark,
    items: Sequence[ChoiceItem],
    texts: Sequence[str],
    rule: str,
    answers: Answers,
) -> dict[str, str | int | float]:
    """Adds texts to a folder of stored answers, which tools/evaluate.py scores.

    Args:
        items: of the test split, read by the conventions of `closed_book`.
        rule: one of `READERS`, by which texts are read.

    Returns:
        Number of answers, of unreadable ones, and accuracy where these count as wrong or as the
        first choice.

    Raises:
        UserError: the file cannot be written.
    """
    predictions = [READERS[rule](text, item) for text, item in zip(texts, items, strict=True)]
    run = Run(
        benchmark.name,
        benchmark.test_split,
        closed_book(benchmark),
        Asking(method=STORED),
        items_sha256=digest(items),
    )
    rows = zip(items, texts, predictions, strict=True)
    answers.add(run, [Answer(item.id, chosen, (text,)) for item, text, chosen in rows])
    tally = score_choices(items, predictions)
    return {
        "benchmark": benchmark.name,
        "answers": tally.items,
        "unreadable": tally.unreadable,
        "accuracy_wrong": tally.value(),
        "accuracy_first": score_choices(items, predictions, "first").value(),
    }


def _question(name: str) -> str:
    """`medqa/gpt-4-32k/test_0000.json` -> `0000`."""
    return PurePosixPath(name).stem.partition("_")[2]


def _text(data: bytes, name: str) -> str:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise UserError(f"{name} is not JSON ({error}): download it again") from error
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise UserError(f"{name} holds {str(found)[:60]!r}; it must be a list of one text")
    return found[0] if found else ""


def _files(path: Path, model: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a model's files."""
    if not path.exists():
        raise UserError(
            f"{path} is missing; it is part of MIRAGE, prediction/*/cot/OpenAI "
            f"(https://github.com/Teddy-XiongGZ/MIRAGE): give the folder or an archive of it"
        )
    if path.is_dir():
        for file in sorted(path.glob(f"**/{model}/*.json")):
            yield str(file), file.read_bytes()
        return
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                inside = PurePosixPath(member.name)
                if member.isfile() and inside.suffix == ".json" and inside.parent.name == model:
                    yield f"{path}, {member.name}", archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is damaged ({reason}): download it again, whole") from error
