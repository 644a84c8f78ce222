"""What was added to a tokenizer, and the start of the embedding rows that it needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_biollm.tokenizer.tokenizer import EXTENSION_FILE

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Extension:
    """Stored as extension.json beside the files of the extended tokenizer.

    base_sha256, base_vocab_size: of the tokenizer that was extended.
    sub_ids: one list per new id, base_vocab_size first: the base ids which spell the new piece.
    """

    base_sha256: str
    base_vocab_size: int
    sub_ids: list[list[int]]


def load_extension(folder: str | Path) -> Extension | None:
    """What extension.json in a tokenizer's folder says; None where there is none."""
    file = Path(folder) / EXTENSION_FILE
    return Extension(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def mean_of_subtokens(weight: torch.Tensor, sub_ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """First embedding rows of new tokens: the mean of the rows that spelt them before.

    For input and output rows (https://nlp.stanford.edu/~johnhew/vocab-expansion.html): a new
    output row of that kind gives the new token about the probability of its parts, where a random
    one may take it from all other tokens.

    Args:
        weight: [base_vocab_size or more, hidden_size], input or output embedding of the base.
        sub_ids: base ids per new token, none empty (`Extension.sub_ids`).

    Returns:
        [len(sub_ids), hidden_size] in the dtype of `weight`; averaged in float32.
    """
    import torch  # takes seconds, and tools that only read a manifest import this file

    rows = [weight[list(ids)].float().mean(dim=0) for ids in sub_ids]
    if not rows:
        return weight.new_empty(0, weight.shape[1])
    return torch.stack(rows).to(weight.dtype)
