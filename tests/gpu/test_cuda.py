"""One GPU gives the golden losses: in fp32 within 1e-4, in bf16 and FP8 within their rounding."""

import importlib.util
import logging
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from tests.golden.golden import RUNS, golden_losses
from tests.integration.small_run import largest_deviation, micro_batches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
]
NEEDS_TE = pytest.mark.skipif(
    importlib.util.find_spec("transformer_engine") is None, reason="transformer-engine is absent"
)
TE = "transformer_engine"


@dataclass(frozen=True)
class Case:
    """Attributes:
    kind: device.
    impl: layers.
    bf16: else fp32.
    run: name of a golden run.
    compiles: what can be compiled is; else it is plain torch.
    fp8_recipe: of the layers' products; None has them in bf16.
    """

    kind: str
    impl: str = "local"
    bf16: bool = False
    run: str = "rows"
    compiles: bool = True
    fp8_recipe: str | None = None


def train(case: Case, weights: Path) -> tuple[list[float], list[str]]:
    """Losses of one process from the weights in the file, and what the log warned of."""
    from megatron_biollm.training.step import Trainer

    run, warnings = RUNS[case.run], Warnings()
    logging.getLogger("megatron_biollm").addHandler(warnings)
    if not case.compiles:
        from megatron_biollm.device import first_that_works

        first_that_works.why_no_compiler = lambda: "not in this test"
    for model, optimizer, scheduler in built(case):
        share_weights(model.bare_chunks[0], weights)
        optimizer.reload_model_params()
        trainer = Trainer(
            model, optimizer, scheduler, run.sizes.seq_length, run.micro_batch_size, run.packed
        )
        batches = micro_batches(run, 0, 1)
        count = run.global_batch_size // run.micro_batch_size
        losses = [trainer.train_step(batches, count).loss for _ in range(run.steps)]
    return losses, warnings.texts


class Warnings(logging.Handler):
    """Keeps the texts of warnings and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def built(case: Case) -> Iterator[tuple]:
    """The model and what trains it, once, within a world of one process."""
    from megatron_biollm.device.runtime import select_device
    from megatron_biollm.parallel.layout import ParallelConfig
    from megatron_biollm.parallel.parallelize import parallelize
    from megatron_biollm.parallel.precision import Fp8
    from megatron_biollm.parallel.process_groups import (
        create_process_groups,
        destroy_process_groups,
    )
    from megatron_biollm.training.optimizer import (
        build_optimizer,
        build_scheduler,
        group_step_adam,
    )

    run = replace(RUNS[case.run], model={"transformer_impl": case.impl})
    device, parallel = select_device(case.kind), ParallelConfig()
    fp8 = None if case.fp8_recipe is None else Fp8(recipe=case.fp8_recipe)
    with device.core_context(), group_step_adam():
        device.init_distributed(timeout_minutes=2)
        groups = create_process_groups(parallel)
        model = parallelize(run.sizes, parallel, device, groups, case.bf16, run.seed, fp8=fp8)
        optimizer = build_optimizer(model, run.optimizer, parallel.use_distributed_optimizer)
        yield model, optimizer, build_scheduler(optimizer, run.optimizer, run.steps)
        destroy_process_groups()


def share_weights(chunk: torch.nn.Module, path: Path) -> None:
    """Writes the weights where there is no file yet, else takes them, by size and order.

    The layers of Transformer Engine name some weights otherwise and order them alike.
    """
    params = [p for name, p in sorted(chunk.named_parameters(), key=lambda item: _place(item[0]))]
    if not path.exists():
        torch.save([p.detach().float().cpu() for p in params], path)
        return
    with torch.no_grad():
        for param, stored in zip(params, torch.load(path), strict=True):
            param.copy_(stored)


def write_weights(path: Path) -> None:
    """Those that the golden runs start from: a GPU would draw others from the same seed."""
    for model, _, _ in built(Case("cpu")):
        share_weights(model.bare_chunks[0], path)


def _place(name: str) -> str:
    """A name that sorts the weights of both implementations alike."""
    name = name.removeprefix("module.")
    name = name.replace("input_layernorm.weight", "self_attention.linear_qkv.layer_norm_weight")
    return name.replace("pre_mlp_layernorm.weight", "mlp.linear_fc1.layer_norm_weight")


def apart(function: Callable, *args):
    """In a process of its own: one of them runs with core answered by the CPU."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    apart(write_weights, path)
    return path


@pytest.mark.parametrize(
    ("case", "tolerance"),
    [
        (Case("cuda"), 1e-4),
        (Case("cuda", compiles=False), 1e-4),
        (Case("cuda", run="packed"), 1e-4),
        (Case("cuda", bf16=True), 1e-2),
        (Case("cuda", bf16=True, compiles=False), 1e-2),
        (Case("cuda", bf16=True, run="packed"), 1e-2),
        pytest.param(Case("cuda", TE), 1e-3, marks=NEEDS_TE),
        pytest.param(Case("cuda", TE, bf16=True), 1e-2, marks=NEEDS_TE),
        pytest.param(Case("cuda", TE, bf16=True, run="packed"), 1e-2, marks=NEEDS_TE),
        # e4m3 has 3 bits after the point, of which sums over a row leave a few percent.
        pytest.param(Case("cuda", TE, True, fp8_recipe="tensorwise"), 5e-2, marks=NEEDS_TE),
        pytest.param(Case("cuda", TE, True, fp8_recipe="delayed"), 5e-2, marks=NEEDS_TE),
    ],
    ids=str,
)
def test_a_gpu_gives_the_golden_losses_by_its_first_choice_of_kernels(weights, case, tolerance):
    losses, warnings = apart(train, case, weights)
    assert largest_deviation(losses, golden_losses(case.run)) < tolerance
    assert not [text for text in warnings if "does not work here" in text]
