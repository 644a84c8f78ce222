"""A reward model: a language model with one number in place of its words, trained on pairs."""

from typing import Optional

from megatron_biollm.data.stream import Datasets
from megatron_biollm.finetune.preference_objective import RewardObjective
from megatron_biollm.model.gpt import Head
from megatron_biollm.model.scalar_head import SCALAR_HEAD_KEY, ScalarHead
from megatron_biollm.recipes.finetune_config import FinetuneConfig
from megatron_biollm.recipes.preference_data import open_preferences
from megatron_biollm.recipes.run import Run
from megatron_biollm.recipes.sft import InstructionTuning
from megatron_biollm.training.objective import Objective


class RewardModelling(InstructionTuning):
    """Scores of chosen answers above those of rejected ones.

    Starts from an instruction-tuned model's checkpoint; the head begins as the seed draws it.
    """

    new_weights = (SCALAR_HEAD_KEY,)

    def open_data(self, run: Run) -> Datasets:
        return open_preferences(run, labelled=False)

    def objective(self, run: Run) -> Objective:
        options = run.config.finetune
        return RewardObjective(options.center_rewards_coefficient, options.use_margin)

    def packed(self, config: FinetuneConfig) -> bool:
        return False

    def head(self, config: FinetuneConfig) -> Optional[Head]:
        return ScalarHead
