"""What packing conversations is worth: the same training step on packed and on padded rows.

All sides train the same network with the same number of rows a step, in turns in one process, so
that whatever else the machine does meets all of them. The figure is that of tokens of
conversations, not of padding.
"""

import itertools
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from megatron_biollm.data.sampler import micro_batches
from megatron_biollm.device.runtime import Device
from megatron_biollm.finetune.sft_dataset import RowSettings, open_blend
from megatron_biollm.finetune.token_cache import TokenCache, ensure_tokens
from megatron_biollm.log import Progress
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.process_groups import create_process_groups, destroy_process_groups
from megatron_biollm.recipes.benchmarks.timed_training import (
    UNTIMED,
    TimedSteps,
    measured_on,
    our_trainer,
    timed,
)
from megatron_biollm.tokenizer.chat_template import load_chat_template
from megatron_biollm.tokenizer.tokenizer import Tokenizer, TokenizerConfig, build_tokenizer
from megatron_biollm.training.optimizer import group_step_adam
from megatron_biollm.training.step import Batch, Trainer

PACKED, LONGEST, WHOLE = "packed", "padded to the longest", "padded to seq_length"


@dataclass(kw_only=True)
class SftBenchmark(TimedSteps):
    """What to measure; the tokenizer gives the model's vocabulary.

    Attributes:
        input: JSON lines of conversations.
        tokenizer_model: as `tokenizer.tokenizer_model`.
        micro_batch_size: rows per forward pass of every side.
        num_microbatches: forward passes per step.
        device: cpu, cuda or auto.
        bf16: bf16 weights with fp32 master weights.
    """

    input: str
    tokenizer_model: str
    micro_batch_size: int = 1
    num_microbatches: int = 8
    device: str = "auto"
    bf16: bool = False

    def _check_vocabulary(self) -> None:
        pass


@dataclass
class Side:
    """One way of filling rows, and what was measured of it.

    Attributes:
        tokens: of conversations, in each timed step.
        seconds: of each timed step.
    """

    name: str
    trainer: Trainer
    batches: Iterator[Batch]
    tokens: list[int]
    seconds: list[float]


def benchmark_sft(options: SftBenchmark) -> dict[str, Any]:
    """Times training steps on packed and padded rows in turns, one process.

    Returns:
        Medians and spread per side, the ratios to packed rows, and what they were measured on.
    """
    device = options.ready(options.device)
    tokenizer = build_tokenizer(TokenizerConfig(tokenizer_model=options.tokenizer_model))
    options.model.vocab_size = tokenizer.vocab_size
    with tempfile.TemporaryDirectory() as folder:
        cache = _tokens(options, tokenizer, folder)
        with device.core_context(), group_step_adam():
            device.init_distributed(timeout_minutes=10)
            try:
                sides = _sides(options, device, cache, tokenizer.eod)
                _in_turns(sides, options, device)
            finally:
                destroy_process_groups()
        return _report(options, device, cache, sides)


def _tokens(options: SftBenchmark, tokenizer: Tokenizer, folder: str) -> TokenCache:
    template = load_chat_template(tokenizer)
    return ensure_tokens(
        options.input, template, tokenizer.sha256, options.model.seq_length, folder
    )


def _sides(options: SftBenchmark, device: Device, cache: TokenCache, pad: int) -> list[Side]:
    groups = create_process_groups(ParallelConfig())
    rows = RowSettings(options.model.seq_length, pad, seed=0, packing=True)
    sides = []
    for name in (PACKED, LONGEST, WHOLE):
        packed = name == PACKED
        settings = replace(rows, packing=packed)
        stream = open_blend([cache.file], {cache.file: cache}, settings, endless=True)
        batches = micro_batches(stream, 0, options.micro_batch_size, 0, 1)
        trainer = our_trainer(
            options.model, device, groups, options.micro_batch_size, options.bf16, packed=packed
        )
        sides.append(Side(name, trainer, batches, [], []))
    return sides


def _untrimmed(batch: Batch) -> Batch:
    return {name: value for name, value in batch.items() if name != "length"}


def _in_turns(sides: list[Side], options: SftBenchmark, device: Device) -> None:
    count = options.repeats + UNTIMED
    for repeat in Progress(count, "steps of each side", "step").track(range(count)):
        for side in sides:
            taken = list(itertools.islice(side.batches, options.num_microbatches))
            tokens = sum(int(batch["length"].sum()) for batch in taken)
            if side.name == WHOLE:
                taken = [_untrimmed(batch) for batch in taken]
            step = partial(side.trainer.train_step, iter(taken), len(taken))
            seconds = timed(step, device)
            if repeat >= UNTIMED:
                side.seconds.append(seconds)
                side.tokens.append(tokens)


def _report(
    options: SftBenchmark, device: Device, cache: TokenCache, sides: list[Side]
) -> dict[str, Any]:
    rows = [_side(side, options) for side in sides]
    first = rows[0]["tokens_per_second"]
    return {
        "rows": rows,
        "ratios": {row["name"]: first / row["tokens_per_second"] for row in rows[1:]},
        "conversations": asdict(cache.counts),
        **measured_on(options, device),
    }


def _side(side: Side, options: SftBenchmark) -> dict[str, Any]:
    speeds = [count / spent for count, spent in zip(side.tokens, side.seconds, strict=True)]
    places = options.micro_batch_size * options.num_microbatches * options.model.seq_length
    return {
        "name": side.name,
        "tokens_per_second": statistics.median(speeds),
        "slowest": min(speeds),
        "fastest": max(speeds),
        "step_time_s": statistics.median(side.seconds),
        "tokens_per_step": statistics.mean(side.tokens),
        "places_taken": statistics.mean(side.tokens) / places,
    }


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    options, counts = report["options"], report["conversations"]
    model, mean = options["model"], counts["tokens"] / counts["kept"]
    head = (
        f"{report['date']}, {report['hardware']}, torch {report['versions']['torch']}: "
        f"{model['num_layers']} layers, hidden {model['hidden_size']}, sequence "
        f"{model['seq_length']}, vocabulary {model['vocab_size']}, micro-batch "
        f"{options['micro_batch_size']} x {options['num_microbatches']}, "
        f"{'bf16' if options['bf16'] else 'fp32'}; {counts['kept']:,} conversations of "
        f"{mean:.0f} tokens on average"
    )
    lines = [head, "", "| rows | tokens/s, median | slowest | fastest | step (s) | places taken |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for row in report["rows"]:
        lines.append(
            f"| {row['name']} | {row['tokens_per_second']:,.0f} | {row['slowest']:,.0f} | "
            f"{row['fastest']:,.0f} | {row['step_time_s']:.4f} | {row['places_taken']:.1%} |"
        )
    ratios = (f"packed beside {name}: {ratio:.2f}" for name, ratio in report["ratios"].items())
    return "\n".join([*lines, "", "; ".join(ratios)])
