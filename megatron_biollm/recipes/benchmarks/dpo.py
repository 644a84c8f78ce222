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
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megatron_biollm.config import UserError
from megatron_biollm.device.runtime import Device
from megatron_biollm.finetune.preference_config import PreferenceLossConfig
from megatron_biollm.finetune.preference_dataset import make_row
from megatron_biollm.finetune.preference_objective import PairObjective
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.process_groups import create_process_groups
from megatron_biollm.recipes.benchmarks.timed_training import (
    OURS,
    TimedSteps,
    beside_peer,
    measured_on,
    our_trainer,
    peer_model,
    side,
)
from megatron_biollm.training.step import Batch

PEER = "TRL"
_PAD = 1


@dataclass(kw_only=True)
class DpoBenchmark(TimedSteps):
    """What to measure.

    Attributes:
        pairs: of a step, in one forward pass.

    Raises:
        UserError: as `TimedSteps`, or no TRL.
    """

    pairs: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if importlib.util.find_spec("trl") is None:
            raise UserError("trl is not installed; pip install trl==1.16.0")


def benchmark_dpo(options: DpoBenchmark) -> dict[str, Any]:
    """Times preference steps of both sides in turns, one process, on the CPU.

    Returns:
        Medians and spread per side, the ratio, and what they were measured on.
    """
    device = options.ready("cpu")
    batch = _batch(options)
    times = beside_peer(
        PEER,
        lambda: _peer_step(options, device, batch),
        lambda: _our_step(options, device, batch),
        options.repeats,
        device,
    )
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
    groups, objective = (
        create_process_groups(ParallelConfig()),
        PairObjective(PreferenceLossConfig()),
    )
    trainer = our_trainer(
        options.model, device, groups, options.pairs, lr=1e-5, objective=objective
    )
    return lambda: trainer.train_step(iter([batch]), 1)


def _peer_step(options: DpoBenchmark, device: Device, batch: Batch) -> Callable[[], None]:
    model, optimizer = peer_model(options.model, device, torch.float32, lr=1e-5)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        trainer = peer_trainer(model, Path(folder))
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
    rows = [side(name, times[name], tokens) for name in (OURS, PEER)]
    report = {
        "rows": rows,
        "ratio": rows[0]["tokens_per_second"] / rows[1]["tokens_per_second"],
        "tokens_per_step": tokens,
        **measured_on(options, device),
    }
    report["versions"]["trl"] = version("trl")
    return report


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
