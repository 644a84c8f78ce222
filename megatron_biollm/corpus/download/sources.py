"""Folders and listings of the official sources, as jobs.

- PubMed: https://ftp.ncbi.nlm.nih.gov/pubmed/ has `baseline` (once a year) and `updatefiles`
  (daily, on top of the newest baseline), each file with its ``.md5``. NLM asks bulk users to name
  themselves and to keep to a few requests a second.
- PMC packages: the layout of oa_bulk, tar archives by licence with a list each. NLM withdrew it in
  August 2026 (NLM Technical Bulletin 468:e8), so it is for mirrors; `pmc.py` has the present one.
- Patents: the bulk data API of USPTO's Open Data Portal (https://data.uspto.gov/apis), which wants
  a key, one request at a time, and redirects each file to a signed address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from megatron_biollm.corpus.download.client import Client, DownloadError
from megatron_biollm.corpus.download.fetch import RemoteFile
from megatron_biollm.corpus.download.jobs import FileJob, Plan, Selection
from megatron_biollm.corpus.download.listing import (
    Entry,
    Listing,
    is_plain_name,
    match_any,
    read_listing,
)
from megatron_biollm.corpus.download.manifest import Manifest

PUBMED_URL = "https://ftp.ncbi.nlm.nih.gov/pubmed"
PUBMED_PARTS = ("baseline", "updatefiles")
_PUBMED_NAME = re.compile(r"pubmed\d\dn\d{4,}\.xml\.gz")
_PUBMED_LICENCE = (
    "NLM terms and conditions, https://www.nlm.nih.gov/databases/download/"
    "terms_and_conditions.html; abstracts may be under their publishers' copyright"
)

PACKAGE_PARTS = {
    "oa_comm": "commercial use allowed: CC0, CC BY, CC BY-SA or CC BY-ND, as each article states",
    "oa_noncomm": "non-commercial use only: CC BY-NC, CC BY-NC-SA or CC BY-NC-ND, as each "
    "article states",
    "oa_other": "no Creative Commons licence, terms as each article states",
}
_PACKAGE_NAME = re.compile(r"oa_\w+_xml\.[\w.-]+?\.tar\.gz")

PATENTS_URL = "https://api.uspto.gov/api/v1/datasets/products"
PATENT_PARTS = {"grants": "PTGRXML", "applications": "APPXML"}
_PATENT_NAME = re.compile(r"i?p[ga]\d{6}(_\w+)?\.zip")
_PATENT_LICENCE = (
    "US patent text, not subject to copyright save where a patent says so (37 CFR 1.71); "
    "https://www.uspto.gov/terms-use-uspto-websites"
)


def plan_pubmed(client: Client, base_url: str, wanted: Selection, manifest: Manifest) -> Plan:
    """Baseline and daily updates. Raises DownloadError where a folder cannot be listed."""
    plan = Plan([])
    for part in wanted.parts_of(PUBMED_PARTS, default=PUBMED_PARTS):
        folder = f"{base_url}/{part}/"
        listing = list_folder(client, folder)
        names = {entry.name for entry in listing.entries}
        files = [
            _listed(entry, folder, f"pubmed/{part}", _PUBMED_LICENCE, "pubmed", names)
            for entry in listing.entries
            if _PUBMED_NAME.fullmatch(entry.name)
        ]
        _extend(plan, files, listing, _PUBMED_NAME, wanted)
        plan.superseded += _no_longer_listed(manifest, f"pubmed/{part}/", files)
    return plan


def plan_packages(client: Client, base_url: str, wanted: Selection, manifest: Manifest) -> Plan:
    """Tar archives of PMC articles, by licence, from a mirror of the old layout."""
    plan = Plan([])
    for part in wanted.parts_of(PACKAGE_PARTS, default=("oa_comm",)):
        folder = f"{base_url}/{part}/xml/"
        listing = list_folder(client, folder)
        names = {entry.name for entry in listing.entries}
        files = [
            _listed(entry, folder, f"pmc/{part}", PACKAGE_PARTS[part], "pmc", names)
            for entry in listing.entries
            if _PACKAGE_NAME.fullmatch(entry.name)
        ]
        _extend(plan, files, listing, _PACKAGE_NAME, wanted)
        plan.superseded += _no_longer_listed(manifest, f"pmc/{part}/", files)
    return plan


def plan_patents(client: Client, base_url: str, wanted: Selection, manifest: Manifest) -> Plan:
    """Weekly full text of grants (Tuesdays) and published applications (Thursdays)."""
    plan, files = Plan([]), []
    for part in wanted.parts_of(PATENT_PARTS, default=PATENT_PARTS):
        for row in _patent_rows(client, f"{base_url}/{PATENT_PARTS[part]}", wanted.years):
            name = str(row.get("fileName"))
            if is_plain_name(name) and _PATENT_NAME.fullmatch(name):
                year = 2000 + int(name.lstrip("ip")[1:3])
                if not wanted.years or year in wanted.years:
                    files.append(_patent_file(row, name, year, part, base_url))
            elif match_any([name], _PATENT_NAME):
                plan.refused.append(name)
    unique = {file.path: file for file in files}.values()
    plan.jobs = [FileJob(file) for file in wanted.of(unique, _file_name)]
    return plan


def list_folder(client: Client, url: str) -> Listing:
    return read_listing(client.get(url).decode("utf-8", "replace"))


def _extend(
    plan: Plan, files: list[RemoteFile], listing: Listing, names: re.Pattern, wanted: Selection
) -> None:
    plan.jobs += [FileJob(file) for file in wanted.of(files, _file_name)]
    plan.refused += match_any(listing.refused, names)


def _file_name(file: RemoteFile) -> str:
    return file.path.rpartition("/")[2]


def _listed(
    entry: Entry, folder: str, where: str, licence: str, source: str, names: set[str]
) -> RemoteFile:
    checksum = f"{entry.name}.md5"
    return RemoteFile(
        url=folder + entry.name,
        path=f"{where}/{entry.name}",
        licence=licence,
        source=source,
        size=entry.size,
        exact=entry.exact,
        md5_url=folder + checksum if checksum in names else None,
        version=entry.modified,
    )


def _no_longer_listed(manifest: Manifest, where: str, files: list[RemoteFile]) -> list[str]:
    """Files of an earlier year's baseline, say, which would be read beside the new one."""
    listed = {file.path for file in files}
    mine = (path for path in manifest.records if path.startswith(where) and path not in listed)
    return [path for path in mine if (manifest.root / path).exists()]


