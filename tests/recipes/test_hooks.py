"""What happens after a step."""

from types import SimpleNamespace

from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.recipes.hooks import SaveOrStop
from megatron_biollm.training.phases import Phases
from megatron_biollm.training.state import TrainState


def test_only_a_save_may_take_long_and_not_to_ask_how_one_in_the_background_goes():
    phases, seen = Phases(), {}
    phases.stepped(4)
    watch = SimpleNamespace(
        phases=phases,
        interrupt=SimpleNamespace(poll=lambda: None, take_save=lambda: False),
        status=SimpleNamespace(committed=lambda: None),
    )
    checkpointer = SimpleNamespace(
        poll=lambda: seen.update(poll=phases.view.slow),
        save=lambda state: seen.update(save=phases.view.slow),
    )
    hook = SaveOrStop(checkpointer, CheckpointConfig(save_interval=4), 8, watch)
    hook(TrainState(step=4), {})
    assert seen == {"poll": False, "save": True}
