"""Whatever computes the layers, the losses are the golden ones. On a GPU: `tests/gpu`."""

import contextlib

import pytest

from megatron_biollm.device.cuda import core_on_cuda
from tests.golden.golden import RUNS, TOLERANCE, golden_losses
from tests.integration.small_run import build_trainer, largest_deviation, train_steps


def train_with(kernels, name, layout):
    """Losses on this rank of the world, by the CPU's kernels or by those of a GPU.

    The latter are compiled where there is a compiler, and plain torch where there is none.
    """
    run = RUNS[name]
    run = type(run)(**{**vars(run), "parallel": layout})
    with core_on_cuda() if kernels == "gpu" else contextlib.nullcontext():
        trainer = build_trainer(run)
        # Core then asks for the loss in parts, as on a GPU.
        trainer.model.config.cross_entropy_loss_fusion = kernels == "gpu"
        return [step.loss for step in train_steps(trainer, run)]


@pytest.mark.parametrize(
    ("kernels", "name", "layout"),
    [
        ("cpu", "rows", {}),
        ("cpu", "packed", {}),
        ("gpu", "rows", {}),
        ("gpu", "packed", {}),
        ("gpu", "rows", {"tensor_model_parallel_size": 2, "sequence_parallel": True}),
    ],
)
def test_losses_are_the_golden_ones(world, kernels, name, layout):
    size = layout.get("tensor_model_parallel_size", 1)
    for losses in world.run(size, train_with, kernels, name, layout):
        assert largest_deviation(losses, golden_losses(name)) < TOLERANCE
