"""BioASQ, task B: questions answered by names (factoid, list) or by a short text (summary).

Files, splits and context as in `bioasq`. Ideal answers are scored by ROUGE; the official ROUGE-SU4
and manual scores are not computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Benchmark, Convention, Conventions, Prompt, Source
from megatron_biollm.evaluation.benchmarks.bioasq import (
    CONTEXT,
    DOWNLOAD,
    SPLITS,
    questions,
    snippets,
)
from megatron_biollm.evaluation.exact_answers import names_in, score_factoids, score_lists
from megatron_biollm.evaluation.files import field
from megatron_biollm.evaluation.items import Prediction, TextItem
from megatron_biollm.evaluation.summaries import STEMMER, score_texts
from megatron_biollm.evaluation.tally import Tally

Score = Callable[[Sequence[TextItem], Sequence[Prediction], Conventions], Tally]


def read(source: Source, conventions: Conventions, kind: str) -> list[TextItem]:
    """The questions of a type, by their own ids.

    Raises:
        UserError: another format, a question without an answer, or no question of the type.
    """
    rows = [(where, row) for where, row in questions(source) if row.get("type") == kind]
    if not rows:
        raise UserError(
            f"{', '.join(map(str, source.paths.values()))}: no question is of type {kind!r}; give "
            f"files with golden answers"
        )
    answers = _ideal if kind == "summary" else _exact
    return [_item(row, answers(row, where), conventions, where) for where, row in rows]


def _exact(row: dict[str, Any], where: str) -> tuple[str, ...]:
    """The answer as it should be written, then each entity's synonyms, one a line."""
    entities = field(row, "exact_answer", list, where)
    entities = [[one] if isinstance(one, str) else one for one in entities]
    if not entities or not all(isinstance(one, list) and names_in(_lines(one)) for one in entities):
        raise UserError(f"{where}: 'exact_answer' is {entities!r:.60}; it must be lists of names")
    first = entities[:1] if row["type"] == "factoid" else entities
    return (_lines([one[0] for one in first]), *map(_lines, entities))


def _ideal(row: dict[str, Any], where: str) -> tuple[str, ...]:
    texts = field(row, "ideal_answer", list, where)
    if not texts or not all(isinstance(one, str) and one.strip() for one in texts):
        raise UserError(f"{where}: 'ideal_answer' is {texts!r:.60}; it must be a list of texts")
    return tuple(one.strip() for one in texts)


def _lines(names: Sequence[Any]) -> str:
    return "\n".join(" ".join(str(one).split()) for one in names)


def _item(
    row: dict[str, Any], references: tuple[str, ...], conventions: Conventions, where: str
) -> TextItem:
    asked = field(row, "body", str, where).strip()
    if conventions["context"] == "with":
        asked = f"{snippets(row, where)}\n{asked}"
    return TextItem(row["id"], row["id"], asked, references)


def _score_factoids(
    items: Sequence[TextItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    return score_factoids(items, predictions)


def _score_lists(
    items: Sequence[TextItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    return score_lists(items, predictions)


def _score_summaries(
    items: Sequence[TextItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """ROUGE, of which BioASQ reports ROUGE-2."""
    tally = score_texts(items, predictions, conventions["stemmer"])
    return replace(tally, scores={"rouge2": tally.scores["rouge2"], **tally.scores})


def _benchmark(
    kind: str, prompt: Prompt, score: Score, conventions: tuple[Convention, ...] = ()
) -> Benchmark:
    return Benchmark(
        name=f"bioasq_{kind}",
        title=f"BioASQ {kind}",
        task="extra",
        folder="bioasq",
        download=DOWNLOAD,
        splits=SPLITS,
        test_split="test",
        fewshot_split="train",
        prompt=replace(prompt, text_name="Question", cue="Answer"),
        read=partial(read, kind=kind),
        score=score,
        conventions=(CONTEXT, *conventions),
    )


BIOASQ_FACTOID = _benchmark(
    "factoid",
    Prompt(
        "You are an expert in biomedicine. Answer the question with a name, number or short "
        "expression, and nothing else; if unsure, give up to five on lines of their own, the best "
        "first.",
        (
            "Give the short answer to this biomedical question: at most five names, one a line, "
            "the most likely first.",
            "Which name answers the question? Write it alone on a line; up to four others may "
            "follow.",
        ),
    ),
    _score_factoids,
)
BIOASQ_LIST = _benchmark(
    "list",
    Prompt(
        "You are an expert in biomedicine. Answer the question with a list of names, one a line, "
        "and nothing else.",
        (
            "List all that the question asks for, each on a line of its own.",
            "Which names answer the question? Write one on each line.",
        ),
    ),
    _score_lists,
)
BIOASQ_SUMMARY = _benchmark(
    "summary",
    Prompt(
        "You are an expert in biomedicine. Answer the question in one paragraph of at most 200 "
        "words.",
        (
            "Write a short paragraph that answers this biomedical question.",
            "Sum up for a colleague what is known about the question, in at most 200 words.",
        ),
    ),
    _score_summaries,
    (STEMMER,),
)
