"""Benchmarks scored during a training run, on the model as it is at that step."""

import contextlib
from collections.abc import Sequence

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.answers import Run as Asked
from megatron_biollm.evaluation.curve import CURVE, append_curve, curve_rows
from megatron_biollm.evaluation.offline import prepare_lm_eval
from megatron_biollm.evaluation.plan import Prepared, prepare
from megatron_biollm.evaluation.results import Result
from megatron_biollm.evaluation.verdict import result_of
from megatron_biollm.generation.forward import check_generates
from megatron_biollm.generation.generator import Generator
from megatron_biollm.log import get_logger
from megatron_biollm.parallel.parallelize import ParallelModel
from megatron_biollm.recipes.hooks import SCORES, Row, timed
from megatron_biollm.recipes.run import Run
from megatron_biollm.recipes.run_config import RunConfig
from megatron_biollm.training.interrupt import StopTraining
from megatron_biollm.training.state import TrainState

logger = get_logger(__name__)


def prepare_benchmarks(config: RunConfig) -> list[Prepared]:
    """The benchmarks of a run's section `evaluation`, read.

    Raises:
        UserError: files that are missing or wrong, or lm-eval is not installed.
    """
    prepare_lm_eval()
    try:
        return prepare(config.evaluation.plan())
    except UserError as error:
        raise UserError(f"evaluation.benchmarks: {error}") from error


class ScoreBenchmarks:
    """Adds `evaluation/<benchmark>` to the row of every `interval`-th step and of the last one.

    The scores with their intervals go to `evaluation/curve.jsonl` in the run's folder. The training
    goes on as it would have without. A request to stop is obeyed between two benchmarks; those that
    remain have no score at this step.
    """

    def __init__(self, run: Run, model: ParallelModel, prepared: Sequence[Prepared]) -> None:
        from megatron_biollm.evaluation.harness import HarnessModel
        from megatron_biollm.evaluation.live_model import LiveModel

        check_generates(model)
        self.run, self.prepared, self.config = run, prepared, run.config.evaluation
        self.parallel_model = model
        length = run.config.model.max_position_embeddings
        generator = Generator(model, run.tokenizer, length)
        self.model = HarnessModel(LiveModel(generator, self.config.batch_tokens))

    def __call__(self, state: TrainState, row: Row) -> None:
        last = state.step == self.run.config.training.train_iters
        if state.step % self.config.interval and not last:
            return
        with (
            self.run.watch.phases("evaluation", slow=True),
            timed(f"benchmarks of step {state.step}"),
            contextlib.suppress(StopTraining),  # every later poll raises it again
        ):
            self.parallel_model.bring_up_to_date()
            results = []
            for one in self.prepared:
                self.run.watch.interrupt.poll()
                results.append(self._score(one))
                row[SCORES + one.benchmark.name] = results[-1].main.value
                self.run.watch.phases.tick()
            self._keep(state, results)

    def _score(self, one: Prepared) -> Result:
        asked: Asked = one.runs[0]
        _, answers = one.ask(self.model, asked)
        predictions = [answer.prediction for answer in answers]
        tally = one.benchmark.score(one.items, predictions, one.conventions)
        return result_of(one, {asked.file: tally})

    def _keep(self, state: TrainState, results: Sequence[Result]) -> None:
        if self.run.control.rank() != 0:
            return
        told = ", ".join(f"{one.benchmark} {one.headline} {one.main.value:.4f}" for one in results)
        logger.info("step %d: %s", state.step, told)
        rows = curve_rows(state.step, state.consumed_tokens, results)
        append_curve(self.run.config.run_path / "evaluation" / CURVE, rows)
