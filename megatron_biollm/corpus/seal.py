"""The last stage: nothing lost, nothing strange among the shards, manifest and reports written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from megatron_biollm.atomic import write_json
from megatron_biollm.config import UserError
from megatron_biollm.corpus.config import SourceConfig
from megatron_biollm.corpus.dedup.removals import read_samples, read_summary
from megatron_biollm.corpus.html_report import MANIFEST, REPORT, write_report
from megatron_biollm.corpus.profile import merge_profiles
from megatron_biollm.corpus.readers.registry import FORMATS, NAMED_ONLY
from megatron_biollm.corpus.shards import read_sidecar
from megatron_biollm.corpus.withhold import withhold

# Enough samples to judge a rule by, whatever the number of shards.
SAMPLES = 20


class Seal(PipelineStep):
    """Reads every task's counts, checks them against one another and writes three files.

    manifest.json: shards with documents, characters and digests, and the totals by source.
    report.json: files read with their faults, every step's flow by source, samples of drops and of
        clusters of duplicates, and what the documents kept are like.
    report.html: the same for people.

    decisions: by reason, the folders in which it was decided which duplicates go. sources: their
    epochs and budgets, for the page.
    """

    type, name = "corpus", "seal"

    def __init__(
        self,
        output: Path,
        extract: Path,
        finish: Path,
        tasks: int,
        decisions: dict[str, Path] | None = None,
        sources: Mapping[str, SourceConfig] | None = None,
    ):
        super().__init__()
        self.decisions, self.sources = decisions or {}, dict(sources or {})
        self.output, self.extract, self.finish, self.tasks = output, extract, finish, tasks

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator:
        extracted = read_sidecars(self.extract / "shards", self.tasks)
        finished = read_sidecars(self.finish / "counts", self.tasks)
        shards, profiles = self._shards()
        check_flows(extracted, finished, shards)
        files = name_sources([file for sidecar in extracted for file in sidecar["files"]])
        flows = merge_flows(extracted) + merge_flows(finished)
        clusters = {
            reason: {"summary": read_summary(folder), "samples": read_samples(folder)}
            for reason, folder in self.decisions.items()
        }
        report = {"files": files, "flows": flows, "profiles": profiles, "clusters": clusters}
        write_json(self.output / REPORT, withhold(report))
        manifest = {
            "sources": totals(shards),
            "files": count_files(files),
            "dropped": dropped(files, flows),
            "shards": shards,
        }
        write_json(self.output / MANIFEST, manifest)
        write_report(self.output, self.sources)
        yield from ()

    def _shards(self) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
        """The shards of this run's tasks, and the profiles of their sources.

        Shards of tasks that are no more are removed.
        """
        shards, profiles = [], {}
        for sidecar in sorted((self.output / "documents").glob("*/*.json")):
            shard = sidecar.with_name(f"{sidecar.stem}.jsonl.zst")
            if int(sidecar.stem) >= self.tasks:
                sidecar.unlink()
                shard.unlink(missing_ok=True)
                continue
            counts = json.loads(sidecar.read_text(encoding="utf-8"))
            source, profile = counts["source"], counts.get("profile")
            if profile:
                others = [profiles[source]] if source in profiles else []
                profiles[source] = merge_profiles([*others, profile])
            shards.append(
                {
                    "path": shard.relative_to(self.output).as_posix(),
                    "source": source,
                    "documents": counts["documents"],
                    "characters": sum(counts["characters_by_source"].values()),
                    "bytes": shard.stat().st_size,
                    "sha256": counts["sha256"],
                }
            )
        return shards, profiles


def read_sidecars(folder: Path, tasks: int) -> list[dict[str, Any]]:
    """Every task's sidecar; of their samples as many as are shown, not those of 100,000 tasks."""
    sidecars = []
    seen: Counter[tuple[str, str, str]] = Counter()
    for task in range(tasks):
        sidecar = read_sidecar(folder, task)
        for flow in sidecar["flows"]:
            flow["samples"] = [s for s in flow["samples"] if _is_wanted(flow["name"], s, seen)]
        sidecars.append(sidecar)
    return sidecars


