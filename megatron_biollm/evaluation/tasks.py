"""Benchmarks as tasks of lm-evaluation-harness, which asks any of its models.

Imports lm-eval, which takes seconds: `offline.prepare_lm_eval` comes before it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

from lm_eval.api.filter import FilterEnsemble
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import Task
from lm_eval.config.task import TaskConfig
from lm_eval.evaluator import evaluate

from megatron_biollm.evaluation.answers import Answer
from megatron_biollm.evaluation.asking import ROLLING, Asking
from megatron_biollm.evaluation.benchmark import Benchmark, Conventions
from megatron_biollm.evaluation.fewshot import Examples
from megatron_biollm.evaluation.items import AnyItem, DocumentItem
from megatron_biollm.evaluation.prompts import (
    max_gen_toks,
    method_of,
    read_answers,
    stops,
    wording,
)
from megatron_biollm.log import get_logger

logger = get_logger(__name__)
Doc = dict[str, Any]
STORED_PROMPTS = 3
_OUTPUT_TYPES = {"likelihood": "multiple_choice", ROLLING: "loglikelihood_rolling"}


@dataclass(frozen=True)
class Asked:
    """One benchmark with what is asked of it.

    Attributes:
        benchmark: what is scored.
        items: that are asked, in order.
        conventions: every one with its value.
        asking: how.
        examples: for the prompts.
    """

    benchmark: Benchmark
    items: Sequence[AnyItem]
    conventions: Conventions
    asking: Asking
    examples: Examples


@dataclass(frozen=True)
class Room:
    """What the context of a model holds.

    Attributes:
        fits: whether a prompt leaves room for an answer of so many tokens.
        longest: most tokens of an answer.
        tokens: how many a text has.
    """

    fits: Callable[[str, int], bool]
    longest: int
    tokens: Callable[[str], int] = len


class BenchmarkTask(Task):
    """A benchmark as lm-eval runs it: documents are its items, by number.

    Args:
        asked: the benchmark.
        room: of the model; examples that do not fit are left out, those first that stand farthest
            from the question.

    Attributes:
        shortened: prompts that lost examples. too_long: prompts that do not fit without any, of
            which the model will not see the beginning.
    """

    VERSION = 1

    def __init__(self, asked: Asked, room: Room) -> None:
        self.asked, self.room = asked, room
        self.words = wording(asked.benchmark, asked.items, asked.asking)
        self.method = method_of(asked.asking, asked.items[0])
        self.OUTPUT_TYPE = _OUTPUT_TYPES.get(self.method, "generate_until")
        self.shortened, self.too_long = 0, 0
        self._instances: list[Instance] = []
        # Every answer of a question comes back, not the first alone.
        self._filters = [FilterEnsemble("all", [])]
        self._config = TaskConfig(
            task=asked.benchmark.name,
            num_fewshot=asked.asking.num_fewshot,
            repeats=asked.asking.samples if self.method == "cot" else 1,
            output_type=self.OUTPUT_TYPE,
            generation_kwargs=self._gen_kwargs() if self.writes else None,
        )

    @property
    def writes(self) -> bool:
        """Whether answers are texts."""
        return self.OUTPUT_TYPE == "generate_until"

    def build_all_requests(
        self,
        *,
        limit: Optional[int] = None,
        apply_chat_template: bool = False,
        chat_template: Optional[Callable] = None,
        **_: Any,
    ) -> None:
        """Makes the requests of every item."""
        template = chat_template if apply_chat_template else None
        self._instances = [
            instance
            for number, doc in self.doc_iterator(limit=limit)
            for instance in self.construct_requests(
                doc,
                self.prompt(self.asked.items[doc["number"]], template),
                metadata=(self.task_name, number, self.config.repeats),
            )
        ]

    def prompt(self, item: AnyItem, template: Optional[Callable] = None) -> str:
        """What the model reads of an item, with as many examples as fit."""
        examples = self.asked.examples.of(item)
        answer = self._longest_answer(item)
        for left_out in range(len(examples) + 1):
            text = self._written(item, examples[left_out:], template)
            if self.room.fits(text, answer):
                self.shortened += left_out > 0
                return text
        self.too_long += 1
        return text

    def construct_requests(self, doc: Doc, ctx: str, **kwargs: Any) -> list[Instance]:
        """One request for each choice, or one for a text to write."""
        metadata, item = kwargs["metadata"], self.asked.items[doc["number"]]
        if self.method != "likelihood":
            arguments = (ctx, self._gen_kwargs())
            return [Instance("generate_until", doc, arguments, 0, metadata)]
        gap = "" if self.asked.asking.chat else " "
        return [
            Instance("loglikelihood", doc, (ctx, gap + choice), number, metadata)
            for number, choice in enumerate(self.words.choices(item))
        ]

    def process_results(self, doc: Doc, results: list) -> dict[str, Answer]:
        """The answer to an item."""
        item = self.asked.items[doc["number"]]
        if self.method != "likelihood":
            (texts,) = results
            return {"answer": Answer(item.id, read_answers(texts, item), tuple(texts))}
        values = [value for ((value, _),) in results]
        if self.asked.asking.normalise == "characters":
            lengths = [len(choice) for choice in self.words.choices(item)]
            values = [value / length for value, length in zip(values, lengths, strict=True)]
        best = max(range(len(values)), key=values.__getitem__)
        return {"answer": Answer(item.id, best, (), tuple(values))}

    def aggregation(self) -> dict[str, Callable[[list[Answer]], float]]:
        """The benchmark's own score."""
        return {"answer": self._score}

    def higher_is_better(self) -> dict[str, bool]:
        """Scores are."""
        return {"answer": True}

    def test_docs(self) -> list[Doc]:
        """Numbers and names of the items."""
        return [{"number": i, "id": one.id} for i, one in enumerate(self.asked.items)]

    def has_training_docs(self) -> bool:
        """Examples are chosen elsewhere."""
        return False

    def has_validation_docs(self) -> bool:
        """What is scored is the test split, whatever its name."""
        return False

    def has_test_docs(self) -> bool:
        """The items."""
        return True

    def doc_to_text(self, doc: Doc) -> str:
        """The question without instruction and examples."""
        return self.words.question(self.asked.items[doc["number"]])

    def doc_to_target(self, doc: Doc) -> str:
        """The right answer as a model should write it."""
        return self.words.answer(self.asked.items[doc["number"]])

    def _written(
        self, item: AnyItem, examples: Sequence[AnyItem], template: Optional[Callable]
    ) -> str:
        if template is None:
            return self.words.plain(item, examples)
        return template(self.words.messages(item, examples))

    def _longest_answer(self, item: AnyItem) -> int:
        if self.method == "likelihood":
            asked = max(len(choice) for choice in self.words.choices(item))
        else:
            asked = max_gen_toks(item, self.asked.asking, self.words)
        return min(asked, self.room.longest)

    def _gen_kwargs(self) -> dict[str, Any]:
        asking, first = self.asked.asking, self.asked.items[0]
        sampled = asking.samples > 1
        return {
            "until": stops(first, asking, self.words),
            "max_gen_toks": self._longest_answer(first),
            "do_sample": sampled,
            "temperature": asking.temperature if sampled else 0.0,
        }

    def _score(self, answers: list[Answer]) -> float:
        predictions = [one.prediction for one in answers]
        asked = self.asked
        return asked.benchmark.score(asked.items, predictions, asked.conventions).value()