def _patent_rows(client: Client, url: str, years: tuple[int, ...]) -> Iterator[dict]:
    """What the API tells of each file of a product, of all years or of some."""
    spans = [f"&fileDataFromDate={year}-01-01&fileDataToDate={year}-12-31" for year in years]
    for span in spans or [""]:
        answer = client.get(f"{url}?includeFiles=true{span}")
        try:
            for product in _flat(json.loads(answer)["bulkDataProductBag"]):
                yield from _flat(product.get("productFileBag", {}).get("fileDataBag", []))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DownloadError(
                f"{url} answers {answer[:80]!r}, which is no list of files; the base address must "
                "be that of the bulk data API"
            ) from error


def _flat(rows: list) -> Iterator[dict]:
    """The API has nested its lists once more at times."""
    for row in rows:
        yield from row if isinstance(row, list) else [row]


def _patent_file(row: dict, name: str, year: int, part: str, base_url: str) -> RemoteFile:
    size = row.get("fileSize")
    return RemoteFile(
        url=_patent_url(str(row.get("fileDownloadURI") or ""), name, part, base_url),
        path=f"patents/{part}/{year}/{name}",
        licence=_PATENT_LICENCE,
        source="patents",
        size=size if isinstance(size, int) else None,
        exact=isinstance(size, int),
        version=row.get("fileLastModifiedDateTime") or row.get("fileReleaseDate"),
    )


def _patent_url(told: str, name: str, part: str, base_url: str) -> str:
    """The file's address below the base: the key must not go to any host that a list may name."""
    path = urlsplit(told).path
    below = path.partition("/datasets/products/")[2]
    parts = below.split("/")
    if parts[0] == "files" and parts[-1] == name and all(is_plain_name(p) for p in parts):
        return f"{base_url}/{below}"
    return f"{base_url}/files/{PATENT_PARTS[part]}/{name}"
