"""A reward model out to Hugging Face: LlamaForSequenceClassification with one label."""

import json
from contextlib import nullcontext
from pathlib import Path

import torch

from megatron_biollm.checkpoint.adapters import open_weights
from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.checkpoint.verify import verify_checkpoint
from megatron_biollm.config import UserError
from megatron_biollm.conversion.blocks import Scratch, blocks, check_finite, weight_bytes
from megatron_biollm.conversion.layered import HuggingFaceModel, MegatronModel
from megatron_biollm.conversion.names import OUTPUT, part_shapes, weights
from megatron_biollm.conversion.parity import compare_models
from megatron_biollm.conversion.safetensors_stream import (
    DTYPES,
    ShardedReader,
    ShardedWriter,
    TensorSpec,
)
from megatron_biollm.conversion.staging import staged, sync_tree
from megatron_biollm.conversion.streamed import StoredMatrix
from megatron_biollm.conversion.to_hf import stored_dtype, write_block, write_config
from megatron_biollm.log import Progress
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.scalar_head import SCALAR_HEAD_KEY
from megatron_biollm.recipes.convert import (
    ConversionConfig,
    plan_of,
    write_report,
)
from megatron_biollm.recipes.convert_core import core_model
from megatron_biollm.recipes.convert_source import stored_sizes
from megatron_biollm.tokenizer.manifest import load_tokenizer
from megatron_biollm.tokenizer.tokenizer import Tokenizer

SCORE, LM_HEAD = "score.weight", "lm_head.weight"
ARCHITECTURE = "LlamaForSequenceClassification"


def export_reward_model(step: Path, config: ConversionConfig) -> dict:
    """Writes `config.output` from the checkpoint of a reward model, in one process.

    Returns:
        The content of its parity.json, in which logits are the scores of every token.

    Raises:
        UserError: a damaged checkpoint, one without a head, too little memory or disk, or scores
            that differ; in every case the output does not exist afterwards.
    """
    verify_checkpoint(step)
    source = open_weights(step)
    if SCALAR_HEAD_KEY not in source.tensors:
        raise UserError(f"{step} holds no {SCALAR_HEAD_KEY}, so it is no reward model; give one")
    tokenizer = load_tokenizer(step / "tokenizer")
    sizes = stored_sizes(step, tokenizer.vocab_size)
    dtype, plan = DTYPES.get(config.dtype) or stored_dtype(source), plan_of(sizes, config)
    with staged(config.output, weight_bytes(sizes, dtype.itemsize, padded=False)) as folder:
        _write_weights(source, folder, sizes, dtype)
        _write_config(folder, sizes, dtype, tokenizer)
        made = _ScoreAsOutput(ShardedReader(folder))
        report = compare_models(
            lambda: nullcontext(HuggingFaceModel(folder, dtype, made)),
            lambda: core_model(source, sizes, dtype, kind=_ScoringModel),
            sizes,
            dtype,
        ).require()
        notes = [f"exported from {step.name}", "logits are the scores of a reward model"]
        content = write_report(report, folder, config, plan, [], notes)
        sync_tree(folder)
        folder.rename(config.output)
    return content


def _write_weights(
    source: CheckpointReader, folder: Path, sizes: ModelConfig, dtype: torch.dtype
) -> None:
    kept = [b for b in blocks(sizes, 4, padded=False) if b.weight.mapping.megatron != OUTPUT]
    writer = _writer(folder, sizes, dtype)
    writer.create()
    scratch = Scratch()
    with Progress(len(kept), "weights", unit="block") as progress:
        for block in kept:
            write_block(source, writer, block, sizes, scratch)
            progress.update()
    head = torch.empty(1, sizes.hidden_size, dtype=source.tensors[SCALAR_HEAD_KEY].dtype)
    source.read_rows(head, SCALAR_HEAD_KEY, None, 0)
    check_finite(SCALAR_HEAD_KEY, head)
    writer.write_rows(SCORE, head.to(dtype))


def _writer(folder: Path, sizes: ModelConfig, dtype: torch.dtype) -> ShardedWriter:
    """The files of a language model, with the scores' weight in place of the words'."""
    body = [
        TensorSpec(name, shape, dtype)
        for weight in weights(sizes.num_layers)
        if weight.mapping.megatron != OUTPUT
        for name, shape in zip(weight.parts, part_shapes(weight.mapping, sizes), strict=True)
    ]
    return ShardedWriter(folder, [*body, TensorSpec(SCORE, (1, sizes.hidden_size), dtype)])


def _write_config(
    folder: Path, sizes: ModelConfig, dtype: torch.dtype, tokenizer: Tokenizer
) -> None:
    """As of a language model, but for the head and for what pads.

    transformers scores at the last token that is not the padding's id, so an id that may end a
    conversation must not pad: BOS does, where the tokenizer has no id for it alone.
    """
    write_config(folder, sizes, dtype, tokenizer)
    (folder / "generation_config.json").unlink()
    pad = tokenizer.pad
    if pad in (None, tokenizer.eod):
        pad = tokenizer.bos
    values = _read(folder / "config.json")
    values |= {"architectures": [ARCHITECTURE], "pad_token_id": pad, "use_cache": False}
    values |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    _write(folder / "config.json", values)
    path = folder / "tokenizer_config.json"
    if path.is_file() and pad is not None:
        _write(path, _read(path) | {"pad_token": _piece(folder, pad)})


def _piece(folder: Path, token: int) -> str:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(token)


class _ScoringModel(MegatronModel):
    """Core's model with the reward head for its output layer."""

    def _matrix(self, key: str, layer: int | None, rows: int | None) -> StoredMatrix:
        if key == OUTPUT:
            key, rows = SCALAR_HEAD_KEY, 1
        return super()._matrix(key, layer, rows)


class _ScoreAsOutput:
    """A folder's weights, the scores' under the name of the output layer's."""

    def __init__(self, source: ShardedReader) -> None:
        self.source = source

    def info(self, name: str) -> TensorSpec:
        return self.source.info(SCORE if name == LM_HEAD else name)

    def read_rows(self, name: str, target: torch.Tensor, start: int = 0) -> None:
        self.source.read_rows(SCORE if name == LM_HEAD else name, target, start)


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
