"""Small runs to rehearse."""

from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.rehearsal.rank import RehearsedRun
from megatron_biollm.training.config import OptimizerConfig, TrainingConfig

SIZES = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "ffn_hidden_size": 96,
    "seq_length": 32,
    "vocab_size": 1000,
}
DEGREES = {
    "tp": "tensor_model_parallel_size",
    "pp": "pipeline_model_parallel_size",
    "vpp": "virtual_pipeline_model_parallel_size",
    "cp": "context_parallel_size",
}


def small_run(
    world_size: int = 1,
    batch: int = 8,
    on_gpu: bool = True,
    bf16: bool = True,
    sizes: dict | None = None,
    **options,
) -> RehearsedRun:
    """A run of a small model; degrees by their short names, other options of the layout by name."""
    layout = {DEGREES.get(name, name): value for name, value in options.items()}
    return RehearsedRun(
        model=ModelConfig(**{**SIZES, **(sizes or {})}),
        parallel=ParallelConfig(**layout),
        optimizer=OptimizerConfig(),
        training=TrainingConfig(global_batch_size=batch, bf16=bf16),
        world_size=world_size,
        on_gpu=on_gpu,
    )
