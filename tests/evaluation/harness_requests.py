"""What models are asked in the tests of the adapter, and what lm-eval's own `hf` answers."""

import random

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

WORDS = (
    *("patients", "hepatitis", "were", "treated", "with", "interferon", "mg", "weeks", "cells"),
    *("liver", "express", "receptor", "expression", "after", "12.5", "β-catenin", "naïve"),
)
ENDS = [" treated", " with", " a", " the liver", ".", "\n", "interferon", " β", " of 120 patients"]


def requests(kind, arguments):
    return [Instance(kind, {}, pair, i, ("task", i, 1)) for i, pair in enumerate(arguments)]


def pairs():
    """Contexts and continuations: none, spaces at the border, shared ones, too long ones."""
    dice = random.Random(3)
    texts = [" ".join(dice.choices(WORDS, k=k)) for k in (1, 2, 3, 5, 8, 13, 40, 60)]
    made = [(text, end) for text in texts for end in ENDS]
    made += [(text + " ", "liver") for text in texts] + [("", end) for end in ENDS]
    return [*made, ("<s> Patients", " with"), (texts[2], texts[3]), ("Answer:\n\n", " A")]


def texts():
    """Some shorter than the context, some that take several windows."""
    dice = random.Random(4)
    return [(" ".join(dice.choices(WORDS, k=k)),) for k in (1, 5, 20, 60, 150)]


def prompts():
    dice = random.Random(5)
    starts = [" ".join(dice.choices(WORDS, k=k)) for k in (1, 2, 3, 5, 8, 30, 70)]
    greedy = {"until": ["\n\n"], "max_gen_toks": 20, "do_sample": False}
    until = {"until": ["e", " of"], "max_gen_toks": 12, "temperature": 0.0}
    return [(start, kwargs) for start in starts for kwargs in (greedy, until)] + [
        ("<s> Patients", greedy)
    ]


def answers(model):
    return (
        model.loglikelihood(requests("loglikelihood", pairs()), disable_tqdm=True),
        model.loglikelihood_rolling(requests("loglikelihood_rolling", texts()), disable_tqdm=True),
        model.generate_until(requests("generate_until", prompts()), disable_tqdm=True),
    )


def answers_of_hf(export):
    # One at a time: of a batch, `hf` asks its first text alone whether it brings its own BOS.
    return answers(HFLM(pretrained=str(export), device="cpu", dtype="float32", batch_size=1))
