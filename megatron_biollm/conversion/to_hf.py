"""A torch_dist checkpoint into a Hugging Face LLaMA folder, one weight at a time."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.config import UserError
from megatron_biollm.conversion.hf_config import generation_config, hf_config
from megatron_biollm.conversion.memory import check_finite
from megatron_biollm.conversion.names import (
    EMBEDDING,
    Weight,
    megatron_shape,
    part_shapes,
    row_ranges,
    split_groups,
    stacked,
    weights,
)
from megatron_biollm.conversion.safetensors_stream import ShardedWriter, TensorSpec
from megatron_biollm.log import Progress
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.tokenizer.tokenizer import Tokenizer

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


def write_folder(
    source: CheckpointReader,
    sizes: ModelConfig,
    folder: Path,
    dtype: torch.dtype | None = None,
    tokenizer: Tokenizer | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes the weights, config, generation config and tokenizer into `folder`."""
    specs = [
        s for weight in weights(sizes.num_layers) for s in _specs(source, weight, sizes, dtype)
    ]
    writer = ShardedWriter(folder, specs, max_shard_bytes)
    with Progress(len(specs), "weights", unit="tensor") as progress:
        for weight in weights(sizes.num_layers):
            for name, part in _parts(source, weight, sizes):
                writer.write(name, check_finite(name, part).to(dtype or part.dtype))
                progress.update()
    writer.close()
    ids = (tokenizer.bos, tokenizer.eod, tokenizer.pad) if tokenizer else (None, None, None)
    stored = dtype or source.tensors[EMBEDDING].dtype
    _write_json(folder / "config.json", hf_config(sizes, stored, *ids))
    _write_json(folder / "generation_config.json", generation_config(*ids))
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _parts(
    source: CheckpointReader, weight: Weight, sizes: ModelConfig
) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and values; the vocabulary's padding rows are never read."""
    key, layer = weight.mapping.megatron, weight.layer
    if weight.mapping.by_group:
        yield from zip(weight.parts, split_groups(source.read(key, layer), sizes), strict=True)
        return
    for name, rows in zip(weight.parts, row_ranges(weight.mapping, sizes), strict=True):
        yield name, source.read(key, layer, rows)


def _specs(
    source: CheckpointReader, weight: Weight, sizes: ModelConfig, dtype: torch.dtype | None
) -> Iterator[TensorSpec]:
    name = stacked(weight.mapping.megatron)
    info = source.tensors.get(name) or source.tensors[weight.megatron]
    for part, shape in zip(weight.parts, part_shapes(weight.mapping, sizes), strict=True):
        yield TensorSpec(part, shape, dtype or info.dtype)


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
