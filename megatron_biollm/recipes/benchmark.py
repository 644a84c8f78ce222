"""How fast training is here, beside what people would pick instead, in one run.

Both sides train the same network (padded vocabulary included) in the same process, on the same
batch with the same number of threads, in turns, so that whatever else the machine does meets both.
The figure is the ratio of the median step times.
"""

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from megatron_biollm.config import UserError
from megatron_biollm.conversion.hf_config import hf_config
from megatron_biollm.device.runtime import Device, seed_everything, select_device
from megatron_biollm.log import Progress
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.flops import flops_per_token
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import parallelize
from megatron_biollm.parallel.process_groups import create_process_groups, destroy_process_groups
from megatron_biollm.recipes.sidecars import versions
from megatron_biollm.training.config import OptimizerConfig
from megatron_biollm.training.optimizer import build_optimizer, build_scheduler, group_step_adam
from megatron_biollm.training.step import Batch, Trainer

PEER = "transformers"
OURS = "megatron_biollm"


@dataclass
class TrainBenchmark:
    """What to measure.

    Attributes:
        model: the network; its vocabulary size must be known.
        micro_batch_size: sequences per forward pass.
        num_microbatches: forward passes per step.
        repeats: timed steps of each side, after two untimed ones.
        threads: of torch, for both sides.
        device: cpu, cuda or auto.
        bf16: bf16 weights; ours keep fp32 master weights, the peer's do not.

    Raises:
        UserError: numbers below 1, or no vocabulary size.
    """

    model: ModelConfig
    micro_batch_size: int = 8
    num_microbatches: int = 1
    repeats: int = 10
    threads: int = 1
    device: str = "auto"
    bf16: bool = False

    def __post_init__(self) -> None:
        check_counts(self, "micro_batch_size", "num_microbatches", "repeats", "threads")
        if self.model.vocab_size is None:
            raise UserError("the model has no vocabulary size; give model.vocab_size=32000, say")

    @property
    def tokens_per_step(self) -> int:
        """Tokens that both sides train on in a step."""
        return self.micro_batch_size * self.num_microbatches * self.model.seq_length


def benchmark_training(options: TrainBenchmark) -> dict[str, Any]:
    """Times training steps of both sides in turns, one process.

    Returns:
        Medians and spread per side, the ratio, and what they were measured on.
    """
    torch.set_num_threads(options.threads)
    seed_everything(0)
    device = select_device(options.device)
    device.keep_freed_memory()  # for both sides
    batches = _batches(options)
    # Built and run outside core's context: its answers for CUDA would slow the peer down.
    steps = {PEER: _peer_step(options, device, batches)}
    with device.core_context(), group_step_adam():
        device.init_distributed(timeout_minutes=10)
        steps[OURS] = _our_step(options, device, batches)
    try:
        times = in_turns(steps, options.repeats, device)
    finally:
        destroy_process_groups()
    return _report(options, device, times)


def check_counts(options: Any, *names: str) -> None:
    """Raises UserError where one of the numbers is below 1."""
    for name in names:
        if getattr(options, name) < 1:
            raise UserError(f"{name}={getattr(options, name)} must be at least 1")


