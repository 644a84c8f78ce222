"""Which token comes next: pure functions of logits."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

import torch

from megatron_biollm.config import UserError


@dataclass(frozen=True)
class SamplingOptions:
    """How a continuation is chosen.

    Attributes:
        max_new_tokens: most tokens of a continuation.
        greedy: always the likeliest token; the rest is then without effect.
        temperature: divides the logits; below 1 sharpens, above 1 flattens.
        top_k: only the k likeliest tokens; 0 for all.
        top_p: only the likeliest tokens that together reach this probability; 1 for all.
        seed: the same seed gives the same text, in every layout and batch.
        stop_ids: tokens that end a continuation, beside the end of the document.
        ends: told all tokens of a continuation after each; True ends it, those told included.

    Raises:
        UserError: a number out of its range.
    """

    max_new_tokens: int = 128
    greedy: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 1234
    stop_ids: tuple[int, ...] = ()
    ends: Optional[Callable[[Sequence[int]], bool]] = None

    def __post_init__(self) -> None:
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (self.temperature > 0, "above 0; for the likeliest token use greedy"),
            "top_k": (self.top_k >= 0, "0 (all tokens) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1 (all tokens)"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise UserError(f"{name}={getattr(self, name)} must be {rule}")


def row_generators(seed: int, prompts: Sequence[Sequence[int]]) -> list[torch.Generator]:
    """A source of chance for each prompt, keyed by seed, prompt and its how-manieth copy.

    So a text does not depend on what else is in its batch, nor on the ranks that make it.
    """
    seen: Counter = Counter()
    generators = []
    for prompt in prompts:
        key = (seed, tuple(prompt), seen[tuple(prompt)])
        seen[tuple(prompt)] += 1
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
        generators.append(torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1))
    return generators


def choose(logits_v: torch.Tensor, options: SamplingOptions, generator: torch.Generator) -> int:
    """The next token of one row; -1 if the logits are not numbers.

    Args:
        logits_v: over the true vocabulary.
        options: how to choose.
        generator: of the row, on the CPU; one number is drawn from it unless greedy.
    """
    if torch.isnan(logits_v).any():
        return -1
    if options.greedy:
        return int(logits_v.argmax())
    # On the CPU in double precision: every device and layout then draws the same token, unless
    # their logits differ just where two tokens meet.
    probabilities_v = allowed_probabilities(logits_v.double().cpu(), options)
    cumulative_v = probabilities_v.cumsum(0)
    drawn = torch.rand((), generator=generator, dtype=torch.float64) * cumulative_v[-1]
    return int(torch.searchsorted(cumulative_v, drawn, right=True))


def allowed_probabilities(logits_v: torch.Tensor, options: SamplingOptions) -> torch.Tensor:
    """Probabilities after temperature, then top-k, then top-p; not normalised after the last."""
    logits_v = logits_v / options.temperature
    if 0 < options.top_k < logits_v.numel():
        smallest = logits_v.topk(options.top_k).values[-1]
        logits_v = logits_v.masked_fill(logits_v < smallest, float("-inf"))
    probabilities_v = logits_v.softmax(0)
    if options.top_p < 1:
        ordered, order = probabilities_v.sort(descending=True, stable=True)
        # A token stays if those before it have not reached top_p yet; so the first one always does.
        surplus = ordered.cumsum(0) - ordered >= options.top_p
        probabilities_v = probabilities_v.index_fill(0, order[surplus], 0.0)
    return probabilities_v
