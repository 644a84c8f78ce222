"""A small benchmark of each kind of item, read from JSON lines, for what is the same of all."""

import json

from megatron_biollm.evaluation.accuracy import score_choices
from megatron_biollm.evaluation.benchmark import Benchmark, Convention, Prompt
from megatron_biollm.evaluation.entities import span_tally
from megatron_biollm.evaluation.files import read_json_lines
from megatron_biollm.evaluation.items import ChoiceItem, Span, SpanItem

ORGANS = ("liver", "heart", "kidney", "brain")


def read_questions(source, conventions):
    items = []
    for _, row in read_json_lines(source.path("questions")):
        items.append(ChoiceItem(row["id"], row["id"], row["question"], ORGANS, row["answer"]))
        if conventions["order"] == "shifted":
            items[-1] = ChoiceItem(
                row["id"], row["id"], row["question"], ORGANS[1:] + ORGANS[:1], row["answer"]
            )
    return items


def score_questions(items, predictions, conventions):
    return score_choices(items, predictions)


def score_sentences(items, predictions, conventions):
    return span_tally(items, predictions)


def read_sentences(source, conventions):
    return [
        SpanItem(row["id"], row["document"], row["text"], (Span(0, 5, "Drug"),), types=("Drug",))
        for _, row in read_json_lines(source.path("sentences"))
    ]


def benchmark(name, kind, role, read, score, conventions=()):
    return Benchmark(
        name=name,
        title=name.title(),
        task=kind,
        folder=name,
        download=f"the {name} files (https://example.org)",
        splits={split: {role: f"{split}.jsonl"} for split in ("test", "train")},
        test_split="test",
        fewshot_split="train",
        prompt=Prompt("Answer well.", ("Answer rightly.", "Say what is so.")),
        read=read,
        score=score,
        conventions=conventions,
    )


QUIZ = benchmark(
    "quiz",
    "qa",
    "questions",
    read_questions,
    score_questions,
    (Convention("order", ("usual", "shifted"), "of the choices"),),
)
DRUGS = benchmark(
    "drugs",
    "ner",
    "sentences",
    read_sentences,
    score_sentences,
)


def write_files(data):
    """12 questions and 6 sentences to answer; 4 and 2 for examples."""
    for split, count in (("test", 12), ("train", 4)):
        rows = [
            f'{{"id": "{split}{i}", "question": "Which organ has sign {split} {i}?", '
            f'"answer": {i % 4}}}'
            for i in range(count)
        ]
        write(data / "quiz" / f"{split}.jsonl", rows)
        rows = [
            f'{{"id": "{split}{i}", "document": "{split}{i // 2}", '
            f'"text": "Drug{i} was given in {split}."}}'
            for i in range(count // 2)
        ]
        write(data / "drugs" / f"{split}.jsonl", rows)
    return data


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines))


def write_medqa(data, count=8):
    """Questions in the form of MedQA's test file, below a data folder."""
    (data / "medqa").mkdir(parents=True)
    options = {"A": "liver", "B": "heart", "C": "kidney", "D": "brain"}
    rows = [
        {
            "question": f"Which organ has sign {i}?",
            "options": options,
            "answer": options["ABCD"[i % 4]],
            "answer_idx": "ABCD"[i % 4],
            "meta_info": "step1",
        }
        for i in range(count)
    ]
    path = data / "medqa" / "phrases_no_exclude_test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data
