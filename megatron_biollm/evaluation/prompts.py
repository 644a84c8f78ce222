"""Items as text for a model, the answers expected of it, and what it wrote back as predictions."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.asking import ROLLING, Asking
from megatron_biollm.evaluation.benchmark import Benchmark
from megatron_biollm.evaluation.choice_text import read_choice, vote
from megatron_biollm.evaluation.items import (
    AnyItem,
    ChoiceItem,
    DocumentItem,
    LabelsItem,
    NumberItem,
    Prediction,
    SpanItem,
    TextItem,
    TripleItem,
)
from megatron_biollm.evaluation.span_text import read_spans, write_spans
from megatron_biollm.evaluation.triple_text import read_triples, write_triples

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NONE = "none"
STEPS = "Let's think step by step."
Messages = list[dict[str, str]]
_TEXT_NAMES = {"qa": "Question", "ner": "Sentence"}
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Wording:
    """How one benchmark's items are written.

    Attributes:
        instruction: said first.
        text_name: what the text of a question or a sentence is called.
        lettered: choices are named by letters, not by their own text.
        reasons: a chain of thought is asked for.
        answer_name: what the answer is called; empty for what is usual of its kind.
    """

    instruction: str
    text_name: str
    lettered: bool
    reasons: bool = False
    answer_name: str = ""

    def question(self, item: AnyItem) -> str:
        """What is asked, up to where the answer begins (`cue`)."""
        lines = [f"{self.text_name}: {_text(item)}"]
        if isinstance(item, ChoiceItem):
            lines = ([f"Context: {item.context}"] if item.context else []) + lines
            lines += self._choices(item)
        elif isinstance(item, LabelsItem):
            lines.append(f"Labels: {', '.join(item.choices)}")
        elif isinstance(item, TextItem) and item.group:
            lines = [f"Section: {item.group}", *lines]
        return "\n".join(lines)

    def cue(self, item: AnyItem) -> str:
        """The word that announces the answer, and what separates it from the answer."""
        name, gap = _CUES[type(item)]
        name = self.answer_name or name
        return f"{name}: {STEPS}" if self.reasons else f"{name}:{gap}"

    def answer(self, item: AnyItem) -> str:
        """The right answer, as a model should write it."""
        if isinstance(item, ChoiceItem):
            return self.choices(item)[item.answer]
        return _ANSWERS[type(item)](item)

    def choices(self, item: ChoiceItem) -> tuple[str, ...]:
        """What a model would write for each choice."""
        return tuple(LETTERS[: len(item.choices)]) if self.lettered else item.choices

    def plain(self, item: AnyItem, examples: Sequence[AnyItem] = ()) -> str:
        """The whole prompt for a model that continues texts; it ends with the cue.

        A gap of one space is left out at the end, since it belongs to the answer's first token.
        """
        shown = [f"{self.question(one)}\n{self.cue(one)}{self.answer(one)}" for one in examples]
        asked = f"{self.question(item)}\n{self.cue(item)}".rstrip(" ")
        return "\n\n".join([self.instruction, *shown, asked])

    def messages(self, item: AnyItem, examples: Sequence[AnyItem] = ()) -> Messages:
        """The same as a conversation, in which the model speaks next."""
        turns = [{"role": "system", "content": self.instruction}]
        for one in examples:
            turns.append({"role": "user", "content": self.question(one)})
            turns.append({"role": "assistant", "content": self.answer(one)})
        asked = self.question(item) + (f"\n{STEPS}" if self.reasons else "")
        return [*turns, {"role": "user", "content": asked}]

    def _choices(self, item: ChoiceItem) -> list[str]:
        if not self.lettered:
            return [f"Options: {', '.join(item.choices)}"]
        return [f"{LETTERS[i]}. {choice}" for i, choice in enumerate(item.choices)]


def wording(benchmark: Benchmark, items: Sequence[AnyItem], asking: Asking) -> Wording:
    """How the items of a benchmark are written; `items` are all of a split.

    Raises:
        UserError: the benchmark has no such paraphrase.
    """
    instructions = (benchmark.prompt.instruction, *benchmark.prompt.paraphrases)
    if asking.paraphrase >= len(instructions):
        raise UserError(
            f"{benchmark.name} has {len(instructions) - 1} paraphrases of its instruction, and "
            f"number {asking.paraphrase} is asked for; give 0 to {len(instructions) - 1}"
        )
    first = items[0]
    alike = isinstance(first, ChoiceItem) and len({one.choices for one in items}) == 1
    lettered = asking.continuation == "letter" or (asking.continuation == "auto" and not alike)
    return Wording(
        instruction=instructions[asking.paraphrase],
        text_name=benchmark.prompt.text_name or _TEXT_NAMES.get(benchmark.task, "Text"),
        lettered=lettered,
        reasons=method_of(asking, first) == "cot",
        answer_name=benchmark.prompt.cue,
    )


def method_of(asking: Asking, item: AnyItem) -> str:
    """The method in use: what has no choices is written in any case, but for whole texts."""
    if isinstance(item, DocumentItem):
        return ROLLING
    if not isinstance(item, ChoiceItem):
        return "generate"
    return "likelihood" if asking.method == "auto" else asking.method


def stops(item: AnyItem, asking: Asking, words: Wording) -> list[str]:
    """Texts that end an answer; a conversation ends by itself."""
    if asking.chat:
        return []
    if isinstance(item, TextItem) or words.reasons:
        return [f"\n\n{words.text_name}:", "\n\nContext:", "\n\nSection:"]
    return ["\n\n"] if _CUES[type(item)][1] == "\n" else ["\n"]


def max_gen_toks(item: AnyItem, asking: Asking, words: Wording) -> int:
    """Most tokens of an answer."""
    if asking.max_gen_toks or words.reasons:
        return asking.max_gen_toks or 512
    return 64 if asking.chat and isinstance(item, ChoiceItem) else _LENGTHS[type(item)]


def read_answer(text: str, item: AnyItem) -> Prediction:
    """What a model wrote, as a prediction; None where it cannot be read."""
    return _READERS[type(item)](text, item)


def read_answers(texts: Sequence[str], item: AnyItem) -> Prediction:
    """Several answers to one question: the one given most often, of choices; else the first."""
    if isinstance(item, ChoiceItem):
        return vote([read_choice(text, item) for text in texts])
    return read_answer(texts[0], item)


def _text(item: AnyItem) -> str:
    return item.question if isinstance(item, ChoiceItem) else item.text


def _write_labels(item: LabelsItem) -> str:
    return ", ".join(item.labels) or NONE


def _read_labels(text: str, item: LabelsItem) -> tuple[str, ...] | None:
    known = {label.casefold(): label for label in item.choices}
    named = [part.strip(" .\"'").casefold() for part in re.split(r"[,;\n]", text)]
    found = tuple(dict.fromkeys(known[name] for name in named if name in known))
    return found if found or NONE in named else None


def _read_number(text: str, item: NumberItem) -> float | None:
    found = _NUMBER.search(text.replace("\N{MINUS SIGN}", "-"))
    return float(found[0]) if found else None


def _read_text(text: str, item: TextItem) -> str | None:
    return text.strip() or None


# The word before an answer, and what separates them.
_CUES: dict[type, tuple[str, str]] = {
    ChoiceItem: ("Answer", " "),
    SpanItem: ("Mentions", "\n"),
    TripleItem: ("Relations", "\n"),
    TextItem: ("Note", "\n"),
    LabelsItem: ("Answer", " "),
    NumberItem: ("Value", " "),
}
_ANSWERS: dict[type, Callable] = {
    SpanItem: write_spans,
    TripleItem: write_triples,
    TextItem: lambda item: item.references[0],
    LabelsItem: _write_labels,
    NumberItem: lambda item: f"{item.value:g}",
}
_READERS: dict[type, Callable] = {
    ChoiceItem: read_choice,
    SpanItem: read_spans,
    TripleItem: read_triples,
    TextItem: _read_text,
    LabelsItem: _read_labels,
    NumberItem: _read_number,
}
_LENGTHS = {
    ChoiceItem: 16,
    SpanItem: 192,
    TripleItem: 256,
    TextItem: 512,
    LabelsItem: 48,
    NumberItem: 12,
}
