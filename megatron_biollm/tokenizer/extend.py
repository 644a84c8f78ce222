"""Domain tokens for an existing BPE tokenizer, and the start of their embedding rows.

A new token is made by one merge behind all merges of the base. So ids of the base keep their
meaning, a text without new tokens keeps its ids, and a new token is the join of exactly two
pieces at the time it is added, whose base sub-tokens give its first embedding (the mean, for
input and output rows: https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer as Backend

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.tokenizer import (
    EXTENSION_FILE,
    HuggingFaceTokenizer,
    TokenizerConfig,
    build_tokenizer,
)


@dataclass(frozen=True)
class Extension:
    """What was added to a base tokenizer; stored as extension.json beside its files.

    base_sha256, base_vocab_size: of the tokenizer that was extended.
    sub_ids: one list per new id, base_vocab_size first: the base ids which spell the new token.
    """

    base_sha256: str
    base_vocab_size: int
    sub_ids: list[list[int]]


def extend_tokenizer(
    base_dir: str | Path, new_tokens: Sequence[str], output_dir: str | Path
) -> Extension:
    """Writes a copy of a Hugging Face BPE tokenizer with more tokens behind its own.

    Args:
        base_dir: folder of the base tokenizer.
        new_tokens: in the vocabulary's own spelling ("▁" before a word in LLaMA's). Ids follow
            the base's last one in this order.
        output_dir: folder to make; it appears only when complete.

    Returns:
        The `Extension`.

    Raises:
        UserError: base is not BPE, a token is known already, or is not one merge away; or
            `output_dir` exists and is not empty.
    """
    output = Path(output_dir)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(
            f"output {output} exists and is not an empty folder; give another name or remove it"
        )
    base = build_tokenizer(TokenizerConfig(tokenizer_model=str(base_dir)))
    state = json.loads(base.transformers_tokenizer.backend_tokenizer.to_str())
    extension = _extend(base, state, new_tokens)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as staging:
        folder = Path(staging) / "new"
        base.save_pretrained(folder)
        Backend.from_str(json.dumps(state)).save(str(folder / "tokenizer.json"))
        (folder / "tokenizer.model").unlink(missing_ok=True)  # knows nothing of the new tokens
        (folder / EXTENSION_FILE).write_text(json.dumps(asdict(extension)), encoding="utf-8")
        folder.replace(output)
    return extension


def load_extension(folder: str | Path) -> Extension | None:
    """What extension.json in a tokenizer's folder says; None where there is none."""
    file = Path(folder) / EXTENSION_FILE
    return Extension(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def mean_of_subtokens(weight: torch.Tensor, sub_ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """First embedding rows of new tokens: the mean of the rows that spelt them before.

    Args:
        weight: [base_vocab_size or more, hidden_size], input or output embedding of the base.
        sub_ids: base ids per new token, none empty (`Extension.sub_ids`).

    Returns:
        [len(sub_ids), hidden_size] in the dtype of `weight`; averaged in float32.
    """
    rows = [weight[list(ids)].float().mean(dim=0) for ids in sub_ids]
    if not rows:
        return weight.new_empty(0, weight.shape[1])
    return torch.stack(rows).to(weight.dtype)


def _extend(base: HuggingFaceTokenizer, state: dict, new_tokens: Sequence[str]) -> Extension:
    model = state["model"]
    if model["type"] != "BPE":
        raise UserError(f"{base.folder} is a {model['type']} tokenizer; only BPE can be extended")
    # An added token such as <pad> that the model does not hold would move behind the new ones.
    model["vocab"] |= {t["content"]: t["id"] for t in state["added_tokens"]}
    backend = base.transformers_tokenizer.backend_tokenizer
    sub_ids, added_merges = [], {}
    for offset, token in enumerate(new_tokens):
        _check_token(token, model["vocab"], backend)
        pieces = backend.model.tokenize(token)
        sub_ids.append([piece.id for piece in pieces])
        added_merges[_last_merge(token, [p.value for p in pieces], added_merges)] = token
        model["vocab"][token] = base.vocab_size + offset
    model["merges"] += [list(pair) for pair in added_merges]
    return Extension(base.sha256, base.vocab_size, sub_ids)


def _check_token(token: str, vocabulary: dict[str, int], backend: Backend) -> None:
    if token in vocabulary:
        raise UserError(f"token {token!r} is in the vocabulary already; leave it out")
    splitter = backend.pre_tokenizer
    words = splitter.pre_tokenize_str(token) if splitter else [token]
    if len(words) != 1:
        raise UserError(
            f"token {token!r} is cut into {len(words)} words before merges are tried, so it could "
            "never be found; leave it out or give its parts"
        )


def _last_merge(
    token: str, pieces: list[str], added_merges: dict[tuple[str, str], str]
) -> tuple[str, str]:
    """The two pieces a token is made of, once the tokens before it in the list are merged."""
    for pair, joined in added_merges.items():
        pieces = _apply(pair, joined, pieces)
    if len(pieces) == 1 or any(piece.startswith("<0x") for piece in pieces):
        raise UserError(f"token {token!r} holds characters without a piece of their own")
    if len(pieces) > 2:
        raise UserError(
            f"token {token!r} is {len(pieces)} pieces ({' + '.join(pieces)}), and a new token "
            f"joins two; put {pieces[0] + pieces[1]!r} before it in the list"
        )
    return pieces[0], pieces[1]


def _apply(pair: tuple[str, str], joined: str, pieces: list[str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] = joined
        else:
            merged.append(piece)
    return merged
