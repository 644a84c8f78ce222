"""Tokens against a target: what is unique, what would be repetition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.corpus.budget import token_shares
from megatron_biollm.corpus.config import SourceConfig

TARGET_TOKENS = 4e12
# 38 million PubMed records of 350 tokens, 7 million open-access articles of 5,300, half a million
# trials and 12 million US patents: the order of all unique public biomedical text.
PUBLIC_TOKENS = (1e11, 3e11)
# A 32,000-token LLaMA-2-style vocabulary gives 3.8 on PubMed abstracts, biomedical pieces more.
CHARACTERS_PER_TOKEN = 4.0


def estimate_tokens(characters: Mapping[str, int]) -> dict[str, int]:
    """Tokens by source of a corpus that is not encoded yet."""
    return {source: round(n / CHARACTERS_PER_TOKEN) for source, n in characters.items()}


def budget(
    tokens: Mapping[str, int], sources: Mapping[str, SourceConfig], train_tokens: float
) -> dict[str, Any] | None:
    """How a run of `train_tokens` would see the corpus; None where there is nothing to see.

    rows: by source, unique tokens, and what a run sees of them: once through the mixture as its
    epochs and budgets say, and stretched to `train_tokens`. Totals of the same.
    """
    try:
        natural = token_shares(tokens, sources)
        stretched = token_shares(tokens, sources, train_tokens)
    except UserError:
        return None
    rows = [
        {
            "source": once.source,
            "weight": once.weight,
            "unique": once.unique_tokens,
            "once": once.sampled_tokens,
            "once_epochs": once.epochs,
            "once_repeated": once.repeated_tokens,
            "sampled": long.sampled_tokens,
            "epochs": long.epochs,
            "repeated": long.repeated_tokens,
        }
        for once, long in zip(natural, stretched, strict=True)
    ]
    names = ("unique", "once", "once_repeated", "sampled", "repeated")
    totals = {name: sum(row[name] for row in rows) for name in names}
    seen = totals["sampled"] - totals["repeated"]
    return {"rows": rows, "target": train_tokens, "seen_unique": seen, **totals}
