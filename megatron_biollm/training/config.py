"""Options of the optimizer and of the training loop."""

from dataclasses import dataclass
from typing import Optional

from megatron_biollm.config import UserError, option
from megatron_biollm.parallel.precision import DIVISORS, FORMATS, Fp8

LR_DECAY_STYLES = ("cosine", "linear", "constant", "WSD")
WSD_DECAY_STYLES = ("linear", "cosine", "exponential", "minus_sqrt")


@dataclass
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101) and its schedule.

    Raises:
        UserError: unknown schedule, or numbers out of range.
    """

    lr: float = option(2e-5, "peak learning rate")
    min_lr: Optional[float] = option(None, "learning rate at the end; a tenth of lr if unset")
    lr_decay_style: str = option("cosine", "cosine, linear, constant or WSD (warmup-stable-decay)")
    lr_warmup_iters: int = option(0, "steps from 0 to the peak")
    lr_decay_iters: Optional[int] = option(None, "steps until min_lr; train_iters if unset")
    lr_wsd_decay_style: str = option(
        "linear", "tail of WSD: linear, cosine, exponential or minus_sqrt"
    )
    lr_wsd_decay_iters: Optional[int] = option(None, "steps of WSD's tail")
    weight_decay: float = option(0.1, "decoupled decay of matrices; norms have none")
    adam_beta1: float = option(0.9, "decay of the mean of the gradient")
    adam_beta2: float = option(0.95, "decay of the mean of its square")
    adam_eps: float = option(1e-5, "added to the root in AdamW's denominator")
    clip_grad: float = option(1.0, "clip the global gradient norm to this; 0 does not clip")

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise UserError(f"optimizer.lr={self.lr} must be greater than 0")
        if self.min_lr is None:
            self.min_lr = self.lr / 10
        if not 0 <= self.min_lr <= self.lr:
            raise UserError(
                f"optimizer.min_lr={self.min_lr} must lie between 0 and optimizer.lr={self.lr}"
            )
        _check_choice("optimizer.lr_decay_style", self.lr_decay_style, LR_DECAY_STYLES)
        _check_choice("optimizer.lr_wsd_decay_style", self.lr_wsd_decay_style, WSD_DECAY_STYLES)
        if self.lr_decay_style == "WSD" and self.lr_wsd_decay_iters is None:
            raise UserError(
                "optimizer.lr_decay_style=WSD needs optimizer.lr_wsd_decay_iters, the length of "
                "its decaying tail in steps"
            )
        for name in ("lr_warmup_iters", "weight_decay", "clip_grad"):
            if getattr(self, name) < 0:
                raise UserError(f"optimizer.{name}={getattr(self, name)} must not be negative")
        for name in ("lr_decay_iters", "lr_wsd_decay_iters"):
            _check_at_least(1, f"optimizer.{name}", getattr(self, name))
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"optimizer.{name}={getattr(self, name)} must be at least 0 and less than 1"
                )


@dataclass
class TrainingConfig:
    """The loop: batches, length, precision, validation, profiling.

    Raises:
        UserError: numbers out of range, or a ramp that does not reach the global batch size.
    """

    micro_batch_size: int = option(1, "sequences per forward pass and rank")
    global_batch_size: int = option(8, "sequences per optimizer step, over all ranks")
    rampup_batch_size: list[int] = option(
        [], "start size, increment, samples: grow the global batch to global_batch_size"
    )
    train_iters: int = option(100, "optimizer steps of the whole run")
    seed: int = option(1234, "of initial weights and data order")
    bf16: bool = option(False, "bf16 weights with fp32 master weights and gradients, else fp32")
    fp8: Optional[str] = option(
        None, "the layers' matrix products in FP8 (Transformer Engine): e4m3 or hybrid"
    )
    fp8_recipe: str = option(
        "tensorwise", "what has a scale of its own: tensorwise, delayed, blockwise or mxfp8"
    )
    fp8_amax_history_len: int = option(1024, "delayed: steps whose values make a scale")
    device: str = option("auto", "cpu, cuda, or auto (CUDA where there is a GPU)")
    eval_interval: int = option(0, "validate every this many steps; 0 never")
    eval_iters: int = option(10, "global batches per validation")
    exit_interval: Optional[int] = option(None, "stop (and save) after this step of the run")
    profile_step_start: Optional[int] = option(None, "torch profiler: first step")
    profile_step_end: Optional[int] = option(None, "torch profiler: last step")
    profile_ranks: list[int] = option([0], "torch profiler: ranks that write a trace")

    def __post_init__(self) -> None:
        for name in (
            "micro_batch_size",
            "global_batch_size",
            "train_iters",
            "eval_iters",
            "exit_interval",
        ):
            _check_at_least(1, f"training.{name}", getattr(self, name))
        _check_at_least(0, "training.eval_interval", self.eval_interval)
        self._check_fp8()
        self._check_profile()
        self._check_ramp()

    @property
    def fp8_products(self) -> Optional[Fp8]:
        """FP8 as the run wants it; None in bf16 and fp32."""
        if self.fp8 is None:
            return None
        return Fp8(self.fp8, self.fp8_recipe, self.fp8_amax_history_len)

    def global_batch_size_at(self, consumed_samples: int) -> int:
        """Sequences of the next step. Grows in equal spans of samples, as in Megatron-LM."""
        if not self.rampup_batch_size:
            return self.global_batch_size
        start, increment, samples = self.rampup_batch_size
        increments = (self.global_batch_size - start) // increment
        if increments == 0 or consumed_samples >= samples:
            return self.global_batch_size
        return start + int(consumed_samples * increments / samples) * increment

    def check_batches(self, data_parallel_size: int) -> None:
        """Checks that every global batch of the run splits into micro-batches on every rank.

        Raises:
            UserError: naming the batch size, the divisor and the remedy.
        """
        divisor = self.micro_batch_size * data_parallel_size
        sizes = [self.global_batch_size, *self.rampup_batch_size[:2]]
        names = ["training.global_batch_size", "rampup_batch_size start", "its increment"]
        for name, size in zip(names, sizes, strict=False):
            if size % divisor:
                raise UserError(
                    f"{name}={size} is not divisible by training.micro_batch_size="
                    f"{self.micro_batch_size} x data-parallel size {data_parallel_size} = "
                    f"{divisor}; change one of them"
                )

    def _check_fp8(self) -> None:
        _check_choice("training.fp8_recipe", self.fp8_recipe, tuple(DIVISORS))
        _check_at_least(1, "training.fp8_amax_history_len", self.fp8_amax_history_len)
        if self.fp8 is None:
            return
        _check_choice("training.fp8", self.fp8, FORMATS)
        if not self.bf16:
            raise UserError(
                f"training.fp8={self.fp8} casts what is bf16, but training.bf16=false; set "
                f"training.bf16=true"
            )
        if self.device == "cpu":
            raise UserError(
                f"training.fp8={self.fp8} needs a GPU's tensor cores, but training.device=cpu; "
                f"leave training.fp8 out on the CPU"
            )

    def _check_profile(self) -> None:
        start, end = self.profile_step_start, self.profile_step_end
        if (start is None) != (end is None):
            raise UserError(
                "training.profile_step_start and profile_step_end go together; set both or neither"
            )
        if start is not None and not 2 <= start <= end:
            raise UserError(
                f"training.profile_step_start={start} and profile_step_end={end} must be steps in "
                f"order, from 2 on (the first step of a process only warms it up)"
            )

    def _check_ramp(self) -> None:
        if not self.rampup_batch_size:
            return
        if len(self.rampup_batch_size) != 3 or min(self.rampup_batch_size) < 1:
            raise UserError(
                f"training.rampup_batch_size={self.rampup_batch_size} must be three positive "
                f"numbers: start size, increment, samples"
            )
        start, increment, _ = self.rampup_batch_size
        if start > self.global_batch_size or (self.global_batch_size - start) % increment:
            raise UserError(
                f"training.rampup_batch_size={self.rampup_batch_size} does not reach "
                f"global_batch_size={self.global_batch_size} from {start} in steps of {increment}"
            )


def _check_at_least(least: int, name: str, value: Optional[int]) -> None:
    if value is not None and value < least:
        raise UserError(f"{name}={value} must be at least {least}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name}={value} is unknown; choose one of {', '.join(choices)}")
