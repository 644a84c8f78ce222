"""A checkpoint, an exported folder or stored answers, scored on benchmarks."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from megatron_biollm.checkpoint.loading import load_weights
from megatron_biollm.config import UserError, load_config
from megatron_biollm.device.runtime import Device, select_device
from megatron_biollm.evaluation.answers import Answers
from megatron_biollm.evaluation.offline import prepare_lm_eval
from megatron_biollm.evaluation.plan import Plan, Prepared, as_answered, prepare, with_stored
from megatron_biollm.evaluation.results import ModelResults
from megatron_biollm.log import setup_logging
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.recipes.evaluate_steps import (
    Where,
    ask_all,
    finish,
    of_checkpoint,
    open_answers,
    sha256,
)
from megatron_biollm.recipes.generate import (
    GenerateConfig,
    Group,
    build_generator,
    candidates,
    choose_layout,
    joined_world,
    newest_good,
    of_rank_0,
    refuse_reward_model,
)
from megatron_biollm.recipes.run_config import RunConfig, load_model_config

if TYPE_CHECKING:
    from lm_eval.api.model import TemplateLM

    from megatron_biollm.evaluation.harness import HarnessModel


def score(source: Mapping[str, Optional[Path]], plan: Plan, where: Where) -> Optional[ModelResults]:
    """Scores what is given of `checkpoint`, `hf` and `answers`; None on ranks that do not speak."""
    ((kind, path),) = ((kind, path) for kind, path in source.items() if path is not None)
    if kind == "checkpoint":
        return evaluate_checkpoint(path, plan, where)
    return (evaluate_hf if kind == "hf" else evaluate_answers)(path, plan, where)


def evaluate_checkpoint(checkpoint: Path, plan: Plan, where: Where) -> Optional[ModelResults]:
    """Scores a checkpoint, or the newest good one of a run; rank 0 returns the results.

    What the output folder holds of the same questions to the same model is not asked again.

    Raises:
        UserError: anything in plan, files, checkpoint or layout that a user can mend; as much as
            possible before the model is loaded.
    """
    folders, prepared = candidates(checkpoint), prepare(plan)
    with live(where) as scorer:
        return scorer.score(newest_good(folders, scorer.control), prepared, where.output)


@contextlib.contextmanager
def live(where: Where) -> Iterator["LiveScorer"]:
    """Joins the ranks, for checkpoints to be scored."""
    prepare_lm_eval()
    device = select_device(where.device)
    with device.core_context(), joined_world(device) as control:
        yield LiveScorer(where, device, control)


class LiveScorer:
    """Scores checkpoints of one run, of which one model at a time is in memory."""

    def __init__(self, where: Where, device: Device, control: Group) -> None:
        overrides = where.overrides
        self.asked = load_config(GenerateConfig, None, overrides).parallel if overrides else None
        self.where, self.device, self.control = where, device, control
        self.speaks = control.rank() == 0
        self.model: Optional[HarnessModel] = None

    def score(
        self, folder: Path, prepared: Sequence[Prepared], output: Path
    ) -> Optional[ModelResults]:
        """The results of a checkpoint that is known to be good, on rank 0.

        Raises:
            UserError: it is no language model, or does not fit the layout.
        """
        config = load_model_config(folder)
        refuse_reward_model(folder)
        size = self.control.size()
        layout = choose_layout(self.asked, config.parallel, size, replicas=True)
        model, details = of_checkpoint(folder, self.where.name)
        answers = of_rank_0(open_answers(output, model) if self.speaks else None, self.control)
        ask_all(partial(self._load, folder, config, layout), prepared, answers, self.control)
        details["layout"] = layout.describe(layout.data_parallel_size(size))
        where = dataclasses.replace(self.where, output=output)
        return finish(answers, prepared, details, where) if self.speaks else None

    def _load(self, folder: Path, config: RunConfig, layout: ParallelConfig) -> "HarnessModel":
        from megatron_biollm.evaluation.harness import HarnessModel
        from megatron_biollm.evaluation.live_model import LiveModel

        if self.model is None:
            generator = build_generator(folder, config, layout, self.device)
            live_model = LiveModel(generator, self.where.batch_tokens)
            self.model = HarnessModel(live_model, speaks=self.speaks)
        else:
            load_weights(folder, self.model.live.generator.model)
        return self.model


def evaluate_hf(folder: Path, plan: Plan, where: Where) -> ModelResults:
    """Scores a model in Hugging Face's form with lm-eval's own `hf`, in one process.

    Raises:
        UserError: as `evaluate_checkpoint`.
    """
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} has no config.json; give the folder of an exported model "
            f"(tools/convert_checkpoint.py to-hf)"
        )
    if where.overrides:
        raise UserError(
            f"{where.overrides[0]}: an exported model runs in one process without a layout; leave "
            f"it out, or score the checkpoint it came from"
        )
    setup_logging()
    prepared = prepare(plan)
    prepare_lm_eval()

    def load() -> "TemplateLM":
        from lm_eval.models.huggingface import HFLM

        device = select_device(where.device).torch_device
        return HFLM(pretrained=str(folder), device=str(device), batch_size=8)

    weights = sorted(folder.glob("*.safetensors"))
    stamp = repr([(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in weights])
    model = {
        "name": where.name or folder.name,
        "hf": str(folder.resolve()),
        "sha256": sha256((folder / "config.json").read_bytes() + stamp.encode()),
    }
    answers = open_answers(where.output, model)
    ask_all(load, prepared, answers)
    return finish(answers, prepared, {"hf": str(folder)}, where)


def evaluate_answers(folder: Path, plan: Plan, where: Where) -> ModelResults:
    """Scores answers that were stored before, here or elsewhere; no model is needed.

    Raises:
        UserError: files or answers that are missing or do not belong together.
    """
    answers = Answers.open(folder)
    if where.name:
        answers.model = answers.model | {"name": where.name}
    prepared = [as_answered(one, answers) for one in prepare(with_stored(plan, answers))]
    return finish(answers, prepared, {"answers": str(folder)}, where)
