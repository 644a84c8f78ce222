"""A report on scored models: one page that needs nothing beside it, the same in Markdown and JSON.

report.html   tables and pictures; no script, no font and no picture from elsewhere
report.md     the tables
report.json   all numbers
*.png         the pictures, for slides
"""

import base64
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from megatron_biollm.atomic import disk_errors, whole_file
from megatron_biollm.config import UserError
from megatron_biollm.evaluation import pictures, report_tables
from megatron_biollm.evaluation.comparison import Comparison, compare
from megatron_biollm.evaluation.curve import check_curve
from megatron_biollm.evaluation.published import Published, read_published
from megatron_biollm.evaluation.report_tables import TASKS, Table, is_share
from megatron_biollm.evaluation.report_texts import texts_table
from megatron_biollm.evaluation.results import ModelResults

VERSION = 1
PAGE, MARKDOWN, NUMBERS = "report.html", "report.md", "report.json"
# HTML has no place for control characters other than tab and line ends, however written; and those
# that turn the direction of writing would turn the page's own words too.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True)
class Content:
    """What a report says, before it is written in one form or another."""

    models: Sequence[ModelResults]
    published: Sequence[Published]
    comparisons: Sequence[Comparison]
    curve: Sequence[dict[str, Any]]


def write_report(
    folder: Path | str, models: Sequence[ModelResults], curve: Sequence[dict[str, Any]] = ()
) -> Path:
    """Writes the report into a folder; returns the path of the page.

    Args:
        models: the first is what others are compared with; from `read_results` with benchmarks,
            so that they can be.
        curve: rows of `curve.jsonl`.

    Raises:
        UserError: there is no model or no score, two have one name, or the folder cannot be
            written.
    """
    _check(models)
    content = _content(models, curve)
    drawn = dict(_pictures(content))
    folder = Path(folder)
    with disk_errors(folder, "free some disk space or choose another folder"):
        for name, figure in drawn.items():
            pictures.write_png(figure, folder / f"{name}.png")
        _write(folder / NUMBERS, json.dumps(_finite(_numbers(content)), indent=2) + "\n")
        _write(folder / MARKDOWN, _markdown(content))
        _write(folder / PAGE, _page(content, drawn))
    return folder / PAGE


def _check(models: Sequence[ModelResults]) -> None:
    if not any(model.results for model in models):
        raise UserError("there is no score to report; score a model with tools/evaluate.py first")
    names = [model.model for model in models]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(
            f"two models are called {', '.join(sorted(twice))}, so a table could not tell them "
            "apart; give each a name of its own when scoring"
        )


def _content(models: Sequence[ModelResults], curve: Sequence[dict[str, Any]]) -> Content:
    known = {one.benchmark for model in models for one in model.results}
    published = [one for one in read_published() if one.benchmark in known]
    return Content(models, published, compare(models), check_curve(curve))


def _pictures(content: Content) -> Iterator[tuple[str, Figure]]:
    if any(one.task in TASKS for model in content.models for one in model.results):
        yield "scores", pictures.draw_scores(content.models, content.published)
    # Differences that are no percentage points are told by their table alone.
    shares = [one for one in content.comparisons if is_share(one.headline)]
    if any(one.difference for one in shares):
        yield "comparison", pictures.draw_comparison(shares)
    if content.curve:
        yield "curve", pictures.draw_curves(content.curve, _titles(content))


def _title(content: Content) -> str:
    *others, last = [model.model for model in content.models]
    return f"{', '.join(others)} and {last}" if others else last


def _titles(content: Content) -> dict[str, str]:
    return {one.benchmark: one.title for model in content.models for one in model.results}


def _numbers(content: Content) -> dict[str, Any]:
    """What report.json holds; tallies stay with the results."""
    models = [replace(model, tallies={}) for model in content.models]
    return {
        "version": VERSION,
        "models": [{k: v for k, v in asdict(m).items() if k != "tallies"} for m in models],
        "published": [asdict(one) for one in content.published],
        "comparisons": [asdict(one) for one in content.comparisons],
        "curve": list(content.curve),
    }


