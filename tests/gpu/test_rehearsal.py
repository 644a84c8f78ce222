"""On a GPU a step holds what the rehearsal says, within 10 %, by either kind of layers."""

import importlib.util
import multiprocessing

import pytest
import torch

from tests.rehearsal.runs import small_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
]
ENGINE = pytest.param(
    "transformer_engine",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("transformer_engine") is None,
        reason="transformer-engine is absent",
    ),
)
SIZES = {
    "num_layers": 8,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_query_groups": 16,
    "ffn_hidden_size": 5632,
    "seq_length": 4096,
    "vocab_size": 34000,
}


def peak_on_gpu(run) -> int:
    """Most bytes that torch's allocator has handed out in the second step of one process."""
    from megatron_biollm.device.runtime import select_device
    from megatron_biollm.parallel.process_groups import (
        create_process_groups,
        destroy_process_groups,
    )
    from megatron_biollm.rehearsal.rank import build, micro_batch
    from megatron_biollm.training.optimizer import group_step_adam

    device = select_device("cuda")
    with device.core_context(), group_step_adam():
        device.init_distributed(timeout_minutes=2)
        _, trainer = build(run, create_process_groups(run.parallel), device=device)
        batches = [micro_batch(run)] * run.num_microbatches
        trainer.train_step(iter(batches), run.num_microbatches)
        torch.cuda.reset_peak_memory_stats()
        trainer.train_step(iter(batches), run.num_microbatches)
        peak = device.peak_memory_bytes()
        destroy_process_groups()
    return peak


def rehearsed_peak(run) -> int:
    from megatron_biollm.rehearsal.rank import rehearse_rank

    return rehearse_rank(run, 0).peak.total


@pytest.mark.parametrize("impl", ["local", ENGINE])
@pytest.mark.parametrize("recompute", [None, "selective", "full"])
def test_the_peak_of_a_step_is_the_rehearsed_one(recompute, impl):
    sizes = SIZES | {"transformer_impl": impl}
    run = small_run(batch=2, sizes=sizes, recompute_granularity=recompute)
    # Each in a process of its own: the rehearsal answers core's CUDA calls on the CPU.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        real = pool.apply(peak_on_gpu, (run,))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        rehearsed = pool.apply(rehearsed_peak, (run,))
    assert rehearsed == pytest.approx(real, rel=0.1)
