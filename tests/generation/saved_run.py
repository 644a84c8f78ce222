"""A run's folder with committed checkpoints of the small model, written without training."""

from pathlib import Path
from unittest import mock

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies import filesystem_async

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.write_results import WriteResults
from megatron_biollm.config import dump_config, load_config
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.recipes.run_config import RunConfig
from megatron_biollm.tokenizer.manifest import save_tokenizer
from tests.generation import small_model


def save_run(run_dir: Path, tokenizer_folder: Path, parallel: ParallelConfig, steps) -> None:
    """Writes one checkpoint per step, all with the same weights, in the given layout."""
    generator = small_model.build_generator(tokenizer_folder, parallel)
    content = {"model": generator.model.bare_chunks[0].sharded_state_dict()}
    for step in steps:
        final = verify.step_folder(run_dir / "checkpoints", step)
        partial = final.with_name(final.name + verify.PARTIAL)
        if torch.distributed.get_rank() == 0:
            partial.mkdir(parents=True)
        torch.distributed.barrier()
        # Core's own queue is a server process, which would end with the case that started it.
        with mock.patch.object(filesystem_async, "_results_queue", WriteResults()):
            dist_checkpointing.save(content, str(partial))
        if torch.distributed.get_rank() == 0:
            _finish(partial, final, generator, parallel)
        torch.distributed.barrier()


def _finish(partial: Path, final: Path, generator, parallel: ParallelConfig) -> None:
    config = load_config(
        RunConfig,
        None,
        [
            *(f"model.{k}={v}" for k, v in _sizes(generator).items()),
            f"parallel.tensor_model_parallel_size={parallel.tensor_model_parallel_size}",
            f"parallel.pipeline_model_parallel_size={parallel.pipeline_model_parallel_size}",
        ],
    )
    (partial / "config.yaml").write_text(dump_config(config))
    multiple = config.model.make_vocab_size_divisible_by
    save_tokenizer(generator.tokenizer, partial / "tokenizer", multiple)
    verify.commit(partial, final, verify.digest_files(partial, verify.files_to_digest(partial)))


def _sizes(generator) -> dict:
    sizes = vars(small_model.sizes_for(generator.tokenizer.vocab_size))
    return {name: value for name, value in sizes.items() if value is not None}
