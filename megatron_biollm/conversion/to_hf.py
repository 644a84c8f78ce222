"""A torch_dist checkpoint into a Hugging Face LLaMA folder, a block of rows at a time."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from megatron_biollm.checkpoint.adapters import open_weights
from megatron_biollm.checkpoint.stream import CheckpointReader, TensorInfo
from megatron_biollm.config import UserError
from megatron_biollm.conversion.blocks import (
    Block,
    Scratch,
    blocks,
    check_finite,
    segments,
)
from megatron_biollm.conversion.hf_config import generation_config, hf_config
from megatron_biollm.conversion.memory import Held, held, own_process_is_single_threaded
from megatron_biollm.conversion.names import (
    Weight,
    megatron_shape,
    part_shapes,
    stacked,
    weights,
)
from megatron_biollm.conversion.safetensors_stream import ShardedWriter, TensorSpec
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.tokenizer.chat_template import save_for_inference
from megatron_biollm.tokenizer.tokenizer import Tokenizer

# Such a block, half as large in bf16, is still in a processor's cache when it is written.
EXPORT_BLOCK_BYTES = 16 * 2**20

_MODEL_PREFIXES = ("embedding.", "decoder.", "output_layer.")


def check_model_matches(source: CheckpointReader, sizes: ModelConfig) -> None:
    """Checks that the checkpoint's weights are exactly those of a model of these sizes.

    Raises:
        UserError: a weight is missing, unknown or of another shape.
    """
    found = {k for k in source.tensors if k.startswith(_MODEL_PREFIXES)}
    for weight in weights(sizes.num_layers):
        layers = () if weight.layer is None else (sizes.num_layers,)
        shape = megatron_shape(weight.mapping, sizes)
        name = stacked(weight.mapping.megatron)
        if name not in source.tensors:
            name, layers = weight.megatron, ()
        info = source.tensors.get(name)
        if info is None or info.shape != (*layers, *shape):
            raise UserError(
                f"{source.folder}: {name} is {'absent' if info is None else list(info.shape)}, but "
                f"the checkpoint's config.yaml says {[*layers, *shape]}; config and weights "
                f"belong to different models"
            )
        found.discard(name)
    if found:
        raise UserError(
            f"{source.folder} has weights that LlamaForCausalLM lacks: "
            f"{', '.join(sorted(found)[:4])}; such a model cannot be exported"
        )


def stored_dtype(source: CheckpointReader) -> torch.dtype:
    """The widest dtype of the model's weights; the optimizer's are not looked at."""
    found = {i.dtype for k, i in source.tensors.items() if k.startswith(_MODEL_PREFIXES)}
    return max(found, key=lambda dtype: dtype.itemsize)


@dataclass(frozen=True)
class Exporter:
    """What a process needs to convert a checkpoint into a folder; calling it opens both.

    source: committed step. folder: with the files that `writer.create` made. dtype: of the weights
    written, None keeps theirs.
    """

    source: Path
    folder: Path
    sizes: ModelConfig
    dtype: torch.dtype | None = None
    max_shard_bytes: int = 5 * 10**9
    block_bytes: int = EXPORT_BLOCK_BYTES

    def __call__(self) -> Callable[[Block], Held]:
        """Opens both sides; returns what converts a block and says what memory that took."""
        own_process_is_single_threaded()
        reader = open_weights(self.source)
        writer, scratch = self.writer(reader), Scratch()

        def convert(block: Block) -> Held:
            write_block(reader, writer, block, self.sizes, scratch)
            return held()

        return convert

    def blocks(self) -> list[Block]:
        """All that is to be converted, which the vocabulary's padding is not."""
        return blocks(self.sizes, 4, padded=False, limit=self.block_bytes)

    def writer(self, reader: CheckpointReader) -> ShardedWriter:
        """The files of `folder`, the same for every process."""
        specs = [
            s
            for weight in weights(self.sizes.num_layers)
            for s in _specs(reader, weight, self.sizes, self.dtype)
        ]
        return ShardedWriter(self.folder, specs, self.max_shard_bytes)


def write_block(
    reader: CheckpointReader,
    writer: ShardedWriter,
    block: Block,
    sizes: ModelConfig,
    scratch: Scratch,
) -> None:
    """Reads a block and writes its parts to their places.

    Raises:
        UserError: a damaged file, NaN or infinity.
    """
    mapping, layer = block.weight.mapping, block.weight.layer
    shape = (block.rows, *megatron_shape(mapping, sizes)[1:])
    values = scratch.take(shape, _info(reader, block.weight).dtype)
    reader.read_rows(values, mapping.megatron, layer, block.start)
    check_finite(block.weight.megatron, values)
    parts = block.weight.parts
    for piece in segments(block, sizes):
        rows = values[piece.core_row : piece.core_row + piece.rows]
        dtype = writer.places[parts[piece.part]][2].dtype
        writer.write_rows(parts[piece.part], rows.to(dtype), piece.part_row)


def write_config(
    folder: Path, sizes: ModelConfig, dtype: torch.dtype, tokenizer: Tokenizer | None = None
) -> None:
    """Writes the config, the generation config and the tokenizer into `folder`.

    Of a model that was trained on conversations also its chat template, and its stop token as one
    that ends generation.
    """
    ids = (tokenizer.bos, tokenizer.eod, tokenizer.pad) if tokenizer else (None, None, None)
    _write_json(folder / "config.json", hf_config(sizes, dtype, *ids))
    stop = None if tokenizer is None else save_for_inference(tokenizer, folder)
    _write_json(folder / "generation_config.json", generation_config(*ids, stop))


def _info(reader: CheckpointReader, weight: Weight) -> TensorInfo:
    stored = reader.tensors.get(stacked(weight.mapping.megatron))
    return stored or reader.tensors[weight.megatron]


def _specs(
    reader: CheckpointReader, weight: Weight, sizes: ModelConfig, dtype: torch.dtype | None
) -> Iterator[TensorSpec]:
    for part, shape in zip(weight.parts, part_shapes(weight.mapping, sizes), strict=True):
        yield TensorSpec(part, shape, dtype or _info(reader, weight).dtype)


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
