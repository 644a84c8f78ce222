"""A Hugging Face LLaMA folder into a torch_dist checkpoint, a block of rows at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from megatron_biollm.checkpoint.payload import Extent
from megatron_biollm.checkpoint.stream_writer import Piece, WeightsWriter, WrittenFile, files_of
from megatron_biollm.config import UserError
from megatron_biollm.conversion.blocks import (
    BLOCK_BYTES,
    Block,
    Scratch,
    blocks,
    check_finite,
    segments,
)
from megatron_biollm.conversion.memory import Held, held, own_process_is_single_threaded
from megatron_biollm.conversion.names import (
    extra_state_keys,
    megatron_shape,
    part_shapes,
    stacked,
    weights,
)
from megatron_biollm.conversion.safetensors_stream import ShardedReader, TensorSpec
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.tokenizer.extend import mean_of_subtokens

# Small enough to be shared out evenly, and for a file system that dislikes many files.
FILE_BYTES = 512 * 2**20
VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


class HuggingFaceWeights:
    """The weights of a LLaMA folder as the table names them.

    sizes: of the model to be made, with the true vocabulary.
    sub_ids: for each token added behind the folder's own, the ids that spelt it before; its rows
        start as the mean of theirs (`tokenizer/extend.py`). Rows of the folder that no token uses
        are dropped.
    tied: the folder has no output weight of its own; the embedding serves for both.

    Raises:
        UserError: weights missing, unknown, of another shape, or of mixed dtypes.
    """

    def __init__(
        self,
        source: ShardedReader,
        sizes: ModelConfig,
        tied: bool = False,
        sub_ids: Sequence[Sequence[int]] = (),
    ):
        self.source, self.sizes, self.sub_ids = source, sizes, sub_ids
        self.base_rows = sizes.vocab_size - len(sub_ids)
        self.replaced = {"lm_head.weight": "model.embed_tokens.weight"} if tied else {}
        self.dtype = self._check()

    def info(self, name: str) -> TensorSpec:
        """Shape and dtype of a weight of the model to be made."""
        found = self.source.info(self.replaced.get(name, name))
        rows = self.sizes.vocab_size if name in VOCABULARY else found.shape[0]
        return TensorSpec(name, (rows, *found.shape[1:]), found.dtype)

    def read_rows(self, name: str, target: torch.Tensor, start: int = 0) -> None:
        """Fills `target` with rows `start` and following of a weight of the model to be made.

        Raises:
            UserError: a damaged file.
        """
        stored = self.replaced.get(name, name)
        end = start + len(target)
        base = min(end, self.base_rows) if name in VOCABULARY else end
        if start < base:
            self.source.read_rows(stored, target[: base - start], start)
        for row in range(max(start, base), end):
            target[row - start] = self._added(stored, self.sub_ids[row - self.base_rows])

    def extent(self, name: str) -> Extent:
        """Where the folder's own rows of a weight lie."""
        return self.source.extent(self.replaced.get(name, name))

    def _added(self, stored: str, ids: Sequence[int]) -> torch.Tensor:
        """The first row of an added token."""
        rows = torch.empty(len(ids), self.sizes.hidden_size, dtype=self.dtype)
        for row, token in zip(rows, ids, strict=True):
            self.source.read_rows(stored, row[None], token)
        return mean_of_subtokens(rows, [range(len(ids))])[0]

    def _check(self) -> torch.dtype:
        expected = {
            name: shape
            for weight in weights(self.sizes.num_layers)
            for name, shape in zip(
                weight.parts, part_shapes(weight.mapping, self.sizes), strict=True
            )
        }
        sources = {self.replaced.get(name, name) for name in expected}
        # Older exports carry RoPE's frequencies; they follow from the config.
        unknown = {n for n in self.source.names - sources if not n.endswith("rotary_emb.inv_freq")}
        missing = sources - self.source.names
        if missing or unknown - set(self.replaced):
            raise UserError(
                f"{self.source.folder} lacks {_some(missing)} and has in addition "
                f"{_some(unknown)}; only a whole {len(sources)}-tensor LlamaForCausalLM without "
                f"biases or adapters can be converted"
            )
        return self._check_tensors(expected)

    def _check_tensors(self, expected: dict[str, tuple[int, ...]]) -> torch.dtype:
        dtypes = set()
        for name, shape in expected.items():
            spec = self.source.info(self.replaced.get(name, name))
            dtypes.add(spec.dtype)
            if name in VOCABULARY:
                shape = (max(spec.shape[0], self.base_rows), *shape[1:])
            if spec.shape != shape:
                raise UserError(
                    f"{name} in {self.source.folder} has shape {list(spec.shape)}, but config.json "
                    f"says {list(shape)}; config and weights belong to different models"
                )
        if len(dtypes) > 1:
            raise UserError(
                f"{self.source.folder} mixes {_some({str(d) for d in dtypes})}; save it in one "
                f"dtype, a checkpoint's layers are stacked and share theirs"
            )
        return dtypes.pop()


