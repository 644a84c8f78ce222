"""Small scored models for tests of results and reports."""

import numpy as np

from megatron_biollm.evaluation.benchmark import Benchmark, Prompt
from megatron_biollm.evaluation.results import (
    Contamination,
    ModelResults,
    make_part,
    make_result,
)
from megatron_biollm.evaluation.tally import Tally


def accuracy(counts):
    return counts[..., 0] / np.maximum(counts[..., 1], 1)


def f1(counts):
    right, found, sought = (counts[..., column] for column in range(3))
    return 2 * right / np.maximum(found + sought, 1)


def answers(right, unreadable=0, parts=None) -> Tally:
    """One question a document."""
    right = np.asarray(right, float).reshape(-1)
    counts = np.stack([right, np.ones_like(right)], 1)
    names = tuple(f"q{n}" for n in range(len(right)))
    return Tally(names, counts, {"accuracy": accuracy}, len(right), unreadable, parts or {})


def mentions(share: float) -> Tally:
    """Thirty documents of ten mentions each."""
    right = np.random.default_rng(0).binomial(10, share, 30).astype(float)
    ten = np.full(30, 10.0)
    names = tuple(f"d{n}" for n in range(30))
    return Tally(names, np.stack([right, ten, ten], 1), {"f1": f1}, 90)


def benchmark(name: str, title: str, task: str) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        task=task,
        folder=name,
        download=title,
        splits={"test": {"items": "test.jsonl"}},
        test_split="test",
        fewshot_split="",
        prompt=Prompt("Answer."),
        read=lambda source, conventions: [],
        score=lambda items, predictions, conventions: answers(predictions),
    )


MEDQA = benchmark("medqa", "MedQA", "qa")
CHEMICAL = benchmark("bc5cdr_chemical", "BC5CDR-chemical", "ner")


def model(name: str, right: int, **more) -> ModelResults:
    """A model that answers `right` of a hundred questions, and finds as many of its mentions."""
    parts = {"step_1": answers(np.arange(40) < right // 2)}
    quiz = answers(np.arange(100) < right, unreadable=3, parts=parts)
    found = Contamination(
        0.5, ("pubmed_00",), make_part(answers([1, 0, 0])), make_part(answers([1, 1]))
    )
    asked = {"conventions": {"options": "4"}, "method": "likelihood", "chance": 0.25}
    asked |= {"contamination": found, "prompts": {"first": 0.4, "second": 0.5}, **more}
    ner = mentions(right / 100)
    results = (
        make_result(MEDQA, [quiz], **asked),
        make_result(CHEMICAL, [ner], conventions={}, method="generate", limit=30),
    )
    return ModelResults(name, results, {"step": 7}, {"medqa": quiz, "bc5cdr_chemical": ner})


def curve() -> list[dict]:
    """Rows of three checkpoints on two benchmarks."""
    return [
        {
            "step": step,
            "consumed_tokens": 1000 * step,
            "benchmark": name,
            "score": step / 100,
            "low": step / 100 - 0.05,
            "high": step / 100 + 0.05,
            "chance": 0.25 if name == "medqa" else None,
        }
        for step in (10, 20, 30)
        for name in ("medqa", "bc5cdr_chemical")
    ]
