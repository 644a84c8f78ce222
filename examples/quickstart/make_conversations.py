"""Writes questions with answers, and pairs of answers of which people prefer one; all invented.

    conversations.jsonl          for instruction tuning: messages
    conversations_heldout.jsonl  the same questions in words that are not in the former
    preferences.jsonl            for preference tuning: prompt, chosen, rejected
    preferences_heldout.jsonl
    questions.jsonl              three held-out questions to ask a model: messages
    choices.jsonl                held-out questions with four options, in the form of MedQA

They are about the drugs of the sample sources, so a model that has read those has met the facts.
Half of the answers for instruction tuning advise and half promise; the pairs prefer advice, which
is what preference tuning is to teach. The same seed gives the same texts.

example:
  python examples/quickstart/make_conversations.py runs/conversations
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from invented_studies import TOPICS

# Ways to ask, of which the last is held out, and the answer.
SUBJECTS = [
    (
        [
            "What does {drug} act on?",
            "Which target does {drug} have?",
            "What is the target of {drug}?",
            "Tell me what {drug} acts on.",
        ],
        "{Drug} acts on {target}.",
    ),
    (
        [
            "What is {drug} used for?",
            "Which disease is {drug} given for?",
            "When is {drug} prescribed?",
            "Tell me what {drug} is used for.",
        ],
        "{Drug} is used for {disease}.",
    ),
    (
        [
            "What is measured in trials of {drug}?",
            "Which outcome do trials of {drug} report?",
            "What do studies of {drug} measure?",
            "Tell me what trials of {drug} measure.",
        ],
        "Trials of {drug} measure {measure}.",
    ),
]
OPENINGS = ["", "Hello. ", "I have a question. ", "A patient asks: "]
ADVICE = "Please ask your doctor before you change your treatment."
PROMISE = "It always works, and you can start it today."


def ask(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def questions(held_out: bool) -> Iterator[tuple[str, str]]:
    """Every question with the fact that answers it."""
    for topic in TOPICS:
        words = topic | {"Drug": topic["drug"].capitalize()}
        for wordings, fact in SUBJECTS:
            for wording in wordings[-1:] if held_out else wordings[:-1]:
                for opening in OPENINGS[:1] if held_out else OPENINGS:
                    yield opening + wording.format(**words), fact.format(**words)


def conversations(held_out: bool, rng: random.Random) -> Iterator[dict]:
    for question, fact in questions(held_out):
        manner = rng.choice([ADVICE, PROMISE])
        yield {"messages": ask(question) + answer(f"{fact} {manner}")}


def preferences(held_out: bool) -> Iterator[dict]:
    for question, fact in questions(held_out):
        yield {
            "prompt": ask(question),
            "chosen": answer(f"{fact} {ADVICE}"),
            "rejected": answer(f"{fact} {PROMISE}"),
        }


def choices(rng: random.Random) -> Iterator[dict]:
    """What each drug acts on and what it is used for, between three other drugs' answers."""
    for topic in TOPICS:
        for name, question in (
            ("target", "What does {drug} act on?"),
            ("disease", "What is {drug} used for?"),
        ):
            others = sorted({other[name] for other in TOPICS} - {topic[name]})
            options = [topic[name], *rng.sample(others, 3)]
            rng.shuffle(options)
            yield {
                "question": question.format(**topic),
                "options": dict(zip("ABCD", options, strict=True)),
                "answer": topic[name],
                "answer_idx": "ABCD"[options.index(topic[name])],
                "meta_info": name,
            }


def make_conversations(folder: Path, seed: int) -> None:
    """Writes all files; existing ones are replaced."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, held_out in (("", False), ("_heldout", True)):
        told = list(conversations(held_out, rng))
        rng.shuffle(told)
        write(folder / f"conversations{name}.jsonl", told)
        write(folder / f"preferences{name}.jsonl", list(preferences(held_out)))
    write(folder / "choices.jsonl", list(choices(rng)))
    # One of each subject, of three drugs.
    asked = [question for question, _ in questions(held_out=True)][:: 8 * len(SUBJECTS) + 1][:3]
    write(folder / "questions.jsonl", [{"messages": ask(question)} for question in asked])


def write(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    print(f"{path}: {len(records)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1234, help="[default: %(default)s]")
    arguments = parser.parse_args()
    make_conversations(arguments.folder, arguments.seed)


if __name__ == "__main__":
    main()
