"""The whole curation: source files in, clean shards out, stage by stage on datatrove's executors.

    extract      one task per group of files: parse, select, normalise, filter, de-identify
    names, texts one task per bucket: versions, withdrawals, families; then exact copies
    finish       one task per shard: without the losers, by source
    seal         one task: checks that nothing is lost, writes manifest and report

Everything lies in `output_dir`: `documents/SOURCE/NNNNN.jsonl.zst` is the result, `stages/` what
led to it. A stage's folder bears the digest of all that its content depends on (settings, files,
the stages before it), so a changed setting makes a new folder and never reuses an old result; the
files of an extract task are compared one by one, so new files cost their own work only.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_biollm import __version__
from megatron_biollm.atomic import whole_file
from megatron_biollm.config import UserError, dump_config, option, section
from megatron_biollm.corpus.config import ExecutorConfig, SourcesConfig
from megatron_biollm.corpus.dedup.buckets import Buckets
from megatron_biollm.corpus.dedup.cluster import Clusters, near_duplicate_filter
from megatron_biollm.corpus.dedup.config import ContainmentConfig, NearDuplicateConfig
from megatron_biollm.corpus.dedup.containment import Contained, Shares, contained_filter
from megatron_biollm.corpus.dedup.signatures import Signatures
from megatron_biollm.corpus.dedup.sketches import SharedShingles, Sketches
from megatron_biollm.corpus.executor import Stage, run_stages
from megatron_biollm.corpus.extract import Ledger, ReadFiles, WriteClaims
from megatron_biollm.corpus.identity import RemoveLosers, ResolveClaims
from megatron_biollm.corpus.plan import Plan, list_files, make_plan
from megatron_biollm.corpus.processing import (
    FIRST_SECTIONS,
    ProcessingConfig,
    first_processors,
    last_fingerprint,
    last_processors,
    secret_fingerprint,
)
from megatron_biollm.corpus.seal import Seal, read_manifest
from megatron_biollm.corpus.shards import ReadShard, WriteCounts, WriteShard, WriteSources
from megatron_biollm.corpus.steps import DocumentStep

_PARTS = ("2-names", "3-texts", "4-near", "5-contained", "8-finish", "9-seal")
# The settings on which the result of the first stage depends, and that of the later ones.
_FIRST = ("buckets", "text_documents", "keep_broken_files", *FIRST_SECTIONS)
_LATER = ("near_duplicates", "containment", "decontaminate")
# Raised when the result of the same settings changes, so that no older stage is taken for it.
_VERSION = [1, __version__]


@dataclass
class CurationConfig(ProcessingConfig):
    """A corpus, from source files to clean shards."""

    paths: list[str] = option([], "files and folders; their content tells which source they are")
    output_dir: str = option("corpus", "folder for the shards, the report and the stages")
    task_mb: float = option(64.0, "packed megabytes of source files in one task")
    buckets: int = option(16, "parts in which duplicates are settled; more need less memory each")
    text_documents: str = option("file", "a document of a .txt file: the file, or a blank_line")
    keep_broken_files: bool = option(False, "keep the whole records of files that break off")
    sources: SourcesConfig = section(SourcesConfig, "each source's own paths and its share")
    near_duplicates: NearDuplicateConfig = section(NearDuplicateConfig, "MinHash")
    containment: ContainmentConfig = section(ContainmentConfig, "abstracts inside full texts")
    executor: ExecutorConfig = section(ExecutorConfig, "where the stages run")

    def __post_init__(self) -> None:
        if self.task_mb <= 0 or self.buckets < 1:
            raise UserError(
                f"task_mb is {self.task_mb} and buckets {self.buckets}; a task has a size above 0, "
                "and duplicates are settled in 1 bucket or more"
            )
        if self.text_documents not in ("file", "blank_line"):
            raise UserError(
                f"text_documents is {self.text_documents!r}; give 'file' or 'blank_line'"
            )


def prepare(config: CurationConfig) -> tuple[Path, Plan]:
    """The output folder, made, and the files dealt out to tasks.

    Raises:
        UserError: no file, a path that does not exist, or sources inside the output folder.
    """
    output = Path(config.output_dir).resolve()
    own = {name: source.paths for name, source in config.sources.by_name().items()}
    files = list_files(config.paths, own)
    _refuse_own_output(output, [file.path for file in files])
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    folder = extract_folder(config, output)
    plan = make_plan(files, int(config.task_mb * 1e6), _old_plan(folder))
    return output, _take_plan(folder, plan)


def curate(config: CurationConfig, wait_for_jobs: bool = True) -> dict[str, Any] | None:
    """Runs what is missing of all stages.

    Args:
        config: the corpus.
        wait_for_jobs: with SLURM, return when the jobs have ended, not when they are submitted.

    Returns:
        The manifest; None if jobs were submitted and not waited for.

    Raises:
        UserError: as `prepare`, or failed tasks (`StageFailed`); what was completed is kept for
            the next run.
    """
    output, plan = prepare(config)
    if not run_stages(curation_stages(config, plan, output), config.executor, wait_for_jobs):
        return None
    return read_manifest(output)


def curation_stages(config: CurationConfig, plan: Plan, output: Path) -> list[Stage]:
    """All stages in order, for files dealt out by `plan`."""
    tasks = len(plan.tasks)
    extract = extract_folder(config, output)
    settled = last_fingerprint(config), _settings(config, _LATER)
    key = digest(_VERSION, extract.name, plan.digest(), *settled)
    folder = {part: output / "stages" / f"{part}-{key}" for part in _PARTS}
    losses = [folder["2-names"] / "losses", folder["3-texts"] / "losses"]
    settle_names = ResolveClaims(extract / "names", losses[0])
    settle_texts = ResolveClaims(extract / "texts", losses[1], losses[:1])
    shards = [ReadShard(extract / "shards"), RemoveLosers(losses)]
    near, near_removal = _near_duplicates(config, shards, tasks, folder)
    contained, contained_removal = _contained(config, shards + near_removal, tasks, folder)
    removals = [shards[1], *near_removal, *contained_removal]
    cache = output / "stages" / "benchmarks"
    counted = [
        *removals,
        *(DocumentStep(processor) for processor in last_processors(config, cache)),
    ]
    finishing = [
        shards[0],
        *counted,
        WriteSources(output / "documents"),
        WriteCounts(folder["8-finish"] / "counts", counted),
    ]
    decisions = {step.reason: step.folder for step in removals[1:]}
    wanted = config.sources.by_name()
    seal = Seal(output, extract, folder["8-finish"], tasks, decisions, wanted)
    return [
        Stage("extract", tasks, _extract_steps(config, plan, extract), extract),
        Stage("names", config.buckets, [settle_names], folder["2-names"]),
        Stage("texts", config.buckets, [settle_texts], folder["3-texts"]),
        *near,
        *contained,
        Stage("finish", tasks, finishing, folder["8-finish"]),
        Stage("seal", 1, [seal], folder["9-seal"]),
    ]


def _near_duplicates(
    config: CurationConfig, shards: list[Any], tasks: int, folder: dict[str, Path]
) -> tuple[list[Stage], list[Any]]:
    """MinHash in datatrove's four stages; the fourth is the filter, second in what is returned."""
    wanted, place = config.near_duplicates, folder["4-near"]
    if not wanted.enabled:
        return [], []
    signing = [*shards, Signatures(wanted, place)]
    stages = [
        Stage("signatures", tasks, signing, place / "1"),
        Stage("near", wanted.num_buckets, [Buckets(wanted, place)], place / "2"),
        Stage("clusters", 1, [Clusters(wanted, place)], place / "3"),
    ]
    return stages, [near_duplicate_filter(place)]


