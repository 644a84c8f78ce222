"""The table of texts in a report: perplexity and bits per byte by source."""

from collections.abc import Sequence

from megatron_biollm.evaluation.perplexity import SCORES, TASK
from megatron_biollm.evaluation.report_tables import Cell, Table, interval
from megatron_biollm.evaluation.results import ModelResults, Result


def texts_table(models: Sequence[ModelResults]) -> Table | None:
    """Every source and model as a row; None where no texts were scored."""
    found = [(one, model) for model in models for one in model.results if one.task == TASK]
    order = list(dict.fromkeys(one.benchmark for one, _ in found))
    found.sort(key=lambda pair: order.index(pair[0].benchmark))
    columns = (
        Cell("texts"),
        Cell("model"),
        *(Cell(name.replace("_", " ")) for name, _ in SCORES),
        Cell("documents"),
    )
    rows = tuple(_row(one, model.model) for one, model in found)
    return Table("Texts", columns, rows, names=2) if rows else None


def _row(one: Result, model: str) -> tuple[Cell, ...]:
    limit = f"limit {one.limit:,}" if one.limit else ""
    scores = (interval(one.scores[name], name) for name, _ in SCORES)
    return (Cell(one.title), Cell(model), *scores, Cell(f"{one.documents:,}", limit))
