"""A model in from Hugging Face, or out to it: converted, compared, and only then kept."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.adapters import open_weights
from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.config import UserError
from megatron_biollm.conversion.blocks import weight_bytes
from megatron_biollm.conversion.convoy import Convoy
from megatron_biollm.conversion.from_hf import Importer
from megatron_biollm.conversion.hf_config import read_hf_config, sizes_from_hf
from megatron_biollm.conversion.layered import HuggingFaceModel, WeightSource
from megatron_biollm.conversion.memory import GB, Held, MemoryPlan, held, plan_memory
from megatron_biollm.conversion.parity import (
    HUGGING_FACE,
    MEGATRON,
    ParityReport,
    compare_models,
    probe_tokens,
)
from megatron_biollm.conversion.safetensors_stream import DTYPES, ShardedReader
from megatron_biollm.conversion.staging import Flusher, staged, sync_tree
from megatron_biollm.conversion.streamed import blockwise
from megatron_biollm.conversion.to_hf import (
    Exporter,
    check_model_matches,
    stored_dtype,
    write_config,
)
from megatron_biollm.conversion.vocabulary import find_tokenizer, vocabulary_of
from megatron_biollm.log import get_logger
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig, check_model_fits_layout
from megatron_biollm.recipes.convert_source import one_step, stored_sizes, verify_small_files
from megatron_biollm.recipes.convert_steps import (
    DIGESTS,
    by_core_weight,
    by_parts,
    convoy_through,
    export_weights,
    import_weights,
    side_by_side,
    verify_along,
    write_sidecars,
)
from megatron_biollm.recipes.run_config import recipe_of
from megatron_biollm.tokenizer.manifest import (
    MANIFEST_FILE,
    TokenizerManifest,
    load_tokenizer,
    save_tokenizer,
)

REPORT = "parity.json"
SIDES = (HUGGING_FACE, MEGATRON)
logger = get_logger(__name__)


@dataclass(frozen=True)
class ConversionConfig:
    """What a conversion is told.

    input, output: folders. max_memory_gb: cap on all its processes together. tokenizer: folder,
    where it is not the input's own. dtype: of the weights written; None keeps theirs. parallel:
    layout that the checkpoint is meant for, checked on import; any other layout loads it too.
    workers: processes that convert, and threads that compute the parity check; the output is the
    same for any number.

    Raises:
        UserError: fewer than one worker.
    """

    input: Path
    output: Path
    max_memory_gb: float = 3.0
    tokenizer: Path | None = None
    dtype: str | None = None
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)
    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UserError(f"--workers {self.workers} must be at least 1, this process alone")


def import_from_hf(config: ConversionConfig) -> dict:
    """Writes `output/step_00000000`, a committed checkpoint with weights alone.

    Returns:
        The content of its parity.json.

    Raises:
        UserError: a model that cannot be converted, too little memory or disk, or no parity; in
            every case `output` is as it was before.
    """
    hf = read_hf_config(config.input)
    tokenizer = find_tokenizer(config.tokenizer or config.input)
    vocabulary = vocabulary_of(tokenizer, hf["vocab_size"], config.input)
    sizes = sizes_from_hf(hf, vocabulary.size)
    check_model_fits_layout(sizes, config.parallel)
    tied = bool(hf.get("tie_word_embeddings", False))
    importer = Importer(config.input, sizes, tied, vocabulary.sub_ids, DTYPES.get(config.dtype))
    source, plan = importer.weights(), plan_of(sizes, config)
    dtype = importer.dtype or source.dtype
    final = verify.step_folder(config.output, 0)
    with staged(final, weight_bytes(sizes, dtype.itemsize, padded=True)) as folder:
        importer = dataclasses.replace(importer, folder=folder)
        contents = importer.writer().contents()
        reader = CheckpointReader(folder, contents)
        with Flusher() as flusher:
            convoy = convoy_through(
                sizes, dtype, SIDES, flusher, by_parts(source), by_core_weight(reader)
            )
            (digests, peaks), report = side_by_side(
                convoy,
                lambda: import_weights(importer, config.workers, flusher, contents, convoy),
                lambda: _compare(
                    config.input, source, reader, sizes, dtype, convoy, config.workers
                ),
            )
            report.require()
            flusher.finish()
        if not CheckpointReader(folder).has_same_contents(reader):
            raise UserError(f"{folder} names other places than were compared; report this as a bug")
        notes = [*vocabulary.notes, *(["tied embeddings were copied apart"] if tied else [])]
        content = write_report(report, folder, config, plan, peaks, notes)
        write_sidecars(folder, sizes)
        if tokenizer is not None:
            save_tokenizer(tokenizer, folder / "tokenizer", sizes.make_vocab_size_divisible_by)
        others = sorted(set(verify.files_to_digest(folder)) - set(digests))
        verify.commit(folder, final, digests | verify.digest_files(folder, others))
    return content


def export_to_hf(config: ConversionConfig) -> dict:
    """Writes `output`, a LlamaForCausalLM folder, from a committed checkpoint of any layout.

    That of a reward model becomes a LlamaForSequenceClassification (`convert_reward.py`). Adapters
    are merged; `convert_adapter.py` writes them alone.

    Returns:
        The content of its parity.json.

    Raises:
        UserError: a damaged checkpoint, another model, too little memory or disk, or no parity; in
            every case `output` does not exist afterwards.
    """
    step = one_step(config.input)
    verify_small_files(step)
    if recipe_of(step) == "reward":
        from megatron_biollm.recipes.convert_reward import export_reward_model

        return export_reward_model(step, config)
    source = open_weights(step)
    tokenizer = load_tokenizer(step / "tokenizer") if (step / "tokenizer").is_dir() else None
    if config.tokenizer is not None:
        tokenizer = _same_tokenizer(find_tokenizer(config.tokenizer), tokenizer, config, step)
    sizes = stored_sizes(step, tokenizer.vocab_size if tokenizer else None)
    check_model_matches(source, sizes)
    stored, rounded = stored_dtype(source), DTYPES.get(config.dtype)
    dtype, plan = rounded or stored, plan_of(sizes, config)
    with staged(config.output, weight_bytes(sizes, dtype.itemsize, padded=False)) as folder:
        exporter = Exporter(step, folder, sizes, rounded)
        exporter.writer(source).create()
        write_config(folder, sizes, dtype, tokenizer)
        made = ShardedReader(folder)
        with Flusher() as flusher:
            convoy = convoy_through(
                sizes, dtype, (*SIDES, DIGESTS), flusher, by_core_weight(source), by_parts(made)
            )
            peaks, _, report = side_by_side(
                convoy,
                lambda: export_weights(exporter, source, config.workers, flusher, convoy),
                lambda: verify_along(step, source, sizes, convoy, config.workers),
                lambda: _compare(folder, made, source, sizes, dtype, convoy, config.workers),
            )
            report.require()
            flusher.finish()
        notes = [f"exported from {step.name}"]
        content = write_report(report, folder, config, plan, peaks, notes)
        if tokenizer is not None:
            manifest = TokenizerManifest.from_tokenizer(
                tokenizer, sizes.make_vocab_size_divisible_by
            )
            manifest.write(folder / f"tokenizer_{MANIFEST_FILE}")
        sync_tree(folder)
        folder.rename(config.output)
    return content


def _compare(
    folder: Path,
    weights: WeightSource,
    reader: CheckpointReader,
    sizes: ModelConfig,
    dtype: torch.dtype,
    convoy: Convoy,
    workers: int,
) -> ParityReport:
    """Runs both sides of the parity check as their weights appear, both rounded to `dtype`.

    folder: with the config.json that belongs to `weights`.
    """
    # Takes seconds, in which the conversion has begun.
    from megatron_biollm.recipes.convert_core import core_model

    def arrive(side: str) -> Callable[[str], None]:
        return lambda name: convoy.arrive(side, name)

    with blockwise(workers) as blocks:
        return compare_models(
            lambda: nullcontext(
                HuggingFaceModel(folder, dtype, weights, blocks, arrive(HUGGING_FACE))
            ),
            lambda: core_model(reader, sizes, dtype, blocks, arrive(MEGATRON)),
            sizes,
            dtype,
            convoy=convoy,
        )


def plan_of(sizes: ModelConfig, config: ConversionConfig) -> MemoryPlan:
    tokens = probe_tokens(sizes).numel()
    return plan_memory(sizes, tokens, config.max_memory_gb, config.workers)


def _same_tokenizer(given, stored, config: ConversionConfig, step: Path):
    if given is None:
        raise UserError(f"--tokenizer {config.tokenizer} holds no tokenizer; give its folder")
    if stored is not None:
        manifests = [TokenizerManifest.from_tokenizer(each) for each in (given, stored)]
        manifests[0].check_same(manifests[1], f"--tokenizer {config.tokenizer}", str(step))
    return given


def write_report(
    report: ParityReport,
    folder: Path,
    config: ConversionConfig,
    plan: MemoryPlan,
    workers: list[Held],
    notes: list[str],
) -> dict:
    # Each at its own worst moment: no less than what they held together.
    by_process = {each.pid: each.peak for each in [*workers, held()]}
    peak = sum(by_process.values()) / GB
    if peak > config.max_memory_gb:
        logger.warning(
            "peak memory %.2f GB exceeded --max-memory-gb %g", peak, config.max_memory_gb
        )
    memory = {
        "peak_memory_gb": round(peak, 3),
        "planned_memory_gb": round(plan.peak / GB, 3),
        "max_memory_gb": config.max_memory_gb,
        "workers": config.workers,
    }
    content = {**report.to_json(), **memory, "notes": notes}
    (folder / REPORT).write_text(json.dumps(content, indent=2) + "\n")
    return content
