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
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError, dump_config, option, section
from megatron_biollm.corpus.config import ExecutorConfig, SourcesConfig
from megatron_biollm.corpus.executor import Stage, run_stages
from megatron_biollm.corpus.extract import Ledger, ReadFiles, WriteClaims
from megatron_biollm.corpus.identity import RemoveLosers, ResolveClaims
from megatron_biollm.corpus.plan import Plan, list_files, make_plan
from megatron_biollm.corpus.seal import Seal, read_manifest
from megatron_biollm.corpus.shards import ReadShard, WriteShard, WriteSources
from megatron_biollm.corpus.steps import DocumentStep, Processor

# Raised when the result of the same settings changes, so that no older stage is taken for it.
_VERSION = 1


@dataclass
class CurationConfig:
    """A corpus, from source files to clean shards."""

    paths: list[str] = option([], "files and folders; their content tells which source they are")
    output_dir: str = option("corpus", "folder for the shards, the report and the stages")
    task_mb: float = option(64.0, "packed megabytes of source files in one task")
    buckets: int = option(16, "parts in which duplicates are settled; more need less memory each")
    text_documents: str = option("file", "a document of a .txt file: the file, or a blank_line")
    keep_broken_files: bool = option(False, "keep the whole records of files that break off")
    sources: SourcesConfig = section(SourcesConfig, "each source's own paths and its share")
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


def curate(config: CurationConfig, wait_for_jobs: bool = True) -> dict[str, Any] | None:
    """Runs what is missing of all stages.

    Args:
        config: the corpus.
        wait_for_jobs: with SLURM, return when the jobs have ended, not when they are submitted.

    Returns:
        The manifest; None if jobs were submitted and not waited for.

    Raises:
        UserError: no file, a path that does not exist, or failed tasks (`StageFailed`); what was
            completed is kept for the next run.
    """
    output = Path(config.output_dir).resolve()
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    own = {name: source.paths for name, source in config.sources.by_name().items()}
    files = list_files(config.paths, own)
    _refuse_own_output(output, [file.path for file in files])
    folder = extract_folder(config, output)
    plan = _take_plan(folder, make_plan(files, int(config.task_mb * 1e6), _old_plan(folder)))
    if not run_stages(curation_stages(config, plan, output), config.executor, wait_for_jobs):
        return None
    return read_manifest(output)


def curation_stages(config: CurationConfig, plan: Plan, output: Path) -> list[Stage]:
    """All stages in order, for files dealt out by `plan`."""
    tasks = len(plan.tasks)
    extract = extract_folder(config, output)
    key = _digest(extract.name, plan.digest(), config.buckets)
    names, texts, finish, seal = (
        output / "stages" / f"{part}-{key}" for part in ("2-names", "3-texts", "8-finish", "9-seal")
    )
    losses = [names / "losses", texts / "losses"]
    settle_names = ResolveClaims(extract / "names", losses[0])
    settle_texts = ResolveClaims(extract / "texts", losses[1], losses[:1])
    removal = RemoveLosers(losses)
    finishing = [
        ReadShard(extract / "shards"),
        removal,
        WriteSources(output / "documents"),
        WriteShard(finish / "counts", [removal]),
    ]
    return [
        Stage("extract", tasks, _extract_steps(config, plan, extract), extract),
        Stage("names", config.buckets, [settle_names], names),
        Stage("texts", config.buckets, [settle_texts], texts),
        Stage("finish", tasks, finishing, finish),
        Stage("seal", 1, [Seal(output, extract, finish, tasks)], seal),
    ]


def processors(config: CurationConfig) -> list[Processor]:
    """What is done to each document, in order."""
    return []


def extract_folder(config: CurationConfig, output: Path) -> Path:
    """Where the first stage lies; its name changes with any setting that changes its documents."""
    settings = dataclasses.asdict(config)
    for name in ("paths", "output_dir", "executor", "sources", "task_mb"):
        del settings[name]
    return output / "stages" / f"1-extract-{_digest(_VERSION, settings)}"


def _extract_steps(config: CurationConfig, plan: Plan, folder: Path) -> list[Any]:
    ledger = Ledger()
    reading = ReadFiles(plan, ledger, config.text_documents, config.keep_broken_files)
    steps = [DocumentStep(processor) for processor in processors(config)]
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
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".plan.json.tmp"
    temporary.write_text(plan.to_json(), encoding="utf-8")
    temporary.replace(folder / "plan.json")
    return plan


def _refuse_own_output(output: Path, files: Iterable[str]) -> None:
    inside = [file for file in files if Path(file).is_relative_to(output)]
    if inside:
        raise UserError(
            f"{inside[0]} lies in output_dir {output}, so a second run would read what the first "
            "one wrote; give an output_dir outside the paths"
        )


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def remove_old_stages(config: CurationConfig, plan: Plan) -> list[Path]:
    """Removes the folders of stages that the present settings do not use; returns them."""
    output = Path(config.output_dir).resolve()
    used = {stage.folder for stage in curation_stages(config, plan, output)}
    old = [folder for folder in (output / "stages").iterdir() if folder not in used]
    for folder in old:
        shutil.rmtree(folder)
    return old
