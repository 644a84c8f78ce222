"""All studies of ClinicalTrials.gov, page by page, through its API v2.

https://clinicaltrials.gov/data-api/api: ``GET /studies`` gives up to 1,000 studies and the token of
the next page, ``GET /version`` the time of the data. Pages go to a folder named after that time,
``clinical_trials/2026-11-20T090005/studies-00001.json.gz``, with a hidden note of where to go on.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from megatron_biollm.config import UserError
from megatron_biollm.corpus.download.client import Client, DownloadError, Refused, Temporary
from megatron_biollm.corpus.download.fetch import RemoteFile, digests, write_whole
from megatron_biollm.corpus.download.jobs import Plan, Selection, Work
from megatron_biollm.corpus.download.manifest import Manifest

CLINICAL_TRIALS_URL = "https://clinicaltrials.gov/api/v2"
PAGE_SIZE = 1000
_LICENCE = (
    "ClinicalTrials.gov terms and conditions, "
    "https://clinicaltrials.gov/about-site/terms-conditions; name the source and the date"
)
# Of one packed study; only for forecasts of time and space.
_STUDY_BYTES = 5_000
_LARGEST_PAGE = 1 << 29
_DATE = re.compile(r"\d{4}(-\d\d){0,2}")


def plan_trials(client: Client, base_url: str, wanted: Selection, manifest: Manifest) -> Plan:
    """One job for all pages: a page's token is known only once the page before it is there."""
    for name in ("parts", "include"):
        if getattr(wanted, name):
            raise UserError(f"--{name} picks files, but studies come in pages; omit it")
    version = _json(client, f"{base_url}/version").get("dataTimestamp")
    if not isinstance(version, str) or not re.fullmatch(r"[\dT:.Z-]+", version):
        raise DownloadError(
            f"{base_url}/version gives the data's time as {version!r}, but it must be a date and "
            "time; check the base address"
        )
    query = _query(wanted)
    count = _json(client, f"{base_url}/studies?{urlencode({**query, 'pageSize': 1})}")
    job = TrialsJob(base_url, version, query, int(count.get("totalCount") or 0), wanted.limit)
    others = (p for p in manifest.records if p.startswith("clinical_trials/"))
    old = [p for p in others if not p.startswith(f"{job.path}/") and (manifest.root / p).exists()]
    return Plan([job], superseded=old)


@dataclass(frozen=True)
class _State:
    """How far the pages have come: their number, the studies in them, the next page's token."""

    pages: int = 0
    studies: int = 0
    token: str | None = None
    complete: bool = False


@dataclass(frozen=True)
class TrialsJob:
    """Fetches the pages of one query on one state of the data; limit is in pages."""

    base_url: str
    version: str
    query: dict[str, str]
    total: int
    limit: int | None
    exact: bool = False

    @property
    def path(self) -> str:
        span = self.query.get("filter.advanced", "")
        since = "-".join(["", *re.findall(r"[\[,](\d[\d-]*)", span)]) if span else ""
        return f"clinical_trials/{self.version.replace(':', '')}{since and '-updated' + since}"

    @property
    def pages(self) -> int:
        pages = math.ceil(self.total / PAGE_SIZE)
        return pages if self.limit is None else min(pages, self.limit)

    @property
    def size(self) -> int:
        return _STUDY_BYTES * min(self.total, self.pages * PAGE_SIZE)

    def is_done(self, manifest: Manifest) -> bool:
        state = self._state(manifest)
        return state.complete or (self.limit is not None and state.pages >= self.limit)

    def run(self, work: Work) -> int:
        state, fetched = self._state(work.manifest), 0
        work.on_bytes(state.studies * _STUDY_BYTES)
        while not state.complete and (self.limit is None or state.pages < self.limit):
            state, count = self._next_page(work, state)
            fetched += count
        if state.complete and state.studies < self.total:
            self._state_file(work.root).unlink()
            raise DownloadError(
                f"{self.base_url}: {state.studies:,} studies came, but there should be "
                f"{self.total:,}; the data changed meanwhile, run again to fetch them anew"
            )
        return fetched

    def _next_page(self, work: Work, state: _State) -> tuple[_State, int]:
        """Fetches one page and notes it. Returns the new state and the bytes of the page."""
        url = self._url(state)
        try:
            page = work.client.retried(lambda: _page(work.client, url))
        except Refused as error:
            if error.status != 400 or state.token is None:
                raise
            self._state_file(work.root).unlink(missing_ok=True)
            raise DownloadError(
                f"{error}; the server has forgotten where an earlier run stopped, run again to "
                "begin anew"
            ) from error
        path = f"{self.path}/{_page_name(state.pages + 1)}"
        target = work.root / path
        write_whole(target, gzip.compress(json.dumps(page).encode(), mtime=0))
        found = digests(target)
        remote = RemoteFile(url, path, _LICENCE, "clinical_trials", version=self.version)
        work.note(remote, found)
        studies, token = len(page["studies"]), page.get("nextPageToken")
        state = _State(state.pages + 1, state.studies + studies, token, not token)
        write_whole(self._state_file(work.root), json.dumps(vars(state)).encode())
        work.on_bytes(studies * _STUDY_BYTES)
        return state, found.bytes

    def _url(self, state: _State) -> str:
        query = {**self.query, "pageSize": str(PAGE_SIZE)}
        if state.token:
            query["pageToken"] = state.token
        return f"{self.base_url}/studies?{urlencode(query)}"

    def _state_file(self, root: Path) -> Path:
        return root / self.path / ".state.json"

    def _state(self, manifest: Manifest) -> _State:
        """Where the last run stopped; at the beginning if one of its pages is gone or changed."""
        try:
            text = self._state_file(manifest.root).read_text(encoding="utf-8")
            state = _State(**json.loads(text))
        except (OSError, ValueError, TypeError):
            return _State()
        pages = (f"{self.path}/{_page_name(n + 1)}" for n in range(state.pages))
        return state if all(manifest.current(p, self.version) for p in pages) else _State()


def _query(wanted: Selection) -> dict[str, str]:
    query = {"format": "json", "countTotal": "true"}
    for name in ("first", "last"):
        date = getattr(wanted, name)
        if date is not None and not _DATE.fullmatch(date):
            raise UserError(f"--{name} is {date!r}, but for studies it is the date of an update; "
                            "give it as YYYY-MM-DD")  # fmt: skip
    if wanted.first or wanted.last:
        span = f"RANGE[{wanted.first or 'MIN'},{wanted.last or 'MAX'}]"
        query["filter.advanced"] = f"AREA[LastUpdatePostDate]{span}"
    return query


def _page_name(number: int) -> str:
    return f"studies-{number:05d}.json.gz"


def _page(client: Client, url: str) -> dict:
    """A page that is what it should be. Raises Temporary otherwise."""
    answer = client.get(url, largest=_LARGEST_PAGE)
    try:
        page = json.loads(answer)
        if isinstance(page["studies"], list):
            return page
    except (ValueError, KeyError, TypeError):
        pass
    raise Temporary(f"{url}: the answer is no page of studies")


def _json(client: Client, url: str) -> dict:
    answer = client.get(url)
    try:
        value = json.loads(answer)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DownloadError(f"{url} answers no JSON object; check the base address")
    return value
