"""A background save holds the moment of its call."""

import json

import pytest
import torch

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.checkpoint.formats import read_format
from megatron_biollm.training.state import TrainState
from tests.integration.small_run import SmallRun, build_trainer, train_steps


def trainer_and_checkpointer(directory, run, **options):
    from megatron_biollm.checkpoint.sharded import Checkpointer

    trainer = build_trainer(run)
    control = torch.distributed.new_group(backend="gloo")
    checkpointer = Checkpointer(
        directory,
        CheckpointConfig(**options),
        trainer.model,
        trainer.optimizer,
        control,
        lambda folder: (folder / "layout.json").write_text(json.dumps({"world_size": 2})),
        lambda folder: None,
    )
    return trainer, checkpointer


def tensors_of(trainer):
    """Every tensor that training changes: weights, main weights and moments."""
    found = [p.data for chunk in trainer.model.chunks for p in chunk.parameters()]
    for part in getattr(trainer.optimizer, "chained_optimizers", [trainer.optimizer]):
        for parameter, state in part.optimizer.state.items():
            found += [parameter.data, *(v for v in state.values() if torch.is_tensor(v))]
    return found


def save_change_and_load(directory, run, reshardable):
    trainer, checkpointer = trainer_and_checkpointer(directory, run, async_save=True)
    train_steps(trainer, run)
    expected = [tensor.clone() for tensor in tensors_of(trainer)]
    checkpointer.save(TrainState(step=run.steps), reshardable)
    for tensor in tensors_of(trainer):
        tensor.fill_(7.0)
    checkpointer.finish()
    assert checkpointer.load_newest().step == run.steps
    pairs = zip(tensors_of(trainer), expected, strict=True)
    return all(torch.equal(loaded, value) for loaded, value in pairs)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("reshardable", [True, False])
def test_what_changes_after_the_call_does_not_reach_the_checkpoint(
    world, tmp_path, reshardable, bf16
):
    run = SmallRun(steps=2, bf16=bf16)
    assert all(world.run(2, save_change_and_load, tmp_path, run, reshardable))
    assert read_format(verify.step_folder(tmp_path, 2)).is_fast != reshardable
