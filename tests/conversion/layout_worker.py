"""Run by torchrun: loads an imported checkpoint in a layout and saves a training checkpoint."""

import json
import shutil
import sys
from pathlib import Path

import yaml

from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.checkpoint.sharded import Checkpointer
from megatron_biollm.device.runtime import select_device
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import parallelize
from megatron_biollm.parallel.process_groups import (
    control_group,
    create_process_groups,
    destroy_process_groups,
)
from megatron_biollm.training.config import OptimizerConfig
from megatron_biollm.training.optimizer import build_optimizer, group_step_adam
from megatron_biollm.training.state import TrainState


def main(source: Path, directory: Path, layout: dict) -> None:
    device, parallel = select_device("cpu"), ParallelConfig(**layout)
    sizes = ModelConfig(**yaml.safe_load((source / "config.yaml").read_text())["model"])
    with device.core_context(), group_step_adam():
        device.init_distributed(5)
        groups = create_process_groups(parallel)
        model = parallelize(sizes, parallel, device, groups, bf16=False, seed=5)
        optimizer = build_optimizer(model, OptimizerConfig(), parallel.use_distributed_optimizer)
        checkpointer = Checkpointer(
            directory,
            CheckpointConfig(),
            model,
            optimizer,
            control_group(5),
            write_sidecars=lambda folder: shutil.copy(source / "config.yaml", folder),
            check_sidecars=lambda folder: None,
        )
        # Adam has no state to save before its first step. Core makes it by a step without
        # gradients, which still decays the weights, so it comes before they are loaded.
        for part in getattr(optimizer, "chained_optimizers", [optimizer]):
            part._init_optimizer_states_with_dummy_values()
        assert checkpointer.load_from(source, with_optimizer=True) == TrainState()
        checkpointer.save(TrainState(step=7))
        checkpointer.finish()
        destroy_process_groups()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
