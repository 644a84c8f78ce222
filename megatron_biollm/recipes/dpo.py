"""Preference tuning: DPO and its kin on pairs, KTO on labelled answers."""

from megatron_biollm.checkpoint.sharded import Checkpointer
from megatron_biollm.config import UserError
from megatron_biollm.data.stream import Datasets
from megatron_biollm.finetune.preference_objective import KtoObjective, PairObjective
from megatron_biollm.recipes.finetune_config import FinetuneConfig
from megatron_biollm.recipes.preference_data import ensure_reference, open_preferences
from megatron_biollm.recipes.run import Run
from megatron_biollm.recipes.sft import InstructionTuning
from megatron_biollm.training.objective import Objective
from megatron_biollm.training.step import Trainer


class PreferenceTuning(InstructionTuning):
    """Away from what people reject, and not far from the model that the run starts from."""

    def check_inputs(self, config: FinetuneConfig) -> None:
        super().check_inputs(config)
        if config.checkpoint.load is None:
            raise UserError(
                "checkpoint.load is not given, and finetune.recipe=dpo tunes a model against the "
                "one that it starts from; give the run of an instruction-tuned model"
            )

    def open_data(self, run: Run) -> Datasets:
        return open_preferences(run, labelled=run.config.finetune.loss_type == "kto")

    def objective(self, run: Run) -> Objective:
        options = run.config.finetune
        return (KtoObjective if options.loss_type == "kto" else PairObjective)(options)

    def packed(self, config: FinetuneConfig) -> bool:
        return False

    def prepare(
        self, run: Run, trainer: Trainer, checkpointer: Checkpointer, datasets: Datasets
    ) -> bool:
        return ensure_reference(run, trainer, checkpointer, datasets)
