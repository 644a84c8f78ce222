"""Checkpoints of a model with low-rank adapters: the weights under them, and the adapters, apart.

Such a checkpoint holds everything, so that it needs no other folder and loads in any layout.
`lora.json` beside the tensors says what the adapters are multiplied by. Whoever reads the weights
gets them with the adapters merged; only a run that goes on has the two apart.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Optional

import torch

from megatron_biollm.atomic import write_json
from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.config import UserError
from megatron_biollm.model.lora_config import TARGETS, LoraConfig, adapter_keys, is_adapter

LORA_FILE = "lora.json"
_LAYERS = "decoder.layers."


def weight_key(path: str) -> str:
    """The key of the weight of a layer's linear layer, by its place in the layer."""
    return f"{_LAYERS}*.{path}.weight"


def write_lora(lora: Optional[LoraConfig], folder: Path) -> None:
    """Says in a checkpoint which adapters it holds; nothing where it holds none."""
    if lora is not None:
        write_json(folder / LORA_FILE, asdict(lora))


def read_lora(folder: Path) -> Optional[LoraConfig]:
    """The adapters of a checkpoint, None where it holds none.

    Raises:
        UserError: a damaged `lora.json`.
    """
    path = folder / LORA_FILE
    if not path.is_file():
        return None
    try:
        return LoraConfig(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); use another checkpoint") from error


def stored_lora(folder: Path, keys: Iterable[str]) -> Optional[LoraConfig]:
    """As `read_lora`, of a checkpoint that has tensors of these keys.

    Raises:
        UserError: also where there are adapters, and nothing says how they were trained.
    """
    lora = read_lora(folder)
    if (lora is None) == any(map(is_adapter, keys)):
        found = "adapters but no" if lora is None else "no adapters but a"
        raise UserError(f"{folder} holds {found} {LORA_FILE}; use another checkpoint")
    return lora


def describe(lora: Optional[LoraConfig]) -> str:
    """In words, for messages."""
    if lora is None:
        return "no adapters (finetune.lora.rank=0)"
    return (
        f"adapters (finetune.lora.rank={lora.rank}, alpha={lora.alpha:g}, "
        f"target_modules={lora.target_modules})"
    )


def read_adapter(
    reader: CheckpointReader, weight: str, layer: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of the weight with that key, whole; key and layer as for `CheckpointReader.read`.

    Raises:
        UserError: they are absent, or a file is damaged.
    """
    a, b = adapter_keys(weight)
    return reader.read(a, layer), reader.read(b, layer)


class MergedReader(CheckpointReader):
    """A checkpoint's weights with its adapters merged into them, as if it had none.

    Raises:
        UserError: as `CheckpointReader`, or the adapters are incomplete.
    """

    def __init__(self, folder: Path, lora: LoraConfig):
        super().__init__(folder)
        self.lora, self.apart = lora, CheckpointReader(folder)
        self.tensors = {k: info for k, info in self.tensors.items() if not is_adapter(k)}
        self._targets = {weight_key(TARGETS[name]) for name in lora.target_modules}

    def read_rows(
        self, target: torch.Tensor, key: str, layer: int | None = None, start: int = 0
    ) -> None:
        """Fills `target` with merged rows; arguments and errors are those of the base."""
        if layer is None and key.startswith(_LAYERS):
            raise ValueError(f"{key}: adapters are merged layer by layer")
        super().read_rows(target, key, layer, start)
        if key in self._targets:
            key_a, key_b = adapter_keys(key)
            a = self.apart.read(key_a, layer)
            b = self.apart.read(key_b, layer, (start, start + len(target)))
            target.copy_(self.lora.merged(target, a, b))


def open_weights(folder: Path) -> CheckpointReader:
    """Reads a checkpoint's weights, with adapters merged where it has some.

    Raises:
        UserError: as `CheckpointReader`, or adapters of which nothing says how they were trained.
    """
    reader = CheckpointReader(folder)
    lora = stored_lora(folder, reader.tensors)
    return reader if lora is None else MergedReader(folder, lora)
