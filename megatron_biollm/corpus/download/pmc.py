"""PMC's open-access articles from its cloud service, packed into tar archives by licence.

Since August 2026 NLM offers single articles only (https://pmc.ncbi.nlm.nih.gov/tools/pmcaws/), some
nine million files, which no file system likes. So the articles of 10,000 neighbouring PMCIDs become
one ``.tar.gz`` per licence group, ``pmc/oa_comm/PMC0001xxxx.tar.gz``. It is made again when the
inventory shows another state of any of its articles; unchanged ones come out of the old package.

While it grows, a package is a hidden folder ``pmc/.PMC0001xxxx.parts`` of XML files, each checked
against its MD5 when a later run takes it up. ``pmc/.articles/`` keeps what the metadata said, so
that another licence group, or tomorrow's inventory, asks only for what it does not know.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from megatron_biollm.corpus.download.client import Client
from megatron_biollm.corpus.download.fetch import (
    Digests,
    RemoteFile,
    digests,
    disk_errors,
    part_of,
    seal,
)
from megatron_biollm.corpus.download.jobs import Plan, Selection, Work
from megatron_biollm.corpus.download.manifest import Manifest
from megatron_biollm.corpus.download.pmc_articles import (
    SUBSETS,
    Member,
    fetch_member,
    fetch_xml,
    md5_of,
)
from megatron_biollm.corpus.download.pmc_inventory import (
    Article,
    Inventory,
    package_name,
    read_inventory,
)

PMC_URL = "https://pmc-oa-opendata.s3.amazonaws.com"
# Of one article in a package; only for forecasts of time and space.
ARTICLE_BYTES = 25_000


def plan_pmc(client: Client, base_url: str, wanted: Selection, manifest: Manifest) -> Plan:
    """One job for each range of PMCIDs. Raises DownloadError where there is no inventory."""
    subsets = wanted.parts_of(SUBSETS, default=("oa_comm",))
    inventory = read_inventory(client, base_url, manifest.root / "pmc" / ".inventory")
    packages = wanted.of(inventory.packed, package_name)
    return Plan([PackageJob(package, inventory, tuple(subsets), base_url) for package in packages])


@dataclass(frozen=True)
class PackageJob:
    """Makes the packages, one for each licence group, of one range of PMCIDs."""

    package: int
    inventory: Inventory
    subsets: tuple[str, ...]
    base_url: str
    exact: bool = False

    @property
    def path(self) -> str:
        groups = self.subsets[0] if len(self.subsets) == 1 else f"{{{','.join(self.subsets)}}}"
        return f"pmc/{groups}/{package_name(self.package)}.tar.gz"

    @cached_property
    def version(self) -> str:
        return self.inventory.fingerprint(self.package)

    @property
    def size(self) -> int:
        return ARTICLE_BYTES * self.inventory.count(self.package)

    def is_done(self, manifest: Manifest) -> bool:
        return not self._missing(manifest)

    def run(self, work: Work) -> int:
        missing = self._missing(work.manifest)
        articles = self.inventory.articles(self.package)
        parts = work.root / "pmc" / f".{package_name(self.package)}.parts"
        with disk_errors(parts):
            parts.mkdir(parents=True, exist_ok=True)
            members = self._members(work, articles)
            for subset in missing:
                _take_from_old(work.root / self._path(subset), members, parts)
            self._fetch(work, articles, members, missing, parts)
            made = sum(self._pack(work, subset, members.values(), parts) for subset in missing)
            shutil.rmtree(parts)
        return made

    def _path(self, subset: str) -> str:
        return f"pmc/{subset}/{package_name(self.package)}.tar.gz"

    def _missing(self, manifest: Manifest) -> list[str]:
        """Groups without a package of this state; an empty group has a record and no file."""
        return [s for s in self.subsets if not self._is_current(manifest, self._path(s))]

    def _is_current(self, manifest: Manifest, path: str) -> bool:
        record = manifest.records.get(path)
        if record and record.bytes == 0:
            return record.version == self.version
        return manifest.current(path, self.version) is not None

    def _members(self, work: Work, articles: list[Article]) -> dict[str, Member]:
        """What the metadata say of each article, from earlier runs' notes where those still fit."""
        notes = work.root / "pmc" / ".articles" / f"{package_name(self.package)}.jsonl"
        notes.parent.mkdir(parents=True, exist_ok=True)
        known, members = _read_notes(notes), {}
        with notes.open("a", encoding="utf-8") as file:
            for article in articles:
                member = known.get(article.name)
                if member is None or member.etag != article.etag:
                    member = fetch_member(work.client, self.base_url, article)
                    file.write("\n" + json.dumps(asdict(member)))
                members[article.name] = member
        return members

    def _fetch(
        self,
        work: Work,
        articles: list[Article],
        members: dict[str, Member],
        missing: list[str],
        parts: Path,
    ) -> None:
        """Brings the articles of the missing groups into the parts."""
        for article in articles:
            member, part = members[article.name], parts / f"{article.name}.xml"
            there = part.is_file() and md5_of(part.read_bytes()) == member.md5
            if member.subset in missing and not there:
                member, content = fetch_xml(work.client, self.base_url, article, member)
                members[article.name] = member
                part.write_bytes(content)
            work.on_bytes(ARTICLE_BYTES)

    def _pack(self, work: Work, subset: str, members: Iterable[Member], parts: Path) -> int:
        chosen = [member for member in members if member.subset == subset]
        target = work.root / self._path(subset)
        found = _write_package(target, [parts / f"{member.article}.xml" for member in chosen])
        remote = RemoteFile(
            url=f"{self.base_url}/#{package_name(self.package)}",
            path=self._path(subset),
            licence="; ".join(sorted({member.licence for member in chosen})) or "none",
            source="pmc",
            version=self.version,
        )
        work.note(remote, found)
        return found.bytes


def _read_notes(notes: Path) -> dict[str, Member]:
    """Notes by article, the last one of each; a line torn by a killed run is left out."""
    members = {}
    for line in notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []:
        try:
            member = Member(**json.loads(line))
        except (ValueError, TypeError):
            continue
        members[member.article] = member
    return members


def _take_from_old(package: Path, members: dict[str, Member], parts: Path) -> None:
    """Copies what has not changed out of the package of an earlier state."""
    for name, content in _articles_in(package):
        member, part = members.get(name.removesuffix(".xml")), parts / name
        if member and member.md5 == md5_of(content) and not part.exists():
            part.write_bytes(content)


def _articles_in(package: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the members of a package; none where it is missing or broken."""
    if not package.exists():
        return
    try:
        with tarfile.open(package, "r|gz") as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None:
                    yield member.name, file.read()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile):
        return


def _write_package(target: Path, files: list[Path]) -> Digests:
    """Packs files under their names, the same ones to the same bytes; of none makes no package."""
    part = part_of(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not files:
        target.unlink(missing_ok=True)
        return Digests(0, md5_of(b""), "")
    with (
        part.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for file in files:
            content, entry = file.read_bytes(), tarfile.TarInfo(file.name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    found = digests(part)
    seal(part, target)
    return found
