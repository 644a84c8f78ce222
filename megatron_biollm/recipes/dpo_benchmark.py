"""How fast preference tuning is here, beside TRL's `DPOTrainer`, in one process.

Both sides train the same network on the same pairs with the same reference log-probabilities,
computed beforehand, in turns. A step of TRL's is what its trainer makes of a collated batch: its
own loss (with the metrics that it always computes), the backward pass, clipping and AdamW; ours is
`Trainer.train_step`, with its metrics. Either pads to the longest row of the batch. The figure is
the ratio of the median step times; tokens are those of prompts and answers, without padding.
"""

import contextlib
import importlib.util
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megatron_biollm.config import UserError
from megatron_biollm.conversion.hf_config import hf_config
from megatron_biollm.device.runtime import Device, seed_everything, select_device
from megatron_biollm.finetune.preference_config import PreferenceLossConfig
from megatron_biollm.finetune.preference_dataset import make_row
from megatron_biollm.finetune.preference_objective import PairObjective
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import parallelize
from megatron_biollm.parallel.process_groups import create_process_groups, destroy_process_groups
from megatron_biollm.recipes.benchmark import OURS, check_counts, in_turns
from megatron_biollm.recipes.sidecars import versions
from megatron_biollm.training.config import OptimizerConfig
from megatron_biollm.training.optimizer import build_optimizer, build_scheduler, group_step_adam
from megatron_biollm.training.step import Batch, Trainer

PEER = "TRL"
_PAD = 1


@dataclass
class DpoBenchmark:
    """What to measure.

    Attributes:
        model: the network; its vocabulary size must be known.
        pairs: of a step, in one forward pass.
        repeats: timed steps of each side, after two untimed ones.
        threads: of torch, for both sides.

    Raises:
        UserError: numbers below 1, no vocabulary size, or no TRL.
    """

    model: ModelConfig
    pairs: int = 4
    repeats: int = 10
    threads: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "pairs", "repeats", "threads")
        if self.model.vocab_size is None:
            raise UserError("the model has no vocabulary size; give model.vocab_size=32000, say")
        if importlib.util.find_spec("trl") is None:
            raise UserError("trl is not installed; pip install trl==1.16.0")


def benchmark_dpo(options: DpoBenchmark) -> dict[str, Any]:
    """Times preference steps of both sides in turns, one process, on the CPU.

    Returns:
        Medians and spread per side, the ratio, and what they were measured on.
    """
    torch.set_num_threads(options.threads)
    seed_everything(0)
    device, batch = select_device("cpu"), _batch(options)
    device.keep_freed_memory()  # for both sides
    # Built and run outside core's context: its answers for CUDA would slow the peer down.
    steps = {PEER: _peer_step(options, batch)}
    with device.core_context(), group_step_adam():
        device.init_distributed(timeout_minutes=10)
        steps[OURS] = _our_step(options, device, batch)
    try:
        times = in_turns(steps, options.repeats, device)
    finally:
        destroy_process_groups()
    return _report(options, device, times, int(batch["length"].sum()))


