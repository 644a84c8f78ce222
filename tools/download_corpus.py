"""Downloads an official source: PubMed, PMC, ClinicalTrials.gov or US patents.

Files appear below --output under their names only when whole and verified; downloads.jsonl there
records address, size, checksums, licence and date of each. Run it again to go on after an
interruption, to repeat what failed, or to fetch what is new: what is there is not fetched twice.

sources and their parts:
  pubmed           baseline, updatefiles (MD5 checked)
  pmc              oa_comm (default), oa_noncomm, oa_other, author_manuscript: articles from PMC's
                   cloud service, packed by 10,000 PMCIDs and licence (MD5 checked)
  pmc_packages     oa_comm, oa_noncomm, oa_other: tar files of the layout that NLM withdrew in
                   August 2026, from a mirror
  clinical_trials  all studies, as pages of 1,000; --first and --last are dates of updates
  patents          grants, applications: weekly files; needs a key of https://data.uspto.gov in
                   the variable USPTO_API_KEY or a file

examples:
  python tools/download_corpus.py pubmed --output raw --dry-run
  python tools/download_corpus.py pubmed --output raw --parts baseline --last pubmed26n0010 \\
      --contact you@example.org
  python tools/download_corpus.py pmc --output raw --first PMC1000xxxx --limit 2
  python tools/download_corpus.py clinical_trials --output raw --first 2026-01-01
  python tools/download_corpus.py patents --output raw --parts grants --years 2020-2024

exit status: 0 when every file is there, 1 when some failed, 2 for wrong options or a full disk.
"""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.corpus.download.client import Client, Politeness, check_base_url
from megatron_biollm.corpus.download.fetch import digests
from megatron_biollm.corpus.download.jobs import Plan, Selection
from megatron_biollm.corpus.download.manifest import Manifest, only_run
from megatron_biollm.corpus.download.run import SOURCES, Report, download, make_plan
from megatron_biollm.log import get_logger, run_tool, setup_logging

POLITENESS = {
    "connections": "files fetched at the same time",
    "requests_per_second": "over all connections",
    "attempts": "failures in a row before a file is given up",
    "timeout_s": "seconds of silence that end an attempt",
    "backoff_s": "seconds to wait after a first failure, doubled after each further one",
    "max_wait_s": "longest wait, in seconds, that a server may ask for",
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("--output", type=Path, required=True, help="folder for all sources")
    which = parser.add_argument_group("which files")
    which.add_argument("--parts", nargs="+", default=[], metavar="PART", help="see above")
    which.add_argument("--first", metavar="NAME", help="first file name, in alphabetical order")
    which.add_argument("--last", metavar="NAME", help="last file name, or how it starts")
    which.add_argument("--include", metavar="PATTERN", help="names that match, such as '*n12??*'")
    which.add_argument("--limit", type=int, metavar="N", help="the first N files of these")
    which.add_argument("--years", metavar="YEARS", help="of patents: 2020-2024 or 2019,2021")
    how = parser.add_argument_group("how")
    how.add_argument("--dry-run", action="store_true", help="list files and sizes, fetch none")
    how.add_argument("--verify", action="store_true", help="first compare files with checksums")
    how.add_argument("--base-url", help="address of a mirror, instead of the official one")
    how.add_argument("--contact", help="e-mail address that the servers' operators may write to")
    how.add_argument("--api-key-file", type=Path, help="file that holds the USPTO key")
    how.add_argument("--no-disk-check", action="store_true", help="start even if space looks short")
    polite = parser.add_argument_group("politeness", "[each source has its own default]")
    for field in dataclasses.fields(Politeness):
        name = f"--{field.name.replace('_', '-')}"
        polite.add_argument(name, type=type(field.default), help=POLITENESS[field.name])
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    setup_logging()
    wanted = selection(args)
    base_url = check_base_url(args.base_url) if args.base_url else None
    folder = SOURCES[args.source].folder
    with make_client(args) as client, only_run(args.output, folder):
        manifest = Manifest(args.output)
        if args.verify:
            for path in manifest.verify(lambda file: digests(file).sha256, f"{folder}/"):
                get_logger(__name__).warning(f"{path} differs from its checksum")
        plan = make_plan(args.source, client, base_url, wanted, manifest)
        if args.dry_run:
            return show_plan(plan, manifest, args.json)
        return show_report(download(plan, client, manifest, not args.no_disk_check), args.json)


def make_client(args: argparse.Namespace) -> Client:
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Politeness)}
    changed = {name: value for name, value in given.items() if value is not None}
    source = SOURCES[args.source]
    key = read_key(args.api_key_file) if source.needs_key else None
    if source.needs_key and not key and not args.base_url:
        raise UserError(
            "the bulk data API of USPTO wants a key; get one at https://data.uspto.gov and put it "
            "into the variable USPTO_API_KEY, or name its file with --api-key-file"
        )
    return Client(dataclasses.replace(source.politeness, **changed), args.contact, key)