def _finite(value: Any) -> Any:
    """The same with null for what is no number: JSON has no other word for it."""
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sections(content: Content) -> dict[str, list[Table]]:
    """Tables by section, in order; sections without any are left out."""
    titles = _titles(content)
    curve = [
        {**row, "benchmark": titles.get(row["benchmark"], row["benchmark"])}
        for row in content.curve
    ]
    made = {
        "Scores": list(report_tables.score_tables(content.models, content.published)),
        "Texts": [texts_table(content.models)],
        "Comparison": [report_tables.comparison_table(content.comparisons)],
        "Over checkpoints": [report_tables.curve_table(curve)],
        "By type and subject": list(report_tables.part_tables(content.models)),
        "Contamination": [report_tables.contamination_table(content.models)],
        "Seeds and prompts": [report_tables.spread_table(content.models)],
        "How each score was got": [report_tables.detail_table(content.models)],
    }
    found = {name: [table for table in tables if table] for name, tables in made.items()}
    return {name: tables for name, tables in found.items() if tables}


def _page(content: Content, drawn: dict[str, Figure]) -> str:
    environment = Environment(
        loader=PackageLoader("megatron_biollm.evaluation", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values = {
        "title": _title(content),
        "details": {model.model: _details(model) for model in content.models if model.details},
        "sections": _sections(content),
        "pictures": {name: _embedded(figure) for name, figure in drawn.items()},
        "sources": report_tables.source_numbers(content.published),
        "notes": NOTES,
    }
    return _CONTROL.sub("\ufffd", environment.get_template("report.html.j2").render(values))


def _details(model: ModelResults) -> str:
    """What is known of a model, in one line."""
    return " · ".join(
        f"{key.replace('_', ' ')}: {f'{value:,}' if isinstance(value, int) else value}"
        for key, value in model.details.items()
    )


def _embedded(figure: Figure) -> Markup:
    data = base64.b64encode(pictures.as_svg(figure)).decode()
    return Markup(f"data:image/svg+xml;base64,{data}")


def _markdown(content: Content) -> str:
    parts = [f"# Scores of {_title(content)}"]
    for name, tables in _sections(content).items():
        parts += [f"## {name}", NOTES[name]]
        for table in tables:
            parts += [f"### {table.title}"] * (table.title != name)
            parts += [_markdown_table(table)]
    sources = report_tables.source_numbers(content.published)
    if sources:
        parts += ["## Sources of published scores"]
        parts += [f"{number}. {source}, <{url}>" for (source, url), number in sources.items()]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    aligned = ["---"] * table.names + ["---:"] * (len(table.columns) - table.names)
    lines = [_markdown_row(table.columns), f"| {' | '.join(aligned)} |"]
    return "\n".join([*lines, *map(_markdown_row, table.rows)])


def _markdown_row(cells: Sequence[report_tables.Cell]) -> str:
    texts = (f"{c.text} ({c.under})" if c.text and c.under else c.text or c.under for c in cells)
    plain = (text.replace("|", "\\|").replace("\n", " ") for text in texts)
    return f"| {' | '.join(plain)} |"


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode("utf-8", "replace"))


NOTES = {
    "Scores": (
        "In percent where nothing else is said; below each of our scores the interval that holds "
        "the true one with 95 % confidence, from resampling whole documents. Published scores come "
        "from their authors; what is known to differ from the conventions here stands below them."
    ),
    "Texts": (
        "How well each model foretells texts; lower is better. Only bits per byte can be compared "
        "between models of different tokenizers. Intervals resample documents."
    ),
    "Comparison": (
        "On the documents that both models answered. The difference and its interval are in "
        "percentage points, of texts in bits per byte. Holm's correction makes the p-values hold "
        "for all benchmarks together; those below 0.05 are set in bold. McNemar's test takes the "
        "questions that only one model answered rightly (second : first)."
    ),
    "Over checkpoints": (
        "Scores of the saved checkpoints of one run, in percent; of texts, bits per byte."
    ),
    "By type and subject": "The benchmark's own score on parts of its items.",
    "Contamination": (
        "Items whose n-grams occur in the training data, and what the model scores on them and on "
        "the others. A score on items that were found says little about what a model has learned."
    ),
    "Seeds and prompts": (
        "Mean and standard deviation of the benchmark's own score over seeds of few-shot examples, "
        "and over instructions of the same meaning."
    ),
    "How each score was got": (
        "Every convention that changes a score. An answer that cannot be read counts as wrong "
        "unless a convention says otherwise."
    ),
}
