"""What every part of a training recipe needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import torch

from megatron_biollm.data.sampler import micro_batches
from megatron_biollm.device.runtime import Device
from megatron_biollm.parallel.parallelize import ParallelModel
from megatron_biollm.recipes.run_config import RunConfig
from megatron_biollm.recipes.startup import Startup
from megatron_biollm.recipes.supervision import Supervision
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.tokenizer import Tokenizer
from megatron_biollm.training.step import Batch


@dataclass
class Run:
    """What every part of the recipe needs.

    Attributes:
        config: resolved, vocabulary size included.
        device: of this process.
        control: gloo group of all ranks.
        tokenizer: of the run.
        manifest: the tokenizer's contract with data and checkpoints.
        watch: requests to stop, status, phases.
        startup: what the time until the first step is spent on.
    """

    config: RunConfig
    device: Device
    control: torch.distributed.ProcessGroup
    tokenizer: Tokenizer
    manifest: TokenizerManifest
    watch: Supervision
    startup: Startup

    def batches(
        self, model: ParallelModel, stream: Any, first: int, num_workers: Optional[int] = None
    ) -> Iterator[Batch]:
        """Micro-batches of this rank from sample `first` of the stream on.

        Worker processes have those of the next step ready while one is computed.
        """
        data_parallel, training = model.groups.dp, self.config.training
        per_pass = training.micro_batch_size * data_parallel.size()
        return micro_batches(
            stream,
            first,
            training.micro_batch_size,
            data_parallel.rank(),
            data_parallel.size(),
            self.config.data.num_workers if num_workers is None else num_workers,
            ahead=training.global_batch_size // per_pass,
            pinned=self.device.kind == "cuda",
        )