def _batch(options: DpoBenchmark) -> Batch:
    """Pairs of random ids: prompts of a quarter of the rows at most, answers of what is left."""
    length, random = options.model.seq_length, np.random.default_rng(0)
    samples = []
    for _ in range(options.pairs):
        prompt = random.integers(2, options.model.vocab_size, random.integers(4, length // 4))
        rows = []
        for _ in range(2):
            size = random.integers(4, length - len(prompt) + 1)
            tokens = np.append(prompt, random.integers(2, options.model.vocab_size, size))
            rows.append(make_row(tokens, np.arange(len(tokens)) >= len(prompt), length, _PAD))
        samples.append({name: torch.stack([row[name] for row in rows]) for name in rows[0]})
    batch = {name: torch.stack([one[name] for one in samples]) for name in samples[0]}
    answers = batch["loss_mask"].sum(-1).double()
    return batch | {"reference": -answers * np.log(options.model.vocab_size)}


def _our_step(options: DpoBenchmark, device: Device, batch: Batch) -> Callable[[], None]:
    parallel, adam = ParallelConfig(), OptimizerConfig(lr=1e-5)
    groups = create_process_groups(parallel)
    model = parallelize(options.model, parallel, device, groups, bf16=False, seed=0)
    optimizer = build_optimizer(model, adam, parallel.use_distributed_optimizer)
    trainer = Trainer(
        model,
        optimizer,
        build_scheduler(optimizer, adam, train_iters=1_000_000),
        options.model.seq_length,
        options.pairs,
        objective=PairObjective(PreferenceLossConfig()),
    )
    return lambda: trainer.train_step(iter([batch]), 1)


def _peer_step(options: DpoBenchmark, batch: Batch) -> Callable[[], None]:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = hf_config(options.model, torch.float32, bos=None, eos=None, pad=None)
    sizes |= {"vocab_size": options.model.padded_vocab_size, "use_cache": False}
    model = LlamaForCausalLM(LlamaConfig(**sizes, attn_implementation="sdpa"))
    with quiet(), tempfile.TemporaryDirectory() as folder:
        trainer = peer_trainer(model, Path(folder))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    theirs = as_collated(batch)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        trainer.compute_loss(model, theirs).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def peer_trainer(model: torch.nn.Module, folder: Path) -> Any:
    """TRL's trainer over `model`, which takes reference log-probabilities from its batches."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "a": 2, "b": 3}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="</s>", pad_token="</s>", bos_token="</s>"
    )
    # It wants a data set to be made; the batch that it trains on is given by hand.
    rows = Dataset.from_list([{"prompt": "a", "chosen": " a", "rejected": " b"}])
    config = DPOConfig(
        output_dir=str(folder),
        report_to=[],
        use_cpu=True,
        bf16=False,
        precompute_ref_log_probs=True,
    )
    return DPOTrainer(model, None, config, train_dataset=rows, processing_class=tokenizer)


def as_collated(batch: Batch) -> dict[str, torch.Tensor]:
    """The pairs as TRL's collator lays them: chosen rows, then rejected, to the longest of them."""
    longest = int(batch["length"].max())
    tokens = batch["tokens"].transpose(0, 1).flatten(0, 1)[:, :longest]
    place = torch.arange(longest)
    length = batch["length"].T.flatten()[:, None]
    answer = batch["loss_mask"].transpose(0, 1).flatten(0, 1)[:, :longest]
    first = answer.argmax(1, keepdim=True) + 1  # the label's place is one before the token's
    return {
        "input_ids": tokens.contiguous(),
        "attention_mask": (place < length).long(),
        "completion_mask": ((place >= first) & (place < length)).long(),
        "ref_chosen_logps": batch["reference"][:, 0].float(),
        "ref_rejected_logps": batch["reference"][:, 1].float(),
    }


@contextlib.contextmanager
def quiet() -> Any:
    """TRL warns about what it will drop, and draws progress bars."""
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere:
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(nowhere):
            yield


def _report(
    options: DpoBenchmark, device: Device, times: dict[str, list[float]], tokens: int
) -> dict[str, Any]:
    rows = [
        {
            "name": name,
            "step_time_s": statistics.median(times[name]),
            "fastest_s": min(times[name]),
            "slowest_s": max(times[name]),
            "tokens_per_second": tokens / statistics.median(times[name]),
        }
        for name in (OURS, PEER)
    ]
    return {
        "rows": rows,
        "ratio": rows[0]["tokens_per_second"] / rows[1]["tokens_per_second"],
        "tokens_per_step": tokens,
        "options": asdict(options),
        "hardware": device.name(),
        "versions": versions() | {"trl": version("trl")},
        "date": time.strftime("%Y-%m-%d"),
    }


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    model, options = report["options"]["model"], report["options"]
    head = (
        f"{report['date']}, {report['hardware']}, torch {report['versions']['torch']}, TRL "
        f"{report['versions']['trl']}: {model['num_layers']} layers, hidden "
        f"{model['hidden_size']}, vocabulary {model['vocab_size']}, {options['pairs']} pairs of "
        f"{report['tokens_per_step']} tokens a step, fp32, {options['threads']} threads"
    )
    lines = [head, "", "| | tokens/s | step (s), median | fastest | slowest |"]
    lines.append("|---|---|---|---|---|")
    for row in report["rows"]:
        lines.append(
            f"| {row['name']} | {row['tokens_per_second']:,.0f} | {row['step_time_s']:.4f} | "
            f"{row['fastest_s']:.4f} | {row['slowest_s']:.4f} |"
        )
    return "\n".join([*lines, "", f"ratio {report['ratio']:.3f}"])