def _contained(
    config: CurationConfig, shards: list[Any], tasks: int, folder: dict[str, Path]
) -> tuple[list[Stage], list[Any]]:
    """The search for documents inside longer ones, and the filter that removes them."""
    wanted, place = config.containment, folder["5-contained"]
    if not wanted.enabled:
        return [], []
    sketching = [*shards, Sketches(wanted, place)]
    stages = [
        Stage("sketches", tasks, sketching, place / "1"),
        Stage("shared", config.buckets, [SharedShingles(wanted, place)], place / "2"),
        Stage("shares", tasks, [Shares(wanted, place)], place / "3"),
        Stage("contained", 1, [Contained(wanted, place)], place / "4"),
    ]
    return stages, [contained_filter(place)]


def extract_folder(config: CurationConfig, output: Path) -> Path:
    """Where the first stage lies; its name changes with any setting that changes its documents."""
    key = digest(_VERSION, _settings(config, _FIRST), secret_fingerprint(config.deidentify))
    return output / "stages" / f"1-extract-{key}"


def _settings(config: CurationConfig, names: Iterable[str]) -> dict[str, Any]:
    return {name: dataclasses.asdict(config)[name] for name in names}


def _extract_steps(config: CurationConfig, plan: Plan, folder: Path) -> list[Any]:
    ledger = Ledger()
    reading = ReadFiles(plan, ledger, config.text_documents, config.keep_broken_files)
    steps = [DocumentStep(processor) for processor in first_processors(config)]
    return [
        reading,
        *steps,
        WriteClaims(folder, ledger, config.buckets),
        WriteShard(folder / "shards", steps, reading.report),
    ]


def _old_plan(folder: Path) -> Plan | None:
    file = folder / "plan.json"
    return Plan.from_json(file.read_text(encoding="utf-8")) if file.exists() else None


def _take_plan(folder: Path, plan: Plan) -> Plan:
    """Makes a plan the folder's own: tasks whose files changed count as not done any more."""
    before = _old_plan(folder)
    for rank, task in enumerate(plan.tasks):
        if before is None or rank >= len(before.tasks) or before.tasks[rank] != task:
            (folder / "completions" / f"{rank:05d}").unlink(missing_ok=True)
    with whole_file(folder / "plan.json") as file:
        file.write(plan.to_json().encode())
    return plan


def _refuse_own_output(output: Path, files: Iterable[str]) -> None:
    inside = [file for file in files if Path(file).is_relative_to(output)]
    if inside:
        raise UserError(
            f"{inside[0]} lies in output_dir {output}, so a second run would read what the first "
            "one wrote; give an output_dir outside the paths"
        )


def digest(*values: Any) -> str:
    """A short name for plain values: the same for the same ones."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