@dataclass(frozen=True)
class Importer:
    """What a process needs to write files of a checkpoint; calling it opens both sides.

    source, sizes, tied, sub_ids: as for `HuggingFaceWeights`. folder: of the files. dtype: of the
    weights written, None keeps theirs. block_bytes, file_bytes: of a chunk (in fp32) and of a file
    at most; the bytes written depend on them.
    """

    source: Path
    sizes: ModelConfig
    tied: bool = False
    sub_ids: Sequence[Sequence[int]] = ()
    dtype: torch.dtype | None = None
    folder: Path | None = None
    block_bytes: int = BLOCK_BYTES
    file_bytes: int = FILE_BYTES

    def __call__(self) -> Callable[[int], tuple[WrittenFile, Held]]:
        """Opens both sides; returns what writes the file of an index, and says what that held."""
        own_process_is_single_threaded()
        writer = self.writer()

        def write(index: int) -> tuple[WrittenFile, Held]:
            return writer.write(index), held()

        return write

    def weights(self) -> HuggingFaceWeights:
        """The source, checked."""
        return HuggingFaceWeights(ShardedReader(self.source), self.sizes, self.tied, self.sub_ids)

    def blocks(self) -> list[Block]:
        """All that is to be converted, the vocabulary's padding with it."""
        return blocks(self.sizes, 4, padded=True, limit=self.block_bytes)

    def writer(self) -> WeightsWriter:
        """Core's files of the checkpoint (weights alone), the same for every process."""
        source, scratch = self.weights(), Scratch()
        dtype = self.dtype or source.dtype
        pieces = [_piece(source, block, scratch, dtype) for block in self.blocks()]
        files = files_of(pieces, self.file_bytes)
        return WeightsWriter(self.folder, files, extra_state_keys(self.sizes.num_layers))


def _piece(source: HuggingFaceWeights, block: Block, scratch: Scratch, dtype: torch.dtype) -> Piece:
    mapping, layer, sizes = block.weight.mapping, block.weight.layer, source.sizes
    shape = megatron_shape(mapping, sizes)
    columns = shape[1:]
    return Piece(
        key=stacked(mapping.megatron),
        global_shape=shape if layer is None else (sizes.num_layers, *shape),
        offsets=(*(() if layer is None else (layer,)), block.start, *(0 for _ in columns)),
        sizes=(*(() if layer is None else (1,)), block.rows, *columns),
        dtype=dtype,
        produce=lambda: read_block(source, block, scratch),
    )


def read_block(source: HuggingFaceWeights, block: Block, scratch: Scratch) -> torch.Tensor:
    """The rows of a core weight, put together from its parts; zeros where the padding is.

    Raises:
        UserError: a damaged file, NaN or infinity.
    """
    columns = megatron_shape(block.weight.mapping, source.sizes)[1:]
    values = scratch.take((block.rows, *columns), source.dtype)
    filled = 0
    for piece in segments(block, source.sizes):
        filled, name = piece.core_row + piece.rows, block.weight.parts[piece.part]
        rows = values[piece.core_row : filled]
        source.read_rows(name, rows, piece.part_row)
        check_finite(name, rows)
    values[filled:] = 0
    return values


def _some(names: set[str], limit: int = 3) -> str:
    listed = ", ".join(sorted(names)[:limit]) or "nothing"
    return listed if len(names) <= limit else f"{listed} and {len(names) - limit} more"
