"""Whatever computes the layers, the losses are the golden ones. On a GPU: `tests/gpu`."""

import contextlib
from dataclasses import replace

import pytest
import torch

from megatron_biollm.device.cuda import core_on_cuda
from megatron_biollm.device.runtime import Device
from tests.golden.golden import RUNS, TOLERANCE, golden_losses
from tests.integration.small_run import build_trainer, largest_deviation, train_steps

# Core is configured as on a GPU, and its calls of CUDA are answered by the CPU.
LIKE_A_GPU = Device("cuda", "gloo", torch.device("cpu"), "for the test")


def train_with(kernels, name, layout):
    """Losses on this rank of the world, by the CPU's kernels or by those of a GPU.

    The latter are compiled where there is a compiler, and plain torch where there is none.
    """
    run = replace(RUNS[name], parallel=layout)
    like_a_gpu = kernels == "gpu"
    with core_on_cuda() if like_a_gpu else contextlib.nullcontext():
        trainer = build_trainer(run, LIKE_A_GPU if like_a_gpu else None)
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
