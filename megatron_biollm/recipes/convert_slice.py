"""A checkpoint as the ranks of a layout would write it, made by one process without a model.

For measuring conversion at widths that no test machine can train: the chunks of every rank are cut
as megatron-core cuts them, one file a rank, and filled with numbers that depend on the seed, the
weight's name and the place in it alone, so that any layout gives the same model.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

import torch

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.stream_writer import Piece, WeightsWriter
from megatron_biollm.conversion.blocks import Scratch
from megatron_biollm.conversion.names import (
    EMBEDDING,
    OUTPUT,
    Weight,
    extra_state_keys,
    megatron_shape,
    stacked,
    weights,
)
from megatron_biollm.conversion.staging import sync_tree
from megatron_biollm.log import Progress
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig, check_model_fits_layout
from megatron_biollm.recipes.convert_steps import write_sidecars

_BY_COLUMNS = ("linear_proj.weight", "linear_fc2.weight")
# A prime: rows of a power of two as their width start at other places of the pool each time.
_POOL = 10_000_019
_STD = 0.02


def write_slice(
    directory: Path, sizes: ModelConfig, parallel: ParallelConfig, dtype: torch.dtype
) -> Path:
    """Writes `directory/step_00000000`, committed, as TP x PP ranks would; returns it.

    Rows of the padded vocabulary are zeros.

    Raises:
        UserError: the layout does not fit the model.
    """
    check_model_fits_layout(sizes, parallel)
    final = verify.step_folder(directory, 0)
    folder = final.with_name(f"{final.name}.slice{verify.PARTIAL}")
    files = rank_pieces(sizes, parallel, dtype)
    writer = WeightsWriter(folder, files, extra_state_keys(sizes.num_layers))
    with Progress(len(files), "slice", unit="rank") as progress:
        written = [writer.write(rank) for rank in progress.track(range(len(files)))]
    digests = writer.finish(written)
    write_sidecars(folder, sizes)
    others = sorted(set(verify.files_to_digest(folder)) - set(digests))
    sync_tree(folder)  # a commit promises that all is on the disk
    verify.commit(folder, final, digests | verify.digest_files(folder, others))
    return final


def rank_pieces(
    sizes: ModelConfig, parallel: ParallelConfig, dtype: torch.dtype
) -> list[list[Piece]]:
    """What each rank writes, by rank: the first stage's tensor-parallel ranks, then the next's."""
    tp, pp = parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size
    numbers = _Numbers()
    per_stage = sizes.num_layers // pp
    ranks: list[list[Piece]] = [[] for _ in range(tp * pp)]
    for weight in weights(sizes.num_layers):
        if weight.layer is not None:
            stage = weight.layer // per_stage
        else:
            stage = 0 if weight.mapping.megatron == EMBEDDING else pp - 1
        for rank, start, stop in _cuts(weight, sizes, tp):
            ranks[stage * tp + rank].append(_piece(weight, sizes, start, stop, dtype, numbers))
    return ranks


def _cuts(
    weight: Weight, sizes: ModelConfig, tp: int
) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Tensor-parallel rank, first and last corner of each of a weight's chunks."""
    shape, name = megatron_shape(weight.mapping, sizes), weight.mapping.megatron
    if len(shape) == 1:  # a norm: every rank has it, the first one writes it
        yield 0, (0,), shape
    elif name.endswith(_BY_COLUMNS):
        width = shape[1] // tp
        yield from ((r, (0, r * width), (shape[0], (r + 1) * width)) for r in range(tp))
    else:
        # A rank's rows of gate and up are two chunks.
        halves = 2 if name.endswith("linear_fc1.weight") else 1
        rows = shape[0] // halves // tp
        for half in range(halves):
            for rank in range(tp):
                first = half * shape[0] // halves + rank * rows
                yield rank, (first, 0), (first + rows, shape[1])


def _piece(
    weight: Weight,
    sizes: ModelConfig,
    start: tuple[int, ...],
    stop: tuple[int, ...],
    dtype: torch.dtype,
    numbers: "_Numbers",
) -> Piece:
    shape, layer = megatron_shape(weight.mapping, sizes), weight.layer
    true_rows = sizes.vocab_size if weight.mapping.megatron in (EMBEDDING, OUTPUT) else shape[0]
    box = tuple(last - first for first, last in zip(start, stop, strict=True))

    def produce() -> torch.Tensor:
        return numbers.fill(weight.megatron, box, start, true_rows, dtype)

    return Piece(
        key=stacked(weight.mapping.megatron),
        global_shape=shape if layer is None else (sizes.num_layers, *shape),
        offsets=start if layer is None else (layer, *start),
        sizes=box if layer is None else (1, *box),
        dtype=dtype,
        produce=produce,
    )


class _Numbers:
    """Normal numbers from a pool drawn once; each row of a weight starts at a place of its own."""

    def __init__(self, seed: int = 1234):
        generator = torch.Generator().manual_seed(seed)
        self.pool, self.scratch = torch.randn(_POOL, generator=generator).mul_(_STD), Scratch()

    def fill(
        self,
        name: str,
        box: tuple[int, ...],
        start: tuple[int, ...],
        true_rows: int,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """The box of a weight; norms lie around 1, and rows from `true_rows` on are zeros."""
        values, pool = self.scratch.take(box, dtype), self.pool
        place = zlib.crc32(name.encode())
        if len(box) == 1:
            begin = place % (_POOL - start[0] - box[0])
            return values.copy_(1 + pool[begin + start[0] : begin + start[0] + box[0]])
        for row in range(box[0]):
            # Columns behind the longest row of a 70B model would need a larger pool.
            begin = (place + (start[0] + row) * 104_729) % (_POOL - 1_000_000) + start[1]
            values[row] = pool[begin : begin + box[1]]
        values[max(0, true_rows - start[0]) :] = 0
        return values
