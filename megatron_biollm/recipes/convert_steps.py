"""The long steps of a conversion: weights by several processes, and core's side of the parity."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
import yaml

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.conversion.blocks import Block
from megatron_biollm.conversion.from_hf import Importer
from megatron_biollm.conversion.layered import MegatronModel
from megatron_biollm.conversion.memory import Held
from megatron_biollm.conversion.staging import Flusher
from megatron_biollm.conversion.streamed import Blockwise
from megatron_biollm.conversion.to_hf import Exporter
from megatron_biollm.data.workers import ordered_map
from megatron_biollm.device.runtime import select_device
from megatron_biollm.log import Progress
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.gpt import build_gpt
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import transformer_config
from megatron_biollm.parallel.process_groups import create_process_groups, destroy_process_groups


def import_weights(
    importer: Importer, workers: int, flusher: Flusher
) -> tuple[verify.Digests, list[Held]]:
    """Writes core's files by several processes; returns their digests, taken on the way, and what
    each process held."""
    writer = importer.writer()
    written, peaks = [], []
    with Progress(sum(map(len, writer.files)), "weights", unit="block") as progress:
        for file, peak in ordered_map(importer, range(len(writer.files)), workers):
            written.append(file)
            peaks.append(peak)
            for name in file.digests:
                flusher.add(importer.folder / name)
            progress.update(len(writer.files[file.index]))
    return writer.finish(written), peaks


def export_weights(
    exporter: Exporter, source: CheckpointReader, workers: int, flusher: Flusher
) -> list[Held]:
    """Verifies the checkpoint and writes the shards by several processes; returns what each
    process held."""
    writer, tasks = exporter.writer(source), exporter.tasks()
    writer.create()
    peaks = []
    with Progress(len(tasks), "verify, weights", unit="piece") as progress:
        for task, peak in zip(tasks, ordered_map(exporter, tasks, workers), strict=True):
            peaks.append(peak)
            progress.update()
            if isinstance(task, Block):
                flusher.add(exporter.folder / writer.places[task.weight.parts[-1]][0])
    for name in writer.files:
        flusher.add(exporter.folder / name)
    return peaks


@contextmanager
def core_model(
    reader: CheckpointReader,
    sizes: ModelConfig,
    rounded_to: torch.dtype | None = None,
    blocks: Blockwise | None = None,
) -> Iterator[MegatronModel]:
    """Core's model in this one process, on the CPU; core leaves with the block."""
    device, parallel = select_device("cpu"), ParallelConfig()
    one_layer = dataclasses.replace(sizes, preset=None, num_layers=1)
    with device.core_context():
        device.init_distributed(parallel.distributed_timeout_minutes)
        try:
            groups = create_process_groups(parallel)
            core = transformer_config(one_layer, parallel, device.kind, "local", bf16=False)
            core.perform_initialization = False  # nothing reads it, and drawing it takes long

            def build(with_output: bool) -> torch.nn.Module:
                return build_gpt(
                    one_layer, core, "local", groups, pre_process=False, post_process=with_output
                )

            yield MegatronModel(reader, sizes, build, rounded_to, blocks)
        finally:
            destroy_process_groups()


def write_sidecars(folder: Path, sizes: ModelConfig) -> None:
    """What the trainer writes beside its own checkpoints."""
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": asdict(sizes)}, sort_keys=False))
    layout = asdict(ParallelConfig()) | {"world_size": 1}
    (folder / "layout.json").write_text(json.dumps(layout, indent=1) + "\n")
    packages = ("torch", "megatron-core", "transformers", "safetensors")
    (folder / "versions.json").write_text(
        json.dumps({name: version(name) for name in packages}, indent=2) + "\n"
    )
    state = {"weights_only": True, "step": 0, "consumed_samples": 0, "consumed_tokens": 0}
    (folder / "state.json").write_text(json.dumps(state) + "\n")
