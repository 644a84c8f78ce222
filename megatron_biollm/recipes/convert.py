"""A model in from Hugging Face, or out to it: converted, compared, and only then kept."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
import yaml

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.config import UserError
from megatron_biollm.conversion.from_hf import HuggingFaceWeights, write_checkpoint
from megatron_biollm.conversion.hf_config import read_hf_config, sizes_from_hf
from megatron_biollm.conversion.memory import GB, MemoryPlan, peak_memory_bytes, plan_memory
from megatron_biollm.conversion.parity import (
    HuggingFaceModel,
    MegatronModel,
    ParityReport,
    compare_models,
    probe_tokens,
)
from megatron_biollm.conversion.safetensors_stream import DTYPES, ShardedReader
from megatron_biollm.conversion.to_hf import check_model_matches, stored_dtype, write_folder
from megatron_biollm.conversion.vocabulary import find_tokenizer, vocabulary_of
from megatron_biollm.device.runtime import select_device
from megatron_biollm.log import get_logger
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.gpt import build_gpt
from megatron_biollm.parallel.layout import ParallelConfig, check_model_fits_layout
from megatron_biollm.parallel.parallelize import transformer_config
from megatron_biollm.parallel.process_groups import create_process_groups, destroy_process_groups
from megatron_biollm.tokenizer.manifest import (
    MANIFEST_FILE,
    TokenizerManifest,
    load_tokenizer,
    save_tokenizer,
)

REPORT = "parity.json"
logger = get_logger(__name__)


@dataclass(frozen=True)
class ConversionConfig:
    """What a conversion is told.

    input, output: folders. max_memory_gb: cap on this process. tokenizer: folder, where it is not
    the input's own. dtype: of the weights written; None keeps theirs. parallel: layout that the
    checkpoint is meant for, checked on import; any other layout loads it too.
    """

    input: Path
    output: Path
    max_memory_gb: float = 8.0
    tokenizer: Path | None = None
    dtype: str | None = None
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)


def import_from_hf(config: ConversionConfig) -> dict:
    """Writes `output/step_00000000`, a committed checkpoint with weights alone.

    Returns:
        The content of its parity.json.

    Raises:
        UserError: a model that cannot be converted, too little memory, or no parity; in every
            case `output` is as it was before.
    """
    hf = read_hf_config(config.input)
    tokenizer = find_tokenizer(config.tokenizer or config.input)
    vocabulary = vocabulary_of(tokenizer, hf["vocab_size"], config.input)
    sizes = sizes_from_hf(hf, vocabulary.size)
    check_model_fits_layout(sizes, config.parallel)
    tied = bool(hf.get("tie_word_embeddings", False))
    source = HuggingFaceWeights(ShardedReader(config.input), sizes, tied, vocabulary.sub_ids)
    dtype = DTYPES.get(config.dtype, source.dtype)
    plan = _plan(sizes, max(source.dtype.itemsize, dtype.itemsize), config)
    with _staged(verify.step_folder(config.output, 0)) as folder:
        write_checkpoint(source, folder, dtype)
        select_device("cpu").release_free_memory()
        report = compare_models(
            reference=lambda: nullcontext(
                HuggingFaceModel(config.input, rounded_to=dtype, read=source.read)
            ),
            converted=lambda: core_model(CheckpointReader(folder), sizes),
            sizes=sizes,
            weights_compared_in=dtype,
        ).require()
        notes = [*vocabulary.notes, *(["tied embeddings were copied apart"] if tied else [])]
        content = _write_report(report, folder, config, plan, notes)
        _write_sidecars(folder, sizes)
        if tokenizer is not None:
            save_tokenizer(tokenizer, folder / "tokenizer", sizes.make_vocab_size_divisible_by)
        digests = verify.digest_files(folder, verify.files_to_digest(folder))
        verify.commit(folder, verify.step_folder(config.output, 0), digests)
    return content


def export_to_hf(config: ConversionConfig) -> dict:
    """Writes `output`, a LlamaForCausalLM folder, from a committed checkpoint of any layout.

    Returns:
        The content of its parity.json.

    Raises:
        UserError: a damaged checkpoint, another model, too little memory, or no parity; in every
            case `output` does not exist afterwards.
    """
    step = _one_step(config.input)
    verify.verify_checkpoint(step)
    source = CheckpointReader(step)
    tokenizer = load_tokenizer(step / "tokenizer") if (step / "tokenizer").is_dir() else None
    if config.tokenizer is not None:
        tokenizer = _same_tokenizer(find_tokenizer(config.tokenizer), tokenizer, config, step)
    sizes = _stored_sizes(step, tokenizer.vocab_size if tokenizer else None)
    check_model_matches(source, sizes)
    stored = stored_dtype(source)
    dtype = DTYPES.get(config.dtype)
    plan = _plan(sizes, max(stored.itemsize, (dtype or stored).itemsize), config)
    with _staged(config.output) as folder:
        write_folder(source, sizes, folder, dtype, tokenizer)
        select_device("cpu").release_free_memory()
        report = compare_models(
            reference=lambda: core_model(source, sizes, rounded_to=dtype),
            converted=lambda: nullcontext(HuggingFaceModel(folder)),
            sizes=sizes,
            weights_compared_in=dtype or stored,
        ).require()
        content = _write_report(report, folder, config, plan, [f"exported from {step.name}"])
        if tokenizer is not None:
            manifest = TokenizerManifest.from_tokenizer(
                tokenizer, sizes.make_vocab_size_divisible_by
            )
            manifest.write(folder / f"tokenizer_{MANIFEST_FILE}")
        folder.rename(config.output)
    return content


@contextmanager
def core_model(
    reader: CheckpointReader, sizes: ModelConfig, rounded_to: torch.dtype | None = None
) -> Iterator[MegatronModel]:
    """Core's model in this one process, on the CPU; core leaves with the block."""
    device, parallel = select_device("cpu"), ParallelConfig()
    one_layer = dataclasses.replace(sizes, preset=None, num_layers=1)
    with device.core_context():
        device.init_distributed(parallel.distributed_timeout_minutes)
        try:
            groups = create_process_groups(parallel)
            core = transformer_config(one_layer, parallel, device.kind, "local", bf16=False)
            core.perform_initialization = False  # every weight is read; drawing it takes as long

            def build(with_output: bool) -> torch.nn.Module:
                return build_gpt(
                    one_layer, core, "local", groups, pre_process=False, post_process=with_output
                )

            yield MegatronModel(reader, sizes, build, rounded_to)
        finally:
            destroy_process_groups()


