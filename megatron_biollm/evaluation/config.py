"""Benchmarks that a training run scores as it goes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from megatron_biollm.config import UserError, option

if TYPE_CHECKING:  # the readers of every benchmark, for runs that score none
    from megatron_biollm.evaluation.plan import Plan


@dataclass
class EvaluationConfig:
    """Which benchmarks, how many items of each, and how often.

    Raises:
        UserError: an interval without benchmarks or data, or a way of asking that makes no sense.
    """

    interval: int = option(0, "score every so many steps, and at the end; 0: never")
    benchmarks: list[str] = option([], "names of benchmarks and suites, such as [medqa, pubmedqa]")
    data: Optional[str] = option(None, "folder with the benchmarks' folders")
    limit: Optional[int] = option(200, "items of each, the same every time; null for all")
    splits: list[str] = option([], "other splits than the test, such as [ncbi_disease=dev]")
    method: str = option("auto", "auto, likelihood or generate")
    num_fewshot: int = option(0, "examples in the prompt")
    chat: bool = option(False, "prompts are conversations in the chat template")
    batch_tokens: int = option(4096, "most tokens that go through the model at once")

    def __post_init__(self) -> None:
        if self.interval < 0:
            raise UserError(f"evaluation.interval={self.interval} must be 0 (never) or more")
        if self.batch_tokens < 1:
            raise UserError(f"evaluation.batch_tokens={self.batch_tokens} must be at least 1")
        if not self.interval:
            return
        for name in ("benchmarks", "data"):
            if not getattr(self, name):
                raise UserError(
                    f"evaluation.interval={self.interval} needs evaluation.{name}; name "
                    f"{'some' if name == 'benchmarks' else 'the folder that holds them'}, or set "
                    f"the interval to 0"
                )
        self.plan()

    def plan(self) -> "Plan":
        """What is asked at every interval.

        Raises:
            UserError: names or numbers that are none.
        """
        from megatron_biollm.evaluation.asking import Asking
        from megatron_biollm.evaluation.plan import Plan
        from megatron_biollm.evaluation.suite import choose

        wrong = [one for one in self.splits if not all(one.partition("="))]
        if wrong:
            raise UserError(f"evaluation.splits: {wrong[0]!r} is not BENCHMARK=SPLIT")
        return Plan(
            choose(self.benchmarks),
            Path(self.data or ""),
            Asking(method=self.method, num_fewshot=self.num_fewshot, chat=self.chat),
            limit=self.limit,
            splits={name: split for name, _, split in (one.partition("=") for one in self.splits)},
        )