def in_turns(
    steps: dict[str, Callable[[], None]], repeats: int, device: Device
) -> dict[str, list[float]]:
    """Seconds of each side's steps, after two untimed ones; only ours runs in core's context."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in Progress(repeats + 2, "steps of each side", "step").track(range(repeats + 2)):
        for name, step in steps.items():
            with device.core_context() if name == OURS else contextlib.nullcontext():
                device.synchronize()
                start = time.perf_counter()
                step()
                device.synchronize()
                if repeat >= 2:
                    times[name].append(time.perf_counter() - start)
    return times


def _batches(options: TrainBenchmark) -> list[Batch]:
    shape = (options.micro_batch_size, options.model.seq_length + 1)
    rows = [torch.randint(options.model.vocab_size, shape) for _ in range(options.num_microbatches)]
    positions = torch.arange(options.model.seq_length).expand(options.micro_batch_size, -1)
    return [
        {
            "tokens": row[:, :-1].contiguous(),
            "labels": row[:, 1:].contiguous(),
            "loss_mask": torch.ones(row.shape[0], row.shape[1] - 1),
            "position_ids": positions,
        }
        for row in rows
    ]


def _our_step(options: TrainBenchmark, device: Device, batches: list[Batch]) -> Callable[[], None]:
    parallel, adam = ParallelConfig(), OptimizerConfig(lr=1e-4)
    groups = create_process_groups(parallel)
    model = parallelize(options.model, parallel, device, groups, bf16=options.bf16, seed=0)
    optimizer = build_optimizer(model, adam, parallel.use_distributed_optimizer)
    trainer = Trainer(
        model,
        optimizer,
        build_scheduler(optimizer, adam, train_iters=1_000_000),
        options.model.seq_length,
        options.micro_batch_size,
    )
    return lambda: trainer.train_step(iter(batches), len(batches))


def _peer_step(options: TrainBenchmark, device: Device, batches: list[Batch]) -> Callable[[], None]:
    """A plain training loop: transformers' model with SDPA, torch's fused AdamW, clipping."""
    from transformers import LlamaConfig, LlamaForCausalLM

    dtype = torch.bfloat16 if options.bf16 else torch.float32
    sizes = hf_config(options.model, dtype, bos=None, eos=None, pad=None)
    sizes |= {"vocab_size": options.model.padded_vocab_size, "use_cache": False}
    model = LlamaForCausalLM(LlamaConfig(**sizes, attn_implementation="sdpa"))
    model.to(device.torch_device, dtype)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            tokens, labels = (batch[k].to(device.torch_device) for k in ("tokens", "labels"))
            # `shift_labels` are aligned with the logits already, as ours are.
            loss = model(input_ids=tokens, labels=labels, shift_labels=labels).loss
            (loss / len(batches)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def _report(
    options: TrainBenchmark, device: Device, times: dict[str, list[float]]
) -> dict[str, Any]:
    peak, source = device.peak_tflops(options.bf16)
    sides = [_side(name, times[name], options, peak) for name in (OURS, PEER)]
    return {
        "rows": sides,
        "ratio": sides[0]["tokens_per_second"] / sides[1]["tokens_per_second"],
        "options": asdict(options),
        "peak_tflops": peak,
        "peak_source": source,
        "hardware": device.name(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _side(name: str, seconds: list[float], options: TrainBenchmark, peak: float) -> dict[str, Any]:
    median = statistics.median(seconds)
    tflops = options.tokens_per_step * flops_per_token(options.model) / median / 1e12
    return {
        "name": name,
        "step_time_s": median,
        "fastest_s": min(seconds),
        "slowest_s": max(seconds),
        "tokens_per_second": options.tokens_per_step / median,
        "tflops": tflops,
        "mfu": tflops / peak if peak else None,
    }


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    model = report["options"]["model"]
    head = (
        f"{report['date']}, {report['hardware']}, torch {report['versions']['torch']}: "
        f"{model['num_layers']} layers, hidden {model['hidden_size']}, sequence "
        f"{model['seq_length']}, vocabulary {model['vocab_size']}, micro-batch "
        f"{report['options']['micro_batch_size']} x {report['options']['num_microbatches']}, "
        f"{'bf16' if report['options']['bf16'] else 'fp32'}"
    )
    lines = [head, "", "| | tokens/s | step (s), median | fastest | slowest | TFLOP/s |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for row in report["rows"]:
        lines.append(
            f"| {row['name']} | {row['tokens_per_second']:,.0f} | {row['step_time_s']:.4f} | "
            f"{row['fastest_s']:.4f} | {row['slowest_s']:.4f} | {row['tflops']:.4f} |"
        )
    return "\n".join([*lines, "", f"ratio {report['ratio']:.3f}"])
