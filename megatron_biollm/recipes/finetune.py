"""Fine-tuning: one recipe, or several stages each of which starts from the last."""

from collections.abc import Sequence
from typing import Optional

from megatron_biollm.launch.status import read_status
from megatron_biollm.log import get_logger
from megatron_biollm.recipes.dpo import PreferenceTuning
from megatron_biollm.recipes.finetune_config import FinetuneConfig
from megatron_biollm.recipes.reward import RewardModelling
from megatron_biollm.recipes.run_task import run_task
from megatron_biollm.recipes.sft import InstructionTuning, check_files
from megatron_biollm.recipes.task import Task
from megatron_biollm.training.signals import StopSignals
from megatron_biollm.training.state import TrainState

TASKS = {"sft": InstructionTuning, "reward": RewardModelling, "dpo": PreferenceTuning}
logger = get_logger(__name__)


def finetune(
    stages: Sequence[FinetuneConfig], signals: Optional[StopSignals] = None
) -> Optional[TrainState]:
    """Runs the stages in order; goes on where an earlier start was stopped.

    A stage that is finished is not repeated. Asked to stop, the stage saves, and the later ones
    wait for the next start.

    Args:
        stages: as `load_stages` gives them.
        signals: noted since the process has started; None notes them from now on.

    Returns:
        How far the last stage that ran has come; None where all were finished before.

    Raises:
        UserError: anything in the configuration, the data or a checkpoint that a user can mend.
    """
    for config in stages:  # what is wrong with the last stage is told before the first begins
        check_files(config)
    state = None
    for config in stages:
        if len(stages) > 1 and is_finished(config):
            logger.info("%s is finished already", config.run_dir)
            continue
        state = run_task(config, task_of(config), signals)
        if state.step < config.training.train_iters:
            return state
    return state


def task_of(config: FinetuneConfig) -> Task:
    """The task of a stage's recipe."""
    return TASKS[config.finetune.recipe]()


def is_finished(config: FinetuneConfig) -> bool:
    """Whether a stage has come to its last step, and saved it."""
    status = read_status(config.run_path)
    if status is None or status.state != "finished":
        return False
    return (status.committed_step or 0) >= config.training.train_iters
