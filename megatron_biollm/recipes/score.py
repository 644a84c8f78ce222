"""Scores of answers by a reward model, and how well they rank pairs that people have judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megatron_biollm.config import UserError, load_config
from megatron_biollm.device.runtime import Device, select_device
from megatron_biollm.finetune.preference_dataset import make_row
from megatron_biollm.finetune.preference_objective import Scores
from megatron_biollm.finetune.preferences import Pair
from megatron_biollm.log import get_logger
from megatron_biollm.model.scalar_head import ScalarHead
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.recipes.generate import (
    GenerateConfig,
    candidates,
    choose_layout,
    joined_world,
    load_frozen,
    newest_good,
    of_rank_0,
)
from megatron_biollm.recipes.run_config import load_model_config, recipe_of
from megatron_biollm.tokenizer.chat_template import ChatTemplate, load_chat_template
from megatron_biollm.training.step import Trainer

Conversation = list[dict[str, str]]
logger = get_logger(__name__)


@dataclass
class RewardModel:
    """A reward model in memory, on this rank of one copy of it.

    Attributes:
        step: runs it forward.
        template: writes conversations.
        pad: id that fills rows up.
    """

    step: Trainer
    template: ChatTemplate
    pad: int

    def score(self, conversations: Sequence[Conversation]) -> list[float]:
        """The reward of each conversation's last answer; every rank gives the same.

        What is longer than the model has seen (model.seq_length) is cut at its end, with a warning.

        Raises:
            UserError: a conversation that the template cannot write, or whose last word is not the
                assistant's.
        """
        rows = [self._tokens(messages) for messages in conversations]
        by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # little padding
        scores: dict[int, float] = {}
        for start in range(0, len(rows), self.step.micro_batch_size):
            chosen = by_length[start : start + self.step.micro_batch_size]
            chosen += chosen[-1:] * (self.step.micro_batch_size - len(chosen))
            found = self._forward([rows[i] for i in chosen])
            scores |= dict(zip(chosen, found, strict=True))
        return [scores[i] for i in range(len(rows))]

    def _tokens(self, messages: Conversation) -> list[int]:
        if not messages or messages[-1].get("role") != "assistant":
            raise UserError(
                "a conversation to score must end with what the assistant says; add the answer"
            )
        tokens = self.template.encode(messages).tokens
        longest = self.step.seq_length
        if len(tokens) > longest:
            logger.warning("%d tokens are cut to model.seq_length=%d", len(tokens), longest)
        return tokens[:longest]

    def _forward(self, rows: list[list[int]]) -> list[float]:
        empty = np.zeros(self.step.seq_length, bool)
        made = [
            make_row(np.array(row), empty[: len(row)], self.step.seq_length, self.pad)
            for row in rows
        ]
        batch = {name: torch.stack([row[name][None] for row in made]) for name in made[0]}
        found = self.step.outputs(iter([batch]), 1)
        scores = found[0]["scores"][:, 0] if found else torch.zeros(len(rows), dtype=torch.float64)
        pp = self.step.model.groups.pp
        scores = scores.to(self.step.device)
        last = torch.distributed.get_process_group_ranks(pp)[-1]
        torch.distributed.broadcast(scores, src=last, group=pp)
        return scores.tolist()


def score(
    checkpoint: Path,
    conversations: Sequence[Conversation],
    device_name: str = "auto",
    overrides: Sequence[str] = (),
    micro_batch_size: int = 8,
) -> list[float]:
    """The reward of each conversation's last answer; every rank returns the same.

    Args:
        checkpoint: folder of a step of a reward run; or of the run, for its newest good one.
        conversations: lists of messages that end with the assistant's; those of rank 0 count.
        device_name: cpu, cuda or auto.
        overrides: `parallel.field=value`, as for generation.
        micro_batch_size: conversations at once.

    Raises:
        UserError: anything in the checkpoint, the conversations or the layout that a user can mend.
    """
    asked = load_config(GenerateConfig, None, overrides).parallel if overrides else None
    folders = candidates(checkpoint)
    device = select_device(device_name)
    with device.core_context(), joined_world(device) as control:
        folder = newest_good(folders, control)
        layout = choose_layout(asked, load_model_config(folder).parallel, control.size())
        model = load_reward_model(folder, layout, device, micro_batch_size)
        return model.score(of_rank_0(list(conversations), control))


def load_reward_model(
    folder: Path, layout: ParallelConfig, device: Device, micro_batch_size: int
) -> RewardModel:
    """The reward model of a checkpoint on this rank.

    Raises:
        UserError: it is of a language model, or sizes that do not fit weights or layout.
    """
    if recipe_of(folder) != "reward":
        raise UserError(
            f"{folder} is no reward model (its recipe is {recipe_of(folder)}); give the "
            f"checkpoint of a run with finetune.recipe=reward"
        )
    config = load_model_config(folder)
    model, tokenizer = load_frozen(folder, config, layout, device, head=ScalarHead)
    # Nothing is trained, so there is neither optimizer nor schedule.
    step = Trainer(
        model, None, None, config.model.seq_length, micro_batch_size, objective=Scores((0,))
    )
    pad = tokenizer.eod if tokenizer.pad is None else tokenizer.pad
    return RewardModel(step, load_chat_template(tokenizer), pad)


def rank_pairs(pairs: Sequence[Pair], scores: Sequence[float]) -> dict[str, Any]:
    """How often the score of chosen is above that of rejected.

    Args:
        pairs: judged by people.
        scores: of chosen and rejected by turns.

    Returns:
        accuracy (a tie is half a hit) with its 95 % interval, by resampling prompts, since pairs of
        one prompt share answers; the same of the rule that the longer answer wins; counts.
    """
    chosen, rejected = np.array(scores[::2]), np.array(scores[1::2])
    lengths = [[len(answer[-1]["content"]) for answer in pair.answers] for pair in pairs]
    longer, shorter = np.array(lengths).T
    prompts = [pair.prompt[-1]["content"] for pair in pairs]
    return {
        "pairs": len(pairs),
        "prompts": len(set(prompts)),
        **_accuracy("accuracy", chosen, rejected, prompts),
        **_accuracy("longer_wins", longer, shorter, prompts),
        "mean_margin": float((chosen - rejected).mean()),
    }


def _accuracy(
    name: str, better: np.ndarray, worse: np.ndarray, groups: Sequence[str], draws: int = 10_000
) -> dict[str, Any]:
    hits = (better > worse) + 0.5 * (better == worse)
    _, place = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(place, hits), np.bincount(place)
    picks = np.random.default_rng(0).integers(len(sums), size=(draws, len(sums)))
    drawn = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {name: float(hits.mean()), f"{name}_interval": [float(low), float(high)]}