@contextmanager
def _staged(final: Path) -> Iterator[Path]:
    """A hidden folder beside `final`, gone at the end unless the block renamed it."""
    if final.exists():
        raise UserError(f"{final} exists; nothing is overwritten, give another --output")
    final.parent.mkdir(parents=True, exist_ok=True)
    folder = final.parent / f".{final.name}.{os.getpid()}{verify.PARTIAL}"
    folder.mkdir()
    try:
        yield folder
    except OSError as error:
        raise UserError(
            f"{final} cannot be written ({error.strerror or error}); nothing was kept, free some "
            f"space or give another --output"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _one_step(path: Path) -> Path:
    """A step's folder: `path` itself, or the newest committed one of a run or its checkpoints."""
    for directory in (path, path / "checkpoints"):
        steps = verify.committed_steps(directory)
        if steps:
            return verify.step_folder(directory, steps[-1])
    return path


def _stored_sizes(step: Path, vocab_size: int | None) -> ModelConfig:
    """Sizes in the checkpoint's config.yaml; the tokenizer's vocabulary where it has none."""
    path = step / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path} is missing, so the model's sizes are unknown; copy it there")
    model = yaml.safe_load(path.read_text(encoding="utf-8")).get("model", {})
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    sizes = ModelConfig(**{name: value for name, value in model.items() if name in known})
    sizes.vocab_size = sizes.vocab_size or vocab_size
    if sizes.vocab_size is None:
        raise UserError(f"{path} has no model.vocab_size and {step} no tokenizer; give --tokenizer")
    if vocab_size is not None and vocab_size != sizes.vocab_size:
        raise UserError(
            f"{path} says model.vocab_size={sizes.vocab_size}, but the tokenizer has {vocab_size} "
            f"tokens; they must be equal, give the tokenizer that the model was trained with"
        )
    return sizes


def _plan(sizes: ModelConfig, itemsize: int, config: ConversionConfig) -> MemoryPlan:
    return plan_memory(sizes, itemsize, probe_tokens(sizes).numel(), config.max_memory_gb)


def _same_tokenizer(given, stored, config: ConversionConfig, step: Path):
    if given is None:
        raise UserError(f"--tokenizer {config.tokenizer} holds no tokenizer; give its folder")
    if stored is not None:
        manifests = [TokenizerManifest.from_tokenizer(each) for each in (given, stored)]
        manifests[0].check_same(manifests[1], f"--tokenizer {config.tokenizer}", str(step))
    return given


def _write_sidecars(folder: Path, sizes: ModelConfig) -> None:
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


def _write_report(
    report: ParityReport,
    folder: Path,
    config: ConversionConfig,
    plan: MemoryPlan,
    notes: list[str],
) -> dict:
    peak = peak_memory_bytes() / GB
    if peak > config.max_memory_gb:
        logger.warning(
            "peak memory %.2f GB exceeded --max-memory-gb %g", peak, config.max_memory_gb
        )
    memory = {
        "peak_memory_gb": round(peak, 3),
        "planned_memory_gb": round(plan.peak / GB, 3),
        "max_memory_gb": config.max_memory_gb,
    }
    content = {**report.to_json(), **memory, "notes": notes}
    (folder / REPORT).write_text(json.dumps(content, indent=2) + "\n")
    return content