def name_sources(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The files with the source that their format is of, where one is known."""
    formats = [*FORMATS, *(form for forms in NAMED_ONLY.values() for form in forms)]
    sources = {form.name: form.source for form in formats}
    return [{**file, "source": sources.get(file["format"])} for file in files]


def read_manifest(output: Path) -> dict[str, Any]:
    """What `Seal` wrote.

    Raises:
        UserError: the corpus was not sealed.
    """
    try:
        return json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{output / MANIFEST} is missing, so the corpus is not complete; run "
            "tools/build_corpus.py to its end"
        ) from error


def merge_flows(sidecars: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The flows of all tasks, added up step by step."""
    merged: dict[str, dict[str, Any]] = {}
    for flow in (flow for sidecar in sidecars for flow in sidecar["flows"]):
        total = merged.setdefault(
            flow["name"],
            {"came": Counter(), "left": Counter(), "characters": Counter(), "tally": Counter()}
            | {"dropped": {}, "samples": []},
        )
        for count in ("came", "left", "characters", "tally"):
            total[count].update(flow[count])
        for source, reasons in flow["dropped"].items():
            total["dropped"].setdefault(source, Counter()).update(reasons)
        total["samples"] += flow["samples"]
    return [{"name": name, **total} for name, total in merged.items()]


def check_flows(
    extracted: list[dict[str, Any]], finished: list[dict[str, Any]], shards: list[dict[str, Any]]
) -> None:
    """Documents in equal documents out and dropped, at every step of every task.

    Raises:
        UserError: naming the first step where documents are missing.
    """
    for stage, sidecars in (("extract", extracted), ("finish", finished)):
        for task, sidecar in enumerate(sidecars):
            for flow in sidecar["flows"]:
                came, left = sum(flow["came"].values()), sum(flow["left"].values())
                dropped = sum(sum(r.values()) for r in flow["dropped"].values())
                _require(came == left + dropped, f"{stage} task {task}, {flow['name']}")
    for task, (before, after) in enumerate(zip(extracted, finished, strict=True)):
        first = after["flows"][0]
        _require(before["documents"] == sum(first["came"].values()), f"between, task {task}")
    written = sum(sidecar["documents"] for sidecar in finished)
    _require(written == sum(shard["documents"] for shard in shards), "the shards of the sources")


def totals(shards: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Documents, characters and packed bytes by source."""
    by_source: dict[str, Counter[str]] = {}
    for shard in shards:
        counts = {name: shard[name] for name in ("documents", "characters", "bytes")}
        by_source.setdefault(shard["source"], Counter()).update(counts)
    return {source: dict(counts) for source, counts in sorted(by_source.items())}


def count_files(files: list[dict[str, Any]]) -> dict[str, Any]:
    """How many files were read; the names of those passed over and of those with faults."""
    return {
        "read": sum(not file["passed_over"] for file in files),
        "passed_over": [file["path"] for file in files if file["passed_over"]],
        "faulty": {
            file["path"]: f"{file['faults'][0]['position']}: {file['faults'][0]['reason']}"
            for file in files
            if file["fault_count"]
        },
    }


def dropped(files: list[dict[str, Any]], flows: list[dict[str, Any]]) -> dict[str, int]:
    """Records and documents left out, by step and reason."""
    counts: Counter[str] = Counter()
    for file in files:
        counts.update({f"read: {reason}": n for reason, n in file["dropped"].items()})
    for flow in flows:
        for reasons in flow["dropped"].values():
            counts.update({f"{flow['name']}: {reason}": n for reason, n in reasons.items()})
    return dict(counts)


def summary(manifest: dict[str, Any]) -> str:
    """A manifest for people: sources, drops, files with faults."""
    lines = [f"{'source':<18} {'documents':>12} {'characters':>16}"]
    for source, counts in manifest["sources"].items():
        lines.append(f"{source:<18} {counts['documents']:>12,} {counts['characters']:>16,}")
    lines += ["", f"{'dropped, and why':<32} {'records':>12}"]
    lines += [f"{reason:<32} {count:>12,}" for reason, count in manifest["dropped"].items()]
    files = manifest["files"]
    lines += ["", f"{files['read']} files read, {len(files['passed_over'])} passed over"]
    lines += [f"passed over: {path}" for path in files["passed_over"]]
    lines += [f"broken: {path}, {reason}" for path, reason in files["faulty"].items()]
    return "\n".join(lines)


def _require(holds: bool, place: str) -> None:
    if not holds:
        raise UserError(
            f"documents are missing in {place}: what came in is not what left and what was "
            "dropped; remove the folder stages/ and give the command again"
        )


def _is_wanted(step: str, sample: dict[str, Any], seen: Counter[tuple[str, str, str]]) -> bool:
    place = step, sample["source"], sample["reason"]
    seen[place] += 1
    return seen[place] <= SAMPLES
