"""A source into a folder: plan, check the disk, fetch in parallel, report."""

from __future__ import annotations

import concurrent.futures
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.corpus.download.client import Cancelled, Client, DownloadError, Politeness
from megatron_biollm.corpus.download.clinical_trials import CLINICAL_TRIALS_URL, plan_trials
from megatron_biollm.corpus.download.fetch import DiskError, part_of
from megatron_biollm.corpus.download.jobs import Job, Plan, Selection, Work
from megatron_biollm.corpus.download.manifest import Manifest
from megatron_biollm.corpus.download.pmc import PMC_URL, plan_pmc
from megatron_biollm.corpus.download.sources import (
    PATENTS_URL,
    PUBMED_URL,
    plan_packages,
    plan_patents,
    plan_pubmed,
)
from megatron_biollm.log import Progress

# Beside the forecast: file systems slow down, and others write too.
_SPARE_BYTES = 1 << 30


@dataclass(frozen=True)
class Source:
    """A source: its official address (None where there is no more), folder, planner and pace."""

    base_url: str | None
    folder: str
    plan: Callable[[Client, str, Selection, Manifest], Plan]
    politeness: Politeness
    needs_key: bool = False


SOURCES = {
    # NCBI asks for at most three requests a second without a key.
    "pubmed": Source(PUBMED_URL, "pubmed", plan_pubmed, Politeness(2, 3.0)),
    # A public S3 bucket, made for millions of requests.
    "pmc": Source(PMC_URL, "pmc", plan_pmc, Politeness(8, 200.0)),
    "pmc_packages": Source(None, "pmc", plan_packages, Politeness(2, 3.0)),
    # robots.txt asks for a second between requests.
    "clinical_trials": Source(
        CLINICAL_TRIALS_URL, "clinical_trials", plan_trials, Politeness(1, 0.8)
    ),
    # One request at a time for each key.
    "patents": Source(PATENTS_URL, "patents", plan_patents, Politeness(1, 1.0), needs_key=True),
}


@dataclass
class Report:
    """What became of each file: fetched, there before, or failed with the reason."""

    fetched: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    bytes: int = 0


def make_plan(
    source: str, client: Client, base_url: str | None, wanted: Selection, manifest: Manifest
) -> Plan:
    """Asks the source what it has. Raises UserError for an unknown source or a missing address."""
    known = SOURCES[source]
    address = base_url or known.base_url
    if address is None:
        raise UserError(
            f"{source} has no official address any more; give --base-url of a mirror, or take pmc"
        )
    return known.plan(client, address.rstrip("/"), wanted, manifest)


def download(plan: Plan, client: Client, manifest: Manifest, check_disk: bool = True) -> Report:
    """Fetches what is not there yet.

    Files that fail are named in the report and the others go on; a full disk ends the run.

    Raises:
        DiskError: the files do not fit, or the disk is full; finished files stay.
        KeyboardInterrupt: parts stay, and a later run goes on from them.
    """
    manifest.root.mkdir(parents=True, exist_ok=True)
    report = Report(refused=plan.refused, superseded=plan.superseded)
    open_jobs = []
    for job in plan.jobs:
        if job.is_done(manifest):
            report.there.append(job.path)
        else:
            open_jobs.append(job)
    if check_disk:
        check_space(open_jobs, manifest.root)
    total = sum(job.size or 0 for job in open_jobs) or None
    with Progress(total, "downloading", unit="B", enabled=bool(open_jobs)) as progress:
        work = Work(client, manifest, _counter(progress))
        _run_all(open_jobs, work, report)
    report.fetched.sort()
    return report


def check_space(jobs: list[Job], root: Path) -> None:
    """Raises DiskError unless the forecast fits on the disk."""
    parts = (part_of(root / job.path) for job in jobs)
    here = sum(part.stat().st_size for part in parts if part.is_file())
    needed = sum(job.size or 0 for job in jobs) - here + _SPARE_BYTES
    free = shutil.disk_usage(root).free
    if jobs and needed > free:
        raise DiskError(
            f"{len(jobs)} files need about {needed / 1e9:.1f} GB, but {root} has {free / 1e9:.1f} "
            "GB free; choose fewer files, another --output, or --no-disk-check"
        )


def _run_all(jobs: list[Job], work: Work, report: Report) -> None:
    client = work.client
    pool = concurrent.futures.ThreadPoolExecutor(client.politeness.connections)
    try:
        futures = {pool.submit(job.run, work): job for job in jobs}
        for future in concurrent.futures.as_completed(futures):
            _note(future, futures[future], report)
    finally:
        # Reached by an interrupt and by a full disk too: no thread may start another file.
        client.stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _note(future: concurrent.futures.Future, job: Job, report: Report) -> None:
    try:
        report.bytes += future.result()
        report.fetched.append(job.path)
    except DownloadError as error:
        report.failed[job.path] = str(error)
    except Cancelled:
        report.failed[job.path] = "not finished"


def _counter(progress: Progress) -> Callable[[int], None]:
    lock = threading.Lock()

    def count(bytes_: int) -> None:
        with lock:
            progress.update(bytes_)

    return count
