"""The sides of the training benchmark: ours, and the loops that people write with transformers.

State says in what precision a side keeps weights, gradients and Adam's moments, since that decides
memory and part of the speed: ours keep bf16 weights with fp32 gradients, master weights and
moments; a peer keeps all of it in bf16, or all of it in fp32 and computes under bf16 autocast.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from megatron_biollm.conversion.hf_config import hf_config
from megatron_biollm.device.runtime import Device
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import ParallelModel, parallelize
from megatron_biollm.recipes.benchmarks.sides import Side, Step
from megatron_biollm.recipes.benchmarks.timed_training import OURS
from megatron_biollm.training.config import OptimizerConfig
from megatron_biollm.training.optimizer import build_optimizer, build_scheduler
from megatron_biollm.training.step import Batch, Trainer

PEER = "transformers"
COMPILED = "transformers, compiled"
STATES = {
    "fp32": "fp32 weights, gradients and moments",
    "bf16": "bf16 weights, gradients and moments",
    "autocast": "fp32 weights, gradients and moments; bf16 autocast",
    "ours": "bf16 weights; fp32 gradients, master weights and moments",
}
LEARNING_RATE = 1e-4


def our_side(
    model: ModelConfig,
    parallel: ParallelConfig,
    device: Device,
    groups: Any,
    bf16: bool,
    batches: list[Batch],
) -> Side:
    """A step of this project's `Trainer`; each data-parallel rank takes its part of the batches."""

    def build() -> Step:
        adam = OptimizerConfig(lr=LEARNING_RATE)
        chunks = parallelize(model, parallel, device, groups, bf16=bf16, seed=0)
        optimizer = build_optimizer(chunks, adam, parallel.use_distributed_optimizer)
        scheduler = build_scheduler(optimizer, adam, train_iters=1_000_000)
        rows = batches[0]["tokens"].shape[0]
        trainer = Trainer(chunks, optimizer, scheduler, model.seq_length, rows)
        mine = batches[groups.dp.rank() :: groups.dp.size()]
        return Step(lambda: trainer.train_step(iter(mine), len(mine)), kernels_of(chunks, device))

    return Side(OURS, build, ours=True, state=STATES["ours" if bf16 else "fp32"])


def kernels_of(chunks: ParallelModel, device: Device) -> str:
    """The layers in use, why they were chosen, and what each job of theirs runs on."""
    name, reason = chunks.transformer_impl
    jobs = "; ".join(f"{job}: {kernel}" for job, kernel in device.kernels(name).items())
    return f"{name} layers ({reason})" + (f"; {jobs}" if jobs else "")


def transformers_side(
    model: ModelConfig, device: Device, state: str, batches: list[Batch], compiled: bool
) -> Side:
    """A plain training loop: transformers' model with SDPA, torch's fused AdamW, clipping.

    state: a name in `STATES`. compiled: `torch.compile` of the whole model, its loss included.
    """
    name = COMPILED if compiled else PEER
    label = f"{name} ({state})" if state != "fp32" else name

    def build() -> Step:
        dtype = torch.bfloat16 if state == "bf16" else torch.float32
        network = hf_network(model, device, dtype)
        step = _loop(network, device, state, batches, compiled)
        return Step(step, "SDPA, fused AdamW" + (", torch.compile" if compiled else ""))

    return Side(label, build, state=STATES[state])


def hf_network(model: ModelConfig, device: Device, dtype: torch.dtype) -> torch.nn.Module:
    """The same network as transformers has it, made on the device (padded vocabulary included)."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    sizes = hf_config(model, dtype, bos=None, eos=None, pad=None)
    sizes |= {"vocab_size": model.padded_vocab_size, "use_cache": False}
    with torch.device(device.torch_device):
        network = AutoModelForCausalLM.from_config(
            LlamaConfig(**sizes), dtype=dtype, attn_implementation="sdpa"
        )
    return network.train()


def _loop(
    network: torch.nn.Module, device: Device, state: str, batches: list[Batch], compiled: bool
) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    mine = batches[rank::size]
    wrapped = network
    if size > 1:
        wrapped = DistributedDataParallel(network, gradient_as_bucket_view=True)
    model = torch.compile(wrapped) if compiled else wrapped

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(mine, 1):
            tokens, labels = (
                batch[name].to(device.torch_device, non_blocking=True)
                for name in ("tokens", "labels")
            )
            # DDP adds gradients up over the ranks with the last micro-batch alone.
            waits = size > 1 and number < len(mine)
            with wrapped.no_sync() if waits else contextlib.nullcontext():
                with _autocast(device, state):
                    # `shift_labels` are aligned with the logits already, as ours are.
                    loss = model(input_ids=tokens, labels=labels, shift_labels=labels).loss
                (loss / len(mine)).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return step


def _autocast(device: Device, state: str) -> contextlib.AbstractContextManager:
    if state != "autocast":
        return contextlib.nullcontext()
    return torch.autocast(device.kind, dtype=torch.bfloat16)