def read_key(file: Path | None) -> str | None:
    """From a file or the environment: the command line is for all users of a machine to see."""
    if file is None:
        return os.environ.get("USPTO_API_KEY")
    if not file.is_file():
        raise UserError(f"--api-key-file {file} does not exist; give the file that holds the key")
    return file.read_text(encoding="utf-8").strip()


def selection(args: argparse.Namespace) -> Selection:
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit is {args.limit}, but at least one file must be wanted; raise it")
    if args.years and args.source != "patents":
        raise UserError(f"--years picks patents, not {args.source}; omit it")
    return Selection(
        parts=tuple(args.parts),
        first=args.first,
        last=args.last,
        include=args.include,
        limit=args.limit,
        years=read_years(args.years) if args.years else (),
    )


def read_years(text: str) -> tuple[int, ...]:
    years: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not (first.isdigit() and (last or first).isdigit()):
            raise UserError(f"--years is {text!r}; give years as 2020-2024 or 2019,2021")
        years += range(int(first), int(last or first) + 1)
    return tuple(years)


def show_plan(plan: Plan, manifest: Manifest, as_json: bool) -> int:
    rows = [
        {"path": j.path, "bytes": j.size, "exact": j.exact, "there": j.is_done(manifest)}
        for j in plan.jobs
    ]
    missing = [row for row in rows if not row["there"]]
    totals = {"files": len(rows), "missing": len(missing)}
    totals["bytes"] = sum(row["bytes"] or 0 for row in rows)
    totals["missing_bytes"] = sum(row["bytes"] or 0 for row in missing)
    notes = {"refused": plan.refused, "superseded": plan.superseded}
    if as_json:
        print(json.dumps({"totals": totals, "files": rows, **notes}, indent=2))
        return 0
    for row in rows:
        print(f"{size_text(row['bytes'], row['exact'])}  {row['path']}{'  there' * row['there']}")
    print(
        f"{totals['files']} files, {size_text(totals['bytes'], False).strip()}; to fetch: "
        f"{totals['missing']} files, {size_text(totals['missing_bytes'], False).strip()}"
    )
    show_notes(notes)
    return 0


def size_text(count: int | None, exact: bool) -> str:
    if count is None:
        return "         ?"
    return f"{'' if exact else '~'}{count / 1e6:,.1f} MB".rjust(12)


def show_report(report: Report, as_json: bool) -> int:
    if as_json:
        print(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        print(
            f"{len(report.fetched)} fetched ({report.bytes / 1e6:,.1f} MB), "
            f"{len(report.there)} were there, {len(report.failed)} failed"
        )
    for path, reason in report.failed.items():
        get_logger(__name__).error(f"{path}: {reason}")
    show_notes({"refused": report.refused, "superseded": report.superseded})
    return 1 if report.failed else 0


def show_notes(notes: dict[str, list[str]]) -> None:
    logger = get_logger(__name__)
    for name in notes["refused"]:
        logger.warning(f"refused {name!r}: the name of a file must not lead to another folder")
    if notes["superseded"]:
        logger.warning(
            f"{len(notes['superseded'])} files are there that the source no longer lists, such as "
            f"{notes['superseded'][0]}; remove them lest they be read beside the new ones"
        )


if __name__ == "__main__":
    sys.exit(run_tool(main))
