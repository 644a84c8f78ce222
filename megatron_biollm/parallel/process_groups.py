"""Process groups, made once and returned; nothing else asks core's global state for them."""

from datetime import timedelta

import torch
from megatron.core import parallel_state
from megatron.core.process_groups_config import ProcessGroupCollection

from megatron_biollm.parallel.layout import ParallelConfig


def create_process_groups(parallel: ParallelConfig) -> ProcessGroupCollection:
    """Makes every group of the layout on all ranks of the world.

    Core keeps the groups in `parallel_state`; the returned collection is what the rooms pass on.

    Raises:
        UserError: the world size does not fit the degrees.
    """
    parallel.data_parallel_size(torch.distributed.get_world_size())
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=parallel.tensor_model_parallel_size,
        pipeline_model_parallel_size=parallel.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline_model_parallel_size,
        context_parallel_size=parallel.context_parallel_size,
        distributed_timeout_minutes=parallel.distributed_timeout_minutes,
        # The optimizer takes explicit groups, and then core wants no extra gloo groups.
        create_gloo_process_groups=False,
    )
    return ProcessGroupCollection.use_mpu_process_groups()


def destroy_process_groups() -> None:
    """Leaves every group; safe to call when none was made."""
    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def control_group(timeout_minutes: int) -> torch.distributed.ProcessGroup:
    """A gloo group of all ranks for small control messages beside the training streams."""
    return torch.distributed.new_group(backend="gloo", timeout=timedelta(minutes=timeout_minutes))
