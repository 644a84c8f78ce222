"""One HTML page on a curated corpus: self-contained, without scripts, with every text escaped."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from megatron_biollm.atomic import whole_file
from megatron_biollm.config import UserError
from megatron_biollm.corpus.config import SourceConfig
from megatron_biollm.corpus.deidentify.measured import measured
from megatron_biollm.corpus.page import charts, flow, spread
from megatron_biollm.corpus.page.budget import (
    CHARACTERS_PER_TOKEN,
    PUBLIC_TOKENS,
    TARGET_TOKENS,
    budget,
    estimate_tokens,
)
from megatron_biollm.corpus.page.identifiers import identifiers
from megatron_biollm.corpus.withhold import DEIDENTIFY

MANIFEST, REPORT, PAGE = "manifest.json", "report.json", "report.html"
SHOWN_SHARDS = 200
# HTML has no place for control characters other than tab and line ends, however written; and
# those that turn the direction of writing would turn the page's own words too.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def write_report(
    output: Path,
    sources: Mapping[str, SourceConfig] | None = None,
    train_tokens: float = TARGET_TOKENS,
) -> Path:
    """Writes OUTPUT/report.html from the files that a curation left there; returns its path.

    Args:
        output: the curation's output_dir.
        sources, train_tokens: as for `write_html`.

    Raises:
        UserError: manifest.json or report.json is missing, so the corpus is not complete.
    """
    report, manifest = _read(output / REPORT), _read(output / MANIFEST)
    tokens, tokenizers = count_tokens(output, manifest["shards"])
    path = output / PAGE
    write_html(
        report,
        manifest,
        path,
        tokens=tokens,
        tokenizers=tokenizers,
        sources=sources,
        train_tokens=train_tokens,
        measured=measured(),
        title=f"Corpus {output.resolve().name}",
    )
    return path


def write_html(
    report: Mapping[str, Any], manifest: Mapping[str, Any], path: Path, **more: Any
) -> None:
    """Writes the page in one step; arguments as for `render`."""
    with whole_file(path) as file:
        file.write(render(report, manifest, **more).encode())


def render(
    report: Mapping[str, Any],
    manifest: Mapping[str, Any],
    *,
    tokens: Mapping[str, int] | None = None,
    tokenizers: Iterable[str] = (),
    sources: Mapping[str, SourceConfig] | None = None,
    train_tokens: float = TARGET_TOKENS,
    measured: Mapping[str, Any] | None = None,
    title: str = "Corpus",
) -> str:
    """The page.

    Args:
        report: report.json. manifest: manifest.json.
        tokens: by source, where the corpus is encoded; estimated from the characters otherwise.
        tokenizers: names, for people.
        sources: epochs and budget of each source; one that is not named counts once.
        train_tokens: the run that the budget is held against.
        measured: what was measured of the de-identification, as in
            docs/benchmarks/deidentify.json.
    """
    names = flow.sources_met(report, manifest)
    estimated = not tokens
    characters = {source: counts["characters"] for source, counts in manifest["sources"].items()}
    tokens = tokens or estimate_tokens(characters)
    colours = charts.colours([*names, *(["unknown"] if "unknown" not in names else [])])
    values = {
        **_flow_values(report, manifest, names),
        **_content_values(report, colours),
        **_budget_values(tokens, sources or {}, train_tokens),
        "title": title,
        "colours": colours,
        "estimated": estimated,
        "characters_per_token": CHARACTERS_PER_TOKEN,
        "tokenizers": sorted(set(tokenizers)),
        "sources": [
            {"source": source, **counts, "tokens": tokens.get(source, 0)}
            for source, counts in sorted(manifest["sources"].items())
        ],
        "identifiers": identifiers(report, manifest, measured),
        "shards": manifest["shards"][:SHOWN_SHARDS],
        "shard_count": len(manifest["shards"]),
    }
    values["totals"] |= {"tokens": sum(row["tokens"] for row in values["sources"])}
    return _CONTROL.sub("\ufffd", _template().render(values))


def count_tokens(
    output: Path, shards: Iterable[Mapping[str, Any]]
) -> tuple[dict[str, int], set[str]]:
    """Tokens by source, and names of the tokenizers, from the sidecars below OUTPUT/encoded/.

    Nothing at all where a shard is not encoded, or was before it had its present documents.
    """
    tokens: dict[str, int] = {}
    tokenizers = set()
    for shard in shards:
        place = Path(shard["path"].removesuffix(".jsonl.zst"))
        folder = output / "encoded" / place.parent.name
        sidecar = folder / f"{place.name}_text_document.manifest.json"
        made = _read(sidecar) if sidecar.exists() else {}
        if made.get("documents") != shard["documents"]:
            return {}, set()
        tokens[shard["source"]] = tokens.get(shard["source"], 0) + made["tokens"]
        tokenizers.add((made.get("tokenizer") or {}).get("name", "unknown"))
    return tokens, tokenizers


def _flow_values(
    report: Mapping[str, Any], manifest: Mapping[str, Any], names: list[str]
) -> dict[str, Any]:
    ways = {source: flow.stages(report, source) for source in names}
    funnel = [
        {"source": source, "stages": stages, "idle": flow.without_effect(stages)}
        for source, stages in ways.items()
    ]
    totals = {
        name: sum(counts[name] for counts in manifest["sources"].values())
        for name in ("documents", "characters", "bytes")
    }
    return {
        "names": names,
        "funnel": funnel,
        "totals": {**totals, "records": sum(row["stages"][0]["came"] for row in funnel)},
        "drops": flow.drops(report),
        "tallies": flow.tallies(report, passed_over=[DEIDENTIFY]),
        "files": flow.faults(report),
        "formats": flow.formats(report),
        "dropped_samples": flow.dropped_samples(report),
        "clusters": {
            reason: {"summary": found["summary"], **_clusters(found["samples"])}
            for reason, found in report.get("clusters", {}).items()
        },
    }


def _content_values(report: Mapping[str, Any], colours: dict[str, str]) -> dict[str, Any]:
    profiles = report.get("profiles", {})
    lengths, years = spread.lengths(profiles), spread.years(profiles)
    for row in lengths["rows"]:
        row["picture"] = charts.columns(lengths["labels"], [row], colours, (360, 130), shares=True)
    years["picture"] = charts.columns(years["labels"], years["rows"], colours)
    kept = {
        source: [{"source": source, **sample} for sample in profile["samples"]]
        for source, profile in sorted(profiles.items())
        if profile["samples"]
    }
    return {
        "lengths": lengths,
        "years": years,
        "years_sources": [row["source"] for row in years["rows"]],
        "languages": spread.shares(profiles, "languages"),
        "licences": spread.shares(profiles, "licences"),
        "kept_samples": kept,
    }


def _budget_values(
    tokens: Mapping[str, int], sources: Mapping[str, SourceConfig], train_tokens: float
) -> dict[str, Any]:
    found = budget(tokens, sources, train_tokens)
    if found is None:
        return {"budget": None, "budget_picture": ""}
    marks = [
        (f"this corpus, {charts.compact(found['unique'])} unique tokens", found["unique"], "mark"),
        (f"the run, {charts.compact(train_tokens)}", train_tokens, "target"),
    ]
    picture = charts.scale_of_tokens(marks, ("unique public text", *PUBLIC_TOKENS))
    return {"budget": found, "budget_picture": picture}


def _clusters(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The members of each cluster that can be shown, and how many clusters are withheld."""
    by_cluster = groupby(samples, key=lambda sample: sample["cluster"])
    groups = [list(members) for _, members in by_cluster]
    shown = [members for members in groups if all(member["text"] for member in members)]
    return {"shown": shown, "withheld": len(groups) - len(shown)}


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("megatron_biollm.corpus", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "n": lambda value: f"{value:,}",
        "compact": charts.compact,
        "percent": lambda value, digits=2: f"{value:.{digits}%}",
        "small_percent": _small_percent,
        "many": lambda count, name: f"{count:,} {name}{'' if count == 1 else 's'}",
        "words": lambda name: name.replace("_", " "),
    }
    return environment.get_template("report.html.j2")


def _small_percent(share: float) -> str:
    """Two digits that are not zero, however small the share is; 100% only where it is all."""
    if 0.999 < share < 1:
        return "over 99.9%"
    digits = max(0, 1 - math.floor(math.log10(100 * share))) if share > 0 else 0
    return f"{100 * share:.{min(digits, 12)}f}%"


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing, so the corpus is not complete; run tools/build_corpus.py to its "
            "end"
        ) from error
