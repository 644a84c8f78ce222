"""The configuration of a run: every room's section, and the rules that span rooms."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.config import UserError, load_config, option, read_layers, section
from megatron_biollm.data.config import DataConfig
from megatron_biollm.evaluation.config import EvaluationConfig
from megatron_biollm.launch.config import WatchConfig
from megatron_biollm.log import LoggingConfig
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig, check_model_fits_layout
from megatron_biollm.parallel.precision import check_fp8_sizes
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig
from megatron_biollm.training.config import OptimizerConfig, TrainingConfig
from megatron_biollm.training.stability import StabilityConfig


@dataclass
class RunConfig:
    """One run. Every rule is checked here, before any process group exists.

    Raises:
        UserError: sections that contradict each other.
    """

    run_dir: str = option("runs/run", "folder that holds everything the run writes")
    model: ModelConfig = section(ModelConfig, "the network")
    parallel: ParallelConfig = section(ParallelConfig, "how it lies on ranks")
    data: DataConfig = section(DataConfig, "indexed corpora and their blend")
    tokenizer: TokenizerConfig = section(TokenizerConfig, "text to ids")
    optimizer: OptimizerConfig = section(OptimizerConfig, "AdamW and its schedule")
    training: TrainingConfig = section(TrainingConfig, "batches, length, precision, validation")
    stability: StabilityConfig = section(StabilityConfig, "steps that are not healthy")
    checkpoint: CheckpointConfig = section(CheckpointConfig, "saving and loading")
    logging: LoggingConfig = section(LoggingConfig, "metrics besides metrics.jsonl")
    watch: WatchConfig = section(WatchConfig, "heartbeats, ranks that hang, ranks that are slow")
    evaluation: EvaluationConfig = section(EvaluationConfig, "benchmarks scored during the run")

    def __post_init__(self) -> None:
        check_model_fits_layout(self.model, self.parallel)
        # Every data-parallel size from 1 up must work; the smallest is checked here already.
        self.training.check_batches(data_parallel_size=1)
        self._check_fp8()
        self._check_packing()
        self._check_schedule()
        self._check_evaluation()

    @property
    def run_path(self) -> Path:
        """`run_dir` as a path."""
        return Path(self.run_dir)

    @property
    def checkpoints(self) -> Path:
        """Where the run's checkpoints lie."""
        return self.run_path / "checkpoints"

    def check_world(self, world_size: int) -> None:
        """Checks what depends on the number of processes.

        Raises:
            UserError: the world does not fit the degrees, or the batches do not fit the world.
        """
        data_parallel = self.parallel.data_parallel_size(world_size)
        self.training.check_batches(data_parallel)
        if not self.parallel.virtual_pipeline_model_parallel_size:
            return
        pipeline = self.parallel.pipeline_model_parallel_size
        width = self.training.micro_batch_size * data_parallel
        for size in (self.training.global_batch_size, *self.training.rampup_batch_size[:2]):
            if size // width % pipeline:
                raise UserError(
                    f"the interleaved schedule needs micro-batches per step ({size // width} for "
                    f"{size} sequences) to be a multiple of "
                    f"parallel.pipeline_model_parallel_size={pipeline}; change "
                    f"training.global_batch_size, its ramp or micro_batch_size"
                )

    def set_vocab_size(self, vocab_size: int, where: str) -> None:
        """Takes the true vocabulary size from the tokenizer.

        Raises:
            UserError: the model is configured for another size, or it does not fit the layout.
        """
        if self.model.vocab_size not in (None, vocab_size):
            raise UserError(
                f"model.vocab_size={self.model.vocab_size}, but {where} has {vocab_size} entries; "
                f"unset model.vocab_size or use the tokenizer it was meant for"
            )
        self.model.vocab_size = vocab_size
        check_model_fits_layout(self.model, self.parallel)

    def _check_fp8(self) -> None:
        training = self.training
        if training.fp8 is None:
            return
        if self.model.transformer_impl == "local":
            raise UserError(
                f"training.fp8={training.fp8} needs Transformer Engine's layers, but "
                f"model.transformer_impl=local; leave one of them out"
            )
        check_fp8_sizes(training.fp8_recipe, self.model, self.parallel, training.micro_batch_size)

    def _check_packing(self) -> None:
        if not self.data.reset_attention_mask:
            return
        if not self.data.reset_position_ids:
            raise UserError(
                "data.reset_attention_mask=true needs data.reset_position_ids=true: documents "
                "that do not see each other start at position 0"
            )
        if self.parallel.context_parallel_size > 1:
            raise UserError(
                f"data.reset_attention_mask=true does not go with "
                f"parallel.context_parallel_size={self.parallel.context_parallel_size}: document "
                f"boundaries fall inside the ranks' chunks; set one of them off"
            )

    def _check_evaluation(self) -> None:
        parallel = self.parallel
        for name in ("context_parallel_size", "virtual_pipeline_model_parallel_size"):
            if self.evaluation.interval and (getattr(parallel, name) or 1) > 1:
                raise UserError(
                    f"evaluation.interval={self.evaluation.interval} does not go with "
                    f"parallel.{name}={getattr(parallel, name)}, in which no text can be written; "
                    f"have the checkpoints scored in a job of their own (tools/evaluate.py --watch)"
                )

    def _check_schedule(self) -> None:
        warmup, length = self.optimizer.lr_warmup_iters, self.optimizer.lr_decay_iters
        length = length or self.training.train_iters
        if warmup > length:
            raise UserError(
                f"optimizer.lr_warmup_iters={warmup} exceeds the {length} steps of the schedule "
                f"(optimizer.lr_decay_iters, or training.train_iters); shorten the warmup"
            )
        tail = self.optimizer.lr_wsd_decay_iters or 0
        if self.optimizer.lr_decay_style == "WSD" and warmup + tail > length:
            raise UserError(
                f"optimizer.lr_warmup_iters={warmup} and lr_wsd_decay_iters={tail} together exceed "
                f"the {length} steps of the schedule (optimizer.lr_decay_iters, or "
                f"training.train_iters); shorten one of them"
            )


def load_run_config(
    path: str | Path | Sequence[str | Path] | None, overrides: Iterable[str] = ()
) -> RunConfig:
    """Reads a run's YAML, or several, later ones over earlier ones, and dotted overrides.

    Raises:
        UserError: unknown keys, wrong types, broken rules.
    """
    return load_config(RunConfig, path, overrides)


def load_model_config(folder: Path) -> RunConfig:
    """What a checkpoint's config.yaml says of its model, layout, tokenizer and precision.

    Of any recipe's run; the sections that recipes do not share are left at their defaults.

    Raises:
        UserError: no such file, or one that is no run's.
    """
    values = read_layers([folder / "config.yaml"])
    shared = ("model", "parallel", "tokenizer", "training")
    return load_config(RunConfig, [{name: values[name] for name in shared if name in values}])


def recipe_of(folder: Path) -> str:
    """The recipe that a checkpoint is of: pretrain, sft, reward or dpo.

    Raises:
        UserError: its config.yaml is absent or none.
    """
    return read_layers([folder / "config.yaml"]).get("finetune", {}).get("recipe", "pretrain")
