"""The rows of a micro-batch as the model takes them: packed, trimmed, cut for context ranks."""

import hashlib
from collections.abc import Iterable

import torch
from megatron.core.packed_seq_params import PackedSeqParams

from megatron_biollm.training.objective import Batch


def pack(batch: Batch, device: torch.device) -> tuple[Batch, PackedSeqParams]:
    """Joins the rows to one sequence of documents; each starts where its position id is 0.

    Args:
        batch: [b, s] tensors, and others.
        device: of the boundaries.

    Returns:
        [1, b*s] tensors, the others as they are, and the boundaries of the documents.
    """
    flat = batch | {name: value.reshape(1, -1) for name, value in per_token(batch).items()}
    starts = (flat["position_ids"][0] == 0).nonzero()[:, 0]
    end = starts.new_tensor([flat["tokens"].shape[1]])
    boundaries = torch.cat((starts, end)).to(torch.int32)
    longest, boundaries = int(boundaries.diff().max()), boundaries.to(device, non_blocking=True)
    return flat, PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=boundaries,
        cu_seqlens_kv=boundaries,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )


def trimmed(
    batches: list[Batch], columns: int, divisor: int, together: bool
) -> tuple[list[Batch], int]:
    """Leaves out columns that are padding in every row, where the batches tell by `length`.

    Args:
        batches: micro-batches of a step; `length` holds the tokens of each row that are none.
        columns: of the rows as they are.
        divisor: of the number of columns, unless it stays as it is.
        together: to the same number, as the stages of a pipeline must know it beforehand.

    Returns:
        The batches and their (largest) number of columns.
    """
    if not all("length" in batch for batch in batches):
        return batches, columns
    widths = [min(columns, -(-int(b["length"].max()) // divisor) * divisor) for b in batches]
    widest = max(widths, default=columns)
    pairs = zip(batches, [widest] * len(widths) if together else widths, strict=True)
    return [b | {n: v[..., :w] for n, v in per_token(b).items()} for b, w in pairs], widest


def per_token(batch: Batch) -> Batch:
    """The tensors that have a value for every token."""
    shape = batch["tokens"].shape
    return {name: value for name, value in batch.items() if value.shape == shape}


def on_this_context_rank(batch: Batch, rank: int, size: int) -> Batch:
    """Keeps chunks `rank` and `2 * size - 1 - rank` of 2 * size along the sequence.

    Core has the same function, with signatures that differ over the supported range.

    Args:
        batch: [b, s] tensors, and others, which are kept whole; s divides by 2 * size.
        rank: of this process in the context-parallel group.
        size: of that group.
    """
    if size == 1:
        return batch
    kept = dict(batch)
    for name, value in per_token(batch).items():
        chunks = value.chunk(2 * size, dim=1)
        kept[name] = torch.cat((chunks[rank], chunks[2 * size - 1 - rank]), dim=1)
    return kept


def batch_hash(batches: Iterable[Batch]) -> int:
    """Sum modulo 2**63 of the hashes of the sequences: the same for every layout and order."""
    total = 0
    for batch in batches:
        for row in batch["tokens"]:
            digest = hashlib.blake2b(row.numpy().tobytes(), digest_size=8).digest()
            total += int.from_bytes(digest, "big")
    return total % 2**63
