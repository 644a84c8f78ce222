"""The long steps of a conversion, beside each other."""

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.distributed.checkpoint.filesystem import DEFAULT_SUFFIX
from torch.distributed.checkpoint.metadata import Metadata

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.payload import Extent
from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.config import UserError
from megatron_biollm.conversion.blocks import BLOCK_BYTES, whole_weights
from megatron_biollm.conversion.convoy import Convoy, Route, Stopped
from megatron_biollm.conversion.from_hf import HuggingFaceWeights, Importer
from megatron_biollm.conversion.memory import Held
from megatron_biollm.conversion.names import Weight, weights
from megatron_biollm.conversion.safetensors_stream import ShardedReader
from megatron_biollm.conversion.staging import Flusher
from megatron_biollm.conversion.to_hf import Exporter
from megatron_biollm.data.workers import ordered_map
from megatron_biollm.log import Progress
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig

DIGESTS = "digests"


def convoy_through(
    sizes: ModelConfig,
    dtype: torch.dtype,
    followers: Sequence[str],
    flusher: Flusher,
    read: Callable[[Weight], Iterable[Extent]],
    written: Callable[[Weight], Iterable[Extent]],
) -> Convoy:
    """A convoy that has each weight on the disk and out of the memory when all have passed it.

    read, written: where a weight lies in the files of either side.
    """
    every = list(weights(sizes.num_layers))

    def passed(index: int) -> None:
        made = list(written(every[index]))
        for path in {extent.path for extent in made}:
            flusher.add(path)
        extents = [*made, *read(every[index])]
        flusher.after(lambda: drop(index, extents))

    def drop(index: int, extents: Iterable[Extent]) -> None:
        try:
            for extent in extents:
                extent.drop()
        finally:
            convoy.dropped(index + 1)

    convoy = Convoy(Route.of(sizes, dtype.itemsize), followers, passed)
    return convoy


def by_parts(source: ShardedReader | HuggingFaceWeights) -> Callable[[Weight], list[Extent]]:
    """Where a weight's parts lie on Hugging Face's side."""
    return lambda weight: [source.extent(part) for part in weight.parts]


def by_core_weight(source: CheckpointReader) -> Callable[[Weight], list[Extent]]:
    """Where a weight lies on core's side."""
    return lambda weight: source.extents(weight.mapping.megatron, weight.layer)


def import_weights(
    importer: Importer,
    workers: int,
    flusher: Flusher,
    contents: Metadata | None = None,
    convoy: Convoy | None = None,
) -> tuple[verify.Digests, list[Held]]:
    """Writes core's files by several processes; returns their digests, taken on the way, and what
    each process held.

    contents, convoy: learn what can be read by now.
    """
    writer, whole = importer.writer(), whole_weights(importer.blocks())
    written, peaks, done = [], [], 0
    with Progress(sum(map(len, writer.files)), "weights", unit="block") as progress:
        for file, peak in ordered_map(importer, range(len(writer.files)), workers):
            written.append(file)
            peaks.append(peak)
            for name in file.digests:
                flusher.add(importer.folder / name)
            progress.update(len(writer.files[file.index]))
            done += len(writer.files[file.index])
            if convoy is not None:
                file.enter(contents)
                convoy.convert(whole[done])
    return writer.finish(written), peaks


def export_weights(
    exporter: Exporter,
    source: CheckpointReader,
    workers: int,
    flusher: Flusher,
    convoy: Convoy | None = None,
) -> list[Held]:
    """Fills the shards, which exist, by several processes; returns what each process held.

    convoy: learns what can be read by now.
    """
    writer, blocks = exporter.writer(source), exporter.blocks()
    peaks = []
    whole = whole_weights(blocks)
    with Progress(len(blocks), "weights", unit="block") as progress:
        for block, peak in zip(blocks, ordered_map(exporter, blocks, workers), strict=True):
            peaks.append(peak)
            progress.update()
            flusher.add(exporter.folder / writer.places[block.weight.parts[-1]][0])
            if convoy is not None:
                convoy.convert(whole[len(peaks)])
    for name in writer.files:
        flusher.add(exporter.folder / name)
    return peaks


def verify_along(
    step: Path, source: CheckpointReader, sizes: ModelConfig, convoy: Convoy, threads: int
) -> None:
    """Compares a checkpoint's tensors with their digests, just ahead of their conversion.

    When another part has refused its input this goes on at its own pace, since damage may be why.

    Raises:
        BadCheckpoint: names the first file that is missing, resized or changed.
    """
    recorded = verify.read_digests(step)
    files = {
        name: verify.Verification(step / name, recorded[name])
        for name in sorted(recorded)
        if name.endswith(DEFAULT_SUFFIX)
    }
    with convoy.follower(DIGESTS), ThreadPoolExecutor(threads) as pool:
        for index, weight in enumerate(weights(sizes.num_layers)):
            convoy.lead(DIGESTS, index)
            ends: dict[str, int] = {}
            for each in source.extents(weight.mapping.megatron, weight.layer):
                ends[each.path.name] = max(ends.get(each.path.name, 0), each.stop)
            for _ in pool.map(lambda name, end: files[name].advance(end), ends, ends.values()):
                pass
        for _ in pool.map(lambda file: _finish(file, convoy, index), files.values()):
            pass


def _finish(file: verify.Verification, convoy: Convoy, last: int) -> None:
    """Digests what is not weights, such as an optimizer's state, and keeps none of it in memory."""
    while file.done < file.size:
        convoy.lead(DIGESTS, last)
        before = file.done
        file.advance(before + BLOCK_BYTES)
        Extent(file.path, before, file.done).drop()
    file.finish()


def side_by_side(convoy: Convoy, convert: Callable[[], Any], *others: Callable[[], Any]) -> list:
    """Returns what `convert` and the others give, which run in threads beside it.

    Raises:
        Exception: of the first that failed by itself; the others, in their order, go before
            `convert`.
    """
    failures: list[Exception] = []

    def run(part: Callable[[], Any]) -> Any:
        try:
            return part()
        except BaseException as error:
            # Damage may be behind what a part says of its input, not behind a full disk.
            convoy.stop(at_once=not isinstance(error, (UserError, Stopped)))
            raise

    with ThreadPoolExecutor(len(others)) as pool:
        futures = [pool.submit(run, other) for other in others]
        try:
            results = [run(convert)]
        except Exception as error:
            failures.append(error)
    failures = [*filter(None, (future.exception() for future in futures)), *failures]
    for failure in sorted(failures, key=lambda failure: isinstance(failure, Stopped)):
        raise failure
    return [*results, *(future.result() for future in futures)]


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