class TextsTask(BenchmarkTask):
    """Texts that a model foretells: no prompt, no examples, no chat template."""

    def prompt(self, item: AnyItem, template: Optional[Callable] = None) -> str:
        """The text itself."""
        return item.text

    def construct_requests(self, doc: Doc, ctx: str, **kwargs: Any) -> list[Instance]:
        """One for the whole text."""
        return [Instance("loglikelihood_rolling", doc, (ctx,), 0, kwargs["metadata"])]

    def process_results(self, doc: Doc, results: list) -> dict[str, Answer]:
        """The text's log-likelihood and number of tokens."""
        ((total,),) = results
        item = self.asked.items[doc["number"]]
        return {"answer": Answer(item.id, (float(total), self.room.tokens(item.text)))}

    def doc_to_text(self, doc: Doc) -> str:
        """Nothing stands before a text."""
        return ""

    def doc_to_target(self, doc: Doc) -> str:
        """The text."""
        return self.asked.items[doc["number"]].text


def ask(model: TemplateLM, asked: Asked) -> tuple[list[Answer], BenchmarkTask]:
    """The answers of a model to a benchmark, in the order of its items, and the task that asked.

    Args:
        model: of lm-eval, such as `HarnessModel`; ranks that share one call this alike.
    """
    kind = TextsTask if isinstance(asked.items[0], DocumentItem) else BenchmarkTask
    task = kind(asked, room_of(model))
    wanted = max_gen_toks(asked.items[0], asked.asking, task.words) if task.writes else 0
    if wanted > task.room.longest:
        logger.warning(
            "%s: answers of %d tokens are due, and the model's context is %d; %d are written",
            task.task_name, wanted, model.max_length, task.room.longest,
        )  # fmt: skip
    found = evaluate(
        model,
        {task.task_name: task},
        bootstrap_iters=0,
        apply_chat_template=asked.asking.chat,
    )
    answers = []
    for number, row in enumerate(found["samples"][task.task_name]):
        stored = number < STORED_PROMPTS and task.method != ROLLING
        answers.append(replace(row["answer"], prompt=row["arguments"][0][0] if stored else ""))
    return answers, task


def room_of(model: TemplateLM) -> Room:
    """Half of a model's context is for answers at most, the rest for prompts."""

    def fits(text: str, answer: int) -> bool:
        # A token has at least one byte, so most texts need not be encoded; two more may be added.
        most = len(text.encode(errors="surrogatepass")) + 2
        if most + answer > model.max_length:
            most = len(model.tok_encode(text))
        return most + answer <= model.max_length

    return Room(fits, model.max_length // 2, lambda text: len(model.tok_encode(text)))
