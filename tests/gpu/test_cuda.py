"""One GPU gives the losses of the CPU: fp32 within 1e-4, bf16 within its rounding."""

import importlib.util
import multiprocessing
from pathlib import Path

import pytest
import torch

from tests.integration.small_run import SmallRun, largest_deviation, micro_batches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
]
STEPS = 20
NEEDS_TE = pytest.mark.skipif(
    importlib.util.find_spec("transformer_engine") is None, reason="transformer-engine is absent"
)


def train_on(kind: str, transformer_impl: str, bf16: bool, weights: Path) -> list[float]:
    """Losses of one process on `kind`, from the weights in the file (written by the CPU)."""
    from megatron_biollm.device.runtime import select_device
    from megatron_biollm.parallel.layout import ParallelConfig
    from megatron_biollm.parallel.parallelize import parallelize
    from megatron_biollm.parallel.process_groups import (
        create_process_groups,
        destroy_process_groups,
    )
    from megatron_biollm.training.optimizer import (
        build_optimizer,
        build_scheduler,
        group_step_adam,
    )
    from megatron_biollm.training.step import Trainer

    run = SmallRun(steps=STEPS, bf16=bf16, model={"transformer_impl": transformer_impl})
    device, parallel = select_device(kind), ParallelConfig()
    with device.core_context(), group_step_adam():
        device.init_distributed(timeout_minutes=2)
        groups = create_process_groups(parallel)
        model = parallelize(run.sizes, parallel, device, groups, bf16, run.seed)
        optimizer = build_optimizer(model, run.optimizer, parallel.use_distributed_optimizer)
        scheduler = build_scheduler(optimizer, run.optimizer, run.steps)
        _share_weights(model.bare_chunks[0], weights)
        optimizer.reload_model_params()
        trainer = Trainer(model, optimizer, scheduler, run.sizes.seq_length, run.micro_batch_size)
        batches = micro_batches(run, 0, 1)
        count = run.global_batch_size // run.micro_batch_size
        losses = [trainer.train_step(batches, count).loss for _ in range(STEPS)]
        destroy_process_groups()
    return losses


def _share_weights(chunk: torch.nn.Module, path: Path) -> None:
    """Writes the weights where there is no file yet, else takes them, by size and order.

    The layers of Transformer Engine name some weights otherwise and order them alike.
    """
    params = [p for name, p in sorted(chunk.named_parameters(), key=lambda item: _place(item[0]))]
    if not path.exists():
        torch.save([p.detach().float().cpu() for p in params], path)
        return
    with torch.no_grad():
        for param, stored in zip(params, torch.load(path), strict=True):
            param.copy_(stored)


def _place(name: str) -> str:
    """A name that sorts the weights of both implementations alike."""
    name = name.removeprefix("module.")
    name = name.replace("input_layernorm.weight", "self_attention.linear_qkv.layer_norm_weight")
    return name.replace("pre_mlp_layernorm.weight", "mlp.linear_fc1.layer_norm_weight")


def losses(kind: str, impl: str, bf16: bool, weights: Path) -> list[float]:
    """Each case in a process of its own: one of them runs with core answered by the CPU."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(train_on, (kind, impl, bf16, weights))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weights") / "weights.pt"


@pytest.fixture(scope="module")
def on_cpu(weights) -> list[float]:
    return losses("cpu", "local", False, weights)


@pytest.mark.parametrize(
    ("impl", "bf16", "tolerance"),
    [
        ("local", False, 1e-4),
        ("local", True, 1e-2),
        pytest.param("transformer_engine", False, 1e-3, marks=NEEDS_TE),
        pytest.param("transformer_engine", True, 1e-2, marks=NEEDS_TE),
    ],
)
def test_a_gpu_gives_the_losses_of_the_cpu(on_cpu, weights, impl, bf16, tolerance):
    assert largest_deviation(losses("cuda", impl, bf16, weights), on_cpu) < tolerance
