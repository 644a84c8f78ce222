"""Which article versions PMC's cloud service has, from its daily inventory.

Layout, as its README.txt describes it: ``PMC13901.1/PMC13901.1.xml`` and more for each article
version, ``metadata/PMC13901.1.json`` for each, and under ``inventory-reports/`` one folder a day
whose ``manifest.json`` names gzipped CSV files (bucket, key, date, ETag) of all the metadata.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import struct
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from megatron_biollm.corpus.download.client import Client, DownloadError
from megatron_biollm.corpus.download.fetch import RemoteFile, digests, fetch_file
from megatron_biollm.corpus.download.listing import is_plain_name

PREFIX = "inventory-reports/pmc-oa-opendata/metadata/"
# As many PMCIDs as share a package: some 7,000 articles, 0.2 GB packed.
IDS_PER_PACKAGE = 10_000
_DAY = re.compile(rf"<Prefix>({PREFIX}\d{{4}}-\d\d-\d\dT\d\d-\d\dZ/)</Prefix>")
_ROW = re.compile(rb'"metadata/PMC(\d{1,12})\.(\d{1,4})\.json".*"([0-9a-f]{32})"\s*$')
# PMCID, version and ETag in 26 bytes: nine million of them must fit into memory.
_PACKED = struct.Struct(">QH16s")


@dataclass(frozen=True)
class Article:
    """One article version; etag is the MD5 of its metadata file."""

    pmcid: int
    version: int
    etag: str

    @property
    def name(self) -> str:
        return f"PMC{self.pmcid}.{self.version}"


class Inventory:
    """Article versions by package, that is by PMCID without its last four digits."""

    def __init__(self) -> None:
        self.packed: dict[int, bytearray] = defaultdict(bytearray)

    def add(self, pmcid: int, version: int, etag: str) -> None:
        row = _PACKED.pack(pmcid, version, bytes.fromhex(etag))
        self.packed[pmcid // IDS_PER_PACKAGE] += row

    def count(self, package: int) -> int:
        """Article versions in a package, without unpacking them."""
        return len(self.packed[package]) // _PACKED.size

    def articles(self, package: int) -> list[Article]:
        """The newest version of each article, by PMCID: earlier ones say mostly the same."""
        newest: dict[int, Article] = {}
        for pmcid, version, etag in sorted(_PACKED.iter_unpack(self.packed[package])):
            newest[pmcid] = Article(pmcid, version, etag.hex())
        return list(newest.values())

    def fingerprint(self, package: int) -> str:
        """Changes with any article of the package, in any of its objects."""
        rows, step = self.packed[package], _PACKED.size
        ordered = sorted(bytes(rows[at : at + step]) for at in range(0, len(rows), step))
        return hashlib.md5(b"".join(ordered), usedforsecurity=False).hexdigest()


def package_name(package: int) -> str:
    """``PMC0001xxxx`` holds PMC10000 to PMC19999."""
    return f"PMC{package:04d}xxxx"


def read_inventory(client: Client, base_url: str, folder: Path) -> Inventory:
    """Fetches the newest inventory into `folder`, unless it is there, and reads it.

    Raises DownloadError where there is none, or it holds nothing of the known form.
    """
    inventory, files = Inventory(), _newest_files(client, base_url)
    for remote in files:
        target = folder / remote.path
        if not (target.is_file() and digests(target).md5 == remote.md5):
            fetch_file(client, remote, target)
        _read_rows(target, inventory)
    if not inventory.packed:
        raise DownloadError(
            f"the inventory of {base_url} names no article; its rows must hold the keys "
            "metadata/PMC*.json and their ETags, check the base address"
        )
    _remove_others(folder, {remote.path for remote in files})
    return inventory


def _newest_files(client: Client, base_url: str) -> list[RemoteFile]:
    listing = client.get(f"{base_url}/?list-type=2&delimiter=/&prefix={PREFIX}").decode()
    # The folder of the day is there some time before its manifest is.
    for day in sorted(_DAY.findall(listing), reverse=True)[:3]:
        try:
            return _files(json.loads(client.get(f"{base_url}/{day}manifest.json")), base_url)
        except (DownloadError, ValueError, KeyError, TypeError):
            continue
    raise DownloadError(
        f"{base_url} has no inventory below {PREFIX}; the base address must be that of PMC's cloud "
        "service or of a copy with the same keys"
    )


def _files(manifest: dict, base_url: str) -> list[RemoteFile]:
    files = []
    for file in manifest["files"]:
        key = file["key"]
        name = key.removeprefix(f"{PREFIX}data/")
        if not is_plain_name(name):
            raise DownloadError(f"inventory file {key!r} lies elsewhere than {PREFIX}data/")
        files.append(
            RemoteFile(
                f"{base_url}/{key}", name, "", "pmc", file.get("size"), True, file["MD5checksum"]
            )
        )
    return files


def _read_rows(file: Path, inventory: Inventory) -> None:
    try:
        with gzip.open(file, "rb") as lines:
            for line in lines:
                if match := _ROW.search(line):
                    inventory.add(int(match[1]), int(match[2]), match[3].decode())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        file.unlink()
        raise DownloadError(f"{file} is broken ({error}); it was removed, run again") from error


def _remove_others(folder: Path, keep: set[str]) -> None:
    for file in folder.glob("*.csv.gz"):
        if file.name not in keep:
            file.unlink()
