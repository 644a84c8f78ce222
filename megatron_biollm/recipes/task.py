"""What distinguishes one training recipe from another; `run_task.py` runs any of them."""

from pathlib import Path
from typing import Any, Optional

from megatron_biollm.checkpoint.sharded import Checkpointer
from megatron_biollm.config import UserError
from megatron_biollm.data.stream import Datasets
from megatron_biollm.model.gpt import Head
from megatron_biollm.model.lora_config import LoraConfig
from megatron_biollm.recipes.run import Run
from megatron_biollm.recipes.run_config import RunConfig
from megatron_biollm.recipes.sidecars import check_sidecars, write_sidecars
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.tokenizer import Tokenizer
from megatron_biollm.training.objective import Objective
from megatron_biollm.training.step import Trainer


class Task:
    """A recipe: which data, which objective, which rules. Derive from it, and give what differs.

    Attributes:
        new_weights: beginnings of keys of weights that a checkpoint to start from may lack.
    """

    new_weights: tuple[str, ...] = ()

    def check_inputs(self, config: Any) -> None:
        """Looks at what the run will read, before anything is written or any rank is waited for.

        Raises:
            UserError: the data are missing or torn, or there is no checkpoint to load.
        """
        raise NotImplementedError

    def load_tokenizer(self, config: Any) -> tuple[Tokenizer, TokenizerManifest]:
        """The run's tokenizer; the model takes its vocabulary size (`config.set_vocab_size`).

        Raises:
            UserError: no tokenizer, or one that does not match the model or the data.
        """
        raise NotImplementedError

    def open_data(self, run: Run) -> Datasets:
        """The streams of the run, on every rank at once; rank 0 alone makes what is not there yet.

        `stream[i]` depends on the seed and i alone, and has what `Objective.inputs` takes.
        `stream.sources` (each with a `prefix`) and `stream.provenance(i)` are those of
        `data.stream.SampleStream`, for the log of incidents.

        Raises:
            UserError: data that cannot be trained on.
        """
        raise NotImplementedError

    def objective(self, run: Run) -> Objective:
        """What is trained for."""
        return Objective()

    def packed(self, config: Any) -> bool:
        """Whether the documents of a sequence do not see each other."""
        raise NotImplementedError

    def head(self, config: Any) -> Optional[Head]:
        """What takes the place of the model's output layer; None leaves it."""
        return None

    def lora(self, config: Any) -> Optional[LoraConfig]:
        """Adapters that are trained in place of the model; None trains the model itself."""
        return None

    def prepare(
        self, run: Run, trainer: Trainer, checkpointer: Checkpointer, datasets: Datasets
    ) -> bool:
        """What is to be done with the model before it is trained, on every rank; each start of the
        run asks for it, before the run's own checkpoint is restored over the weights.

        Returns:
            Whether the model has the weights of the checkpoint to start from by now.
        """
        return False

    def write_sidecars(self, run: Run, folder: Path) -> None:
        """Writes what a checkpoint must tell about itself; called on rank 0."""
        write_sidecars(run.config, run.tokenizer, folder)

    def check_sidecars(self, run: Run, folder: Path) -> None:
        """Refuses a checkpoint that the run cannot go on or start from.

        Raises:
            UserError: naming both values and both places.
        """
        check_sidecars(run.config, run.manifest, folder)


def check_start(config: RunConfig) -> None:
    """Looks whether there is a checkpoint to load where one is named.

    Raises:
        UserError: there is no such folder.
    """
    load = config.checkpoint.load
    if load is not None and not Path(load).is_dir():
        raise UserError(
            f"checkpoint.load={load} is not a folder; give a run, its checkpoints, or one "
            f"step_XXXXXXXX"
        )
