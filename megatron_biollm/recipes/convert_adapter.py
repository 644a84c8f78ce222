"""A run's low-rank adapters out to PEFT (https://huggingface.co/docs/peft), without the weights.

PEFT adapts each of transformers' matrices by itself. The parts of one of core's layers share its
A, which is written for each of them, and each has its own rows of B.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from megatron_biollm.atomic import write_json
from megatron_biollm.checkpoint.adapters import read_adapter, stored_lora, weight_key
from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.checkpoint.verify import verify_checkpoint
from megatron_biollm.config import UserError
from megatron_biollm.conversion.blocks import Block, check_finite, segments
from megatron_biollm.conversion.names import Weight, megatron_shape, part_shapes, weights
from megatron_biollm.conversion.safetensors_stream import (
    DTYPES,
    SINGLE,
    ShardedWriter,
    TensorSpec,
)
from megatron_biollm.conversion.staging import staged, sync_tree
from megatron_biollm.conversion.to_hf import write_config
from megatron_biollm.log import Progress
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.lora_config import TARGETS, LoraConfig, adapter_keys
from megatron_biollm.recipes.convert import ConversionConfig
from megatron_biollm.recipes.convert_source import one_step, stored_sizes
from megatron_biollm.recipes.run_config import recipe_of
from megatron_biollm.tokenizer.manifest import load_tokenizer

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"


def export_adapter(config: ConversionConfig) -> dict:
    """Writes `config.output`: the adapters, their config, the tokenizer and its chat template.

    They belong on the export of the checkpoint that the run started from (`checkpoint.load`). One
    weight's adapter is in memory at a time.

    Returns:
        The adapter's config.

    Raises:
        UserError: no adapters, those of a reward model, or a damaged checkpoint; in every case
            the output does not exist afterwards.
    """
    step = one_step(config.input)
    verify_checkpoint(step)
    source = CheckpointReader(step)
    lora = _exportable(step, source)
    tokenizer = load_tokenizer(step / "tokenizer")
    sizes = stored_sizes(step, tokenizer.vocab_size)
    adapted = list(_adapted(sizes, lora))
    stored = source.info(adapter_keys(adapted[0].mapping.megatron)[0], 0).dtype
    dtype = DTYPES.get(config.dtype) or stored
    specs = [spec for weight in adapted for spec in _specs(weight, sizes, lora, dtype)]
    with staged(config.output, sum(spec.nbytes for spec in specs)) as folder:
        writer = ShardedWriter(folder, specs, max_shard_bytes=2**63)
        writer.create()
        with Progress(len(adapted), "adapters", unit="weight") as progress:
            for weight in adapted:
                _write(source, writer, weight, sizes)
                progress.update()
        (folder / SINGLE).rename(folder / ADAPTER)
        write_config(folder, sizes, dtype, tokenizer)
        (folder / "config.json").unlink()  # with it the folder would pass for a whole model
        content = peft_config(lora, adapted)
        write_json(folder / ADAPTER_CONFIG, content)
        sync_tree(folder)
        folder.rename(config.output)
    return content


def peft_config(lora: LoraConfig, adapted: list[Weight]) -> dict:
    """What PEFT's LoraConfig is made of."""
    modules = {name.split(".")[-2] for weight in adapted for name in weight.parts}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _exportable(step: Path, source: CheckpointReader) -> LoraConfig:
    lora = stored_lora(step, source.tensors)
    if lora is None:
        raise UserError(
            f"{step} holds no adapters: it is of a run that trained the whole model; leave out "
            f"--adapter"
        )
    if recipe_of(step) == "reward":
        raise UserError(
            f"{step} is a reward model, whose head is no adapter; leave out --adapter, which "
            f"exports it whole"
        )
    return lora


def _adapted(sizes: ModelConfig, lora: LoraConfig) -> Iterator[Weight]:
    keys = {weight_key(TARGETS[name]) for name in lora.target_modules}
    return (weight for weight in weights(sizes.num_layers) if weight.mapping.megatron in keys)


def _specs(
    weight: Weight, sizes: ModelConfig, lora: LoraConfig, dtype: torch.dtype
) -> Iterator[TensorSpec]:
    for part, (rows, columns) in zip(weight.parts, part_shapes(weight.mapping, sizes), strict=True):
        yield TensorSpec(_peft_name(part, "A"), (lora.rank, columns), dtype)
        yield TensorSpec(_peft_name(part, "B"), (rows, lora.rank), dtype)


def _write(
    source: CheckpointReader, writer: ShardedWriter, weight: Weight, sizes: ModelConfig
) -> None:
    a, b = read_adapter(source, weight.mapping.megatron, weight.layer)
    for name, values in zip(adapter_keys(weight.megatron), (a, b), strict=True):
        check_finite(name, values)
    dtype = writer.places[_peft_name(weight.parts[0], "A")][2].dtype
    for part in weight.parts:
        writer.write_rows(_peft_name(part, "A"), a.to(dtype))
    whole = Block(weight, 0, megatron_shape(weight.mapping, sizes)[0])
    for piece in segments(whole, sizes):
        rows = b[piece.core_row : piece.core_row + piece.rows].to(dtype)
        writer.write_rows(_peft_name(weight.parts[piece.part], "B"), rows, piece.part_row)


def _peft_name(part: str, which: str) -> str:
    return f"base_model.model.{part.removesuffix('.weight')}.lora_{which}.weight"
