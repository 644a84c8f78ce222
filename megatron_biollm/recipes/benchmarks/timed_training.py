"""Training steps that are timed: what every benchmark of them builds, and how sides take turns."""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch

from megatron_biollm.config import UserError
from megatron_biollm.conversion.hf_config import hf_config
from megatron_biollm.device.health import gpu_health
from megatron_biollm.device.runtime import Device, seed_everything, select_device
from megatron_biollm.log import Progress
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import parallelize
from megatron_biollm.parallel.process_groups import destroy_process_groups
from megatron_biollm.recipes.sidecars import versions
from megatron_biollm.training.config import OptimizerConfig
from megatron_biollm.training.optimizer import build_optimizer, build_scheduler, group_step_adam
from megatron_biollm.training.step import Batch, Trainer

OURS = "megatron_biollm"
UNTIMED = 2


@dataclass(kw_only=True)
class TimedSteps:
    """What is timed, and how often.

    Attributes:
        model: the network; its vocabulary size must be known.
        repeats: timed steps (or saves) of each side, after untimed ones.
        threads: of torch, in every process and for all sides.

    Raises:
        UserError: numbers below 1, or no vocabulary size.
    """

    model: ModelConfig
    repeats: int = 10
    threads: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.type is int and getattr(self, field.name) < 1:
                raise UserError(f"{field.name}={getattr(self, field.name)} must be at least 1")
        self._check_vocabulary()

    def _check_vocabulary(self) -> None:
        if self.model.vocab_size is None:
            raise UserError("the model has no vocabulary size; give model.vocab_size=32000, say")

    def ready(self, device_name: str) -> Device:
        """The device, with threads, seed and memory as all sides get them."""
        torch.set_num_threads(self.threads)
        seed_everything(0)
        device = select_device(device_name)
        device.keep_freed_memory()
        return device


def our_trainer(
    model: ModelConfig,
    device: Device,
    groups: Any,
    micro_batch_size: int,
    bf16: bool = False,
    lr: float = 1e-4,
    **kind: Any,
) -> Trainer:
    """A trainer of random weights. kind: `packed` and `objective` of `Trainer`."""
    parallel, adam = ParallelConfig(), OptimizerConfig(lr=lr)
    chunks = parallelize(model, parallel, device, groups, bf16=bf16, seed=0)
    optimizer = build_optimizer(chunks, adam, parallel.use_distributed_optimizer)
    scheduler = build_scheduler(optimizer, adam, train_iters=1_000_000)
    return Trainer(chunks, optimizer, scheduler, model.seq_length, micro_batch_size, **kind)


def peer_model(
    model: ModelConfig, device: Device, dtype: torch.dtype, lr: float
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """The same network as transformers has it, with SDPA, and torch's fused AdamW."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = hf_config(model, dtype, bos=None, eos=None, pad=None)
    sizes |= {"vocab_size": model.padded_vocab_size, "use_cache": False}
    network = LlamaForCausalLM(LlamaConfig(**sizes, attn_implementation="sdpa"))
    network.to(device.torch_device, dtype)
    return network, torch.optim.AdamW(
        network.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )


def random_batch(model: ModelConfig, rows: int) -> Batch:
    """Rows of random ids, every one of which counts."""
    tokens = torch.randint(model.vocab_size, (rows, model.seq_length + 1))
    return {
        "tokens": tokens[:, :-1].contiguous(),
        "labels": tokens[:, 1:].contiguous(),
        "loss_mask": torch.ones(rows, model.seq_length),
        "position_ids": torch.arange(model.seq_length).expand(rows, -1),
    }


def beside_peer(
    peer: str,
    peer_step: Callable[[], Callable[[], None]],
    our_step: Callable[[], Callable[[], None]],
    repeats: int,
    device: Device,
) -> dict[str, list[float]]:
    """Builds both sides in one process; seconds of their steps, which they make in turns."""
    # Built and run outside core's context: its answers for CUDA would slow the peer down.
    steps = {peer: peer_step()}
    with device.core_context(), group_step_adam():
        device.init_distributed(timeout_minutes=10)
        steps[OURS] = our_step()
    try:
        return in_turns(steps, repeats, device)
    finally:
        destroy_process_groups()


def in_turns(
    steps: dict[str, Callable[[], None]], repeats: int, device: Device
) -> dict[str, list[float]]:
    """Seconds of each side's steps, after untimed ones; only ours runs in core's context."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    count = repeats + UNTIMED
    for repeat in Progress(count, "steps of each side", "step").track(range(count)):
        for name, step in steps.items():
            with device.core_context() if name == OURS else contextlib.nullcontext():
                seconds = timed(step, device)
            if repeat >= UNTIMED:
                times[name].append(seconds)
    return times


def timed(step: Callable[[], Any], device: Device) -> float:
    """Seconds of one step, all that it started on the device included."""
    device.synchronize()
    start = time.perf_counter()
    step()
    device.synchronize()
    return time.perf_counter() - start


def side(name: str, seconds: list[float], tokens: float) -> dict[str, Any]:
    """What the report says of one side, whose steps train on `tokens` each."""
    median = statistics.median(seconds)
    return {
        "name": name,
        "step_time_s": median,
        "fastest_s": min(seconds),
        "slowest_s": max(seconds),
        "tokens_per_second": tokens / median,
    }


def measured_on(options: TimedSteps, device: Device) -> dict[str, Any]:
    """The part of a report that tells what was measured, where and when."""
    return {
        "options": asdict(options),
        "hardware": device.name(),
        "versions": versions() | _computing_libraries(device),
        "date": time.strftime("%Y-%m-%d"),
    }


def _computing_libraries(device: Device) -> dict[str, str]:
    """Versions of what computes besides what is in the record of every checkpoint."""
    found = {}
    for name in ("triton", "liger-kernel", "torchtitan"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    if device.kind == "cuda":
        found["cuda"] = str(torch.version.cuda)
        found["cudnn"] = str(torch.backends.cudnn.version())
        found["communication"] = device.communication()
        found |= {k: v for k, v in gpu_health(0).items() if k == "driver"}
    return found
