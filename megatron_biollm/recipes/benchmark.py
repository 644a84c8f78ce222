"""How fast training is here, beside what people would pick instead, in one run.

Both sides train the same network (padded vocabulary included) in the same process, on the same
batch with the same number of threads, in turns, so that whatever else the machine does meets both.
The figure is the ratio of the median step times.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from megatron_biollm.device.runtime import Device
from megatron_biollm.model.flops import flops_per_token
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.process_groups import create_process_groups
from megatron_biollm.recipes.timed_training import (
    OURS,
    TimedSteps,
    beside_peer,
    measured_on,
    our_trainer,
    peer_model,
    random_batch,
    side,
)
from megatron_biollm.training.step import Batch

PEER = "transformers"


@dataclass(kw_only=True)
class TrainBenchmark(TimedSteps):
    """What to measure.

    Attributes:
        micro_batch_size: sequences per forward pass.
        num_microbatches: forward passes per step.
        device: cpu, cuda or auto.
        bf16: bf16 weights; ours keep fp32 master weights, the peer's do not.
    """

    micro_batch_size: int = 8
    num_microbatches: int = 1
    device: str = "auto"
    bf16: bool = False

    @property
    def tokens_per_step(self) -> int:
        """Tokens that both sides train on in a step."""
        return self.micro_batch_size * self.num_microbatches * self.model.seq_length


def benchmark_training(options: TrainBenchmark) -> dict[str, Any]:
    """Times training steps of both sides in turns, one process.

    Returns:
        Medians and spread per side, the ratio, and what they were measured on.
    """
    device = options.ready(options.device)
    batches = [
        random_batch(options.model, options.micro_batch_size)
        for _ in range(options.num_microbatches)
    ]
    times = beside_peer(
        PEER,
        lambda: _peer_step(options, device, batches),
        lambda: _our_step(options, device, batches),
        options.repeats,
        device,
    )
    return _report(options, device, times)


def _our_step(options: TrainBenchmark, device: Device, batches: list[Batch]) -> Callable[[], None]:
    groups = create_process_groups(ParallelConfig())
    trainer = our_trainer(options.model, device, groups, options.micro_batch_size, options.bf16)
    return lambda: trainer.train_step(iter(batches), len(batches))


def _peer_step(options: TrainBenchmark, device: Device, batches: list[Batch]) -> Callable[[], None]:
    """A plain training loop: transformers' model, torch's fused AdamW, clipping."""
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    model, optimizer = peer_model(options.model, device, dtype, lr=1e-4)

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
        "peak_tflops": peak,
        "peak_source": source,
        **measured_on(options, device),
    }


def _side(name: str, seconds: list[float], options: TrainBenchmark, peak: float) -> dict[str, Any]:
    row = side(name, seconds, options.tokens_per_step)
    tflops = row["tokens_per_second"] * flops_per_token(options.model) / 1e12
    return row | {"tflops": tflops, "mfu": tflops / peak if peak else None}


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
