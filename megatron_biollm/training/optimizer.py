"""AdamW over the model chunks, and the learning-rate schedule."""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, Optional
from unittest import mock

import torch
from megatron.core import optimizer as core_optimizer
from megatron.core.optimizer import MegatronOptimizer, distrib_optimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as CoreOptimizerConfig
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from torch.optim.adamw import adamw

from megatron_biollm.parallel.parallelize import ParallelModel
from megatron_biollm.training.config import OptimizerConfig


class GroupStepAdamW(torch.optim.Optimizer):
    """AdamW that counts `step` per parameter group, as Transformer Engine's FusedAdam does.

    Core's distributed optimizer cannot load torch's AdamW: it expects the step in the group, while
    torch keeps one per parameter. The update itself is torch's fused one.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        adam_w_mode: bool = True,
        capturable: bool = False,
        **unsupported: Any,
    ) -> None:
        if unsupported or capturable or not adam_w_mode:
            raise ValueError(
                f"decoupled AdamW in fp32 only; core asked for adam_w_mode={adam_w_mode}, "
                f"capturable={capturable}, {sorted(unsupported)}, which needs Transformer Engine "
                f"or apex"
            )
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    # Torch has its compiler leave these four alone, and imports the compiler for it when one of
    # them is first called: half a second of every start.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Optional[Callable] = None) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            done = group.get("step", 0)
            group["step"] = done + 1
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(group, params, done)

    def create_states(self) -> None:
        """Moments of zero and a step count for every parameter, for a checkpoint to overwrite."""
        for group in self.param_groups:
            group.setdefault("step", 0)
            for param in group["params"]:
                self._state(param)

    def _update(self, group: dict[str, Any], params: list[torch.Tensor], done: int) -> None:
        states = [self._state(p) for p in params]
        device = params[0].device
        adamw(
            params,
            [p.grad for p in params],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            max_exp_avg_sqs=[],
            # torch adds one to each before the update.
            state_steps=list(torch.full((len(params),), float(done), device=device).unbind()),
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _state(self, param: torch.Tensor) -> dict[str, torch.Tensor]:
        state = self.state[param]
        if not state:
            state["exp_avg"] = torch.zeros_like(param)
            state["exp_avg_sq"] = torch.zeros_like(param)
        return state


@contextlib.contextmanager
def group_step_adam() -> Iterator[None]:
    """Puts `GroupStepAdamW` where core looks for a fused Adam, if it has found none.

    Needed while the optimizer is built, saved and loaded; nothing changes where Transformer
    Engine or apex is present.
    """
    if not core_optimizer.USING_PYTORCH_OPTIMIZER:
        yield
        return
    with contextlib.ExitStack() as stack:
        for module, name, value in (
            (core_optimizer, "Adam", GroupStepAdamW),
            (core_optimizer, "USING_PYTORCH_OPTIMIZER", False),
            (distrib_optimizer, "Adam", GroupStepAdamW),
            (distrib_optimizer, "HAVE_APEX_OR_TE", True),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        yield


def build_optimizer(
    model: ParallelModel, config: OptimizerConfig, use_distributed_optimizer: bool
) -> MegatronOptimizer:
    """Core's optimizer: fp32 master weights, clipping over all ranks, no decay on norms."""
    bf16 = model.config.bf16
    core_config = CoreOptimizerConfig(
        optimizer="adam",
        lr=config.lr,
        min_lr=config.min_lr,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        adam_eps=config.adam_eps,
        clip_grad=config.clip_grad,
        bf16=bf16,
        params_dtype=torch.bfloat16 if bf16 else torch.float32,
        use_distributed_optimizer=use_distributed_optimizer,
        overlap_param_gather=model.chunks[0].ddp_config.overlap_param_gather,
    )
    optimizer = get_megatron_optimizer(
        core_config, model.chunks, use_gloo_process_groups=False, pg_collection=model.groups
    )
    for group in optimizer.param_groups:
        # The scheduler has both. In a group they would override it after a resume, or (0.19) name
        # the group in the checkpoint, which then refuses another learning rate.
        group.pop("max_lr", None)
        group.pop("min_lr", None)
    return optimizer


def prepare_update(optimizer: MegatronOptimizer) -> float:
    """Brings the gradients to the optimizer, measures and clips them; no weight changes yet.

    `optimizer.step_with_ready_grads()` then makes the update; without it the gradients are dropped
    with the next `zero_grad`. Together they are core's `optimizer.step()`.

    Returns:
        The global gradient norm before clipping, the same on every rank.
    """
    # Core's own step, but for the update: how it measures and clips differs over its versions.
    optimizer.step_with_ready_grads = lambda: True
    try:
        prepared, grad_norm, _ = optimizer.step()
    finally:
        del optimizer.step_with_ready_grads
    return float(grad_norm or 0.0) if prepared else math.inf


def take_hyperparameters(optimizer: MegatronOptimizer, config: OptimizerConfig) -> None:
    """Gives the parameter groups this run's numbers; a loaded checkpoint brings its own along.

    The scheduler sets learning rate and decay in every step.
    """
    for group in optimizer.param_groups:
        group["betas"] = (config.adam_beta1, config.adam_beta2)
        group["eps"] = config.adam_eps


def build_scheduler(
    optimizer: MegatronOptimizer, config: OptimizerConfig, train_iters: int
) -> OptimizerParamScheduler:
    """Warmup, then cosine, linear, constant or warmup-stable-decay, counted in steps."""
    decay_iters = config.lr_decay_iters or train_iters
    return OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=config.lr,
        min_lr=config.min_lr,
        # Core wants the warmup shorter than the decay, even in a run that ends within it.
        lr_warmup_steps=config.lr_warmup_iters,
        lr_decay_steps=max(decay_iters, config.lr_warmup_iters + 1),
        lr_decay_style=config.lr_decay_style,
        start_wd=config.weight_decay,
        end_wd=config.weight_decay,
        wd_incr_steps=0,
        wd_incr_style="constant",
        use_checkpoint_opt_param_scheduler=False,
        override_opt_param_scheduler=True,
        wsd_decay_steps=config.lr_wsd_decay_iters,
        lr_wsd_decay_style=config.lr_wsd_decay_style,
    )
