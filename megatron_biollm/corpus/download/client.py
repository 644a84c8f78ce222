"""Polite HTTP: few connections, paced requests, waits that the server names, and an honest name.

`requests` rather than urllib: a corpus is fetched from login nodes behind proxies, and PMC alone
takes millions of small files, for which connections must be kept open between requests.
"""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import urllib3

from megatron_biollm.config import UserError

T = TypeVar("T")

TOOL_NAME = "megatron-biollm-download"
# Answers that another attempt may turn into a good one (RFC 9110 and RFC 6585).
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
# Even where every attempt brings some bytes: USPTO allows 20 requests per file, key and year.
MOST_ATTEMPTS = 15
_API_KEY = "X-API-KEY"


class DownloadError(UserError):
    """One file cannot be had; the others may go on."""


class Refused(DownloadError):
    """The server will not give this file, however often it is asked; `status` is its answer."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Temporary(Exception):
    """An attempt that failed and may be repeated, after `retry_after` seconds if told."""

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after


class Cancelled(Exception):
    """The run ends (interrupt, full disk); whatever is in `.part` files stays for the next one."""


@dataclass(frozen=True)
class Politeness:
    """How a server is treated.

    connections: files fetched at the same time. requests_per_second: over all connections.
    attempts: failures in a row, none of which brought a byte, before a file is given up.
    timeout_s: silence that ends an attempt. backoff_s: wait after the first failure, doubled with
    each further one and scattered by half. max_wait_s: the longest wait that is sat out.
    """

    connections: int = 2
    requests_per_second: float = 3.0
    attempts: int = 5
    timeout_s: float = 60.0
    backoff_s: float = 1.0
    max_wait_s: float = 600.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise UserError(f"{name} is {value}, but it must be above 0; give a larger one")


class Client:
    """Requests to one source, from several threads; a `with` closes its connections."""

    def __init__(
        self, politeness: Politeness, contact: str | None = None, api_key: str | None = None
    ):
        """contact: e-mail address for the server's operators, part of the User-Agent.
        api_key: sent to the hosts asked for, and left out where they redirect to another host.
        """
        self.politeness = politeness
        self.stop = threading.Event()
        self._pace = _Pace(politeness.requests_per_second)
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        self._headers = {"User-Agent": f"{TOOL_NAME} ({contact})" if contact else TOOL_NAME}
        if api_key:
            self._headers[_API_KEY] = api_key

    def open(
        self, url: str, headers: Mapping[str, str] | None = None, also: tuple[int, ...] = ()
    ) -> requests.Response:
        """One attempt; the body is left unread. Raises Temporary, Refused or Cancelled.

        also: statuses to return besides 200 and 206.
        """
        self.pause(0)
        self._pace.wait(self.pause)
        # Packed files must arrive as they lie there, so that lengths and checksums fit.
        headers = {"Accept-Encoding": "identity", **(headers or {})}
        try:
            response = self._session().get(
                url, headers=headers, stream=True, timeout=self.politeness.timeout_s
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise Temporary(f"{url}: {_root_cause(error)}") from error
        if response.status_code in {200, 206, *also}:
            return response
        response.close()
        raise self._refusal(url, response)

    def get(self, url: str, largest: int = 1 << 26) -> bytes:
        """A small body, whole, after as many attempts as it takes. Raises DownloadError."""
        return self.retried(lambda: self._read(url, largest))

    def retried(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns, repeated while it raises Temporary."""
        retry = Retry(self)
        while True:
            try:
                return attempt()
            except Temporary as error:
                retry.wait(error)

    def pause(self, seconds: float) -> None:
        """Sleeps, and raises Cancelled as soon as the run ends."""
        if self.stop.wait(seconds):
            raise Cancelled

    def hold(self, seconds: float) -> None:
        """Keeps every thread from asking for so long."""
        self._pace.hold(seconds)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        for session in self._sessions:
            session.close()

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = _Session()
            self._local.session.headers.update(self._headers)
            self._sessions.append(self._local.session)
        return self._local.session

    def _read(self, url: str, largest: int) -> bytes:
        with self.open(url) as response:
            body = b"".join(chunks(response, url))
        if len(body) > largest:
            raise DownloadError(
                f"{url} has {len(body):,} bytes, but a listing has at most {largest:,}; check the "
                "base address"
            )
        return body

    def _refusal(self, url: str, response: requests.Response) -> Exception:
        what = f"{url}: the server answers {response.status_code} {response.reason}"
        if response.status_code in _TEMPORARY:
            return Temporary(what, _retry_after(response))
        if response.status_code in (401, 403):
            remedy = "access must be granted: check the API key and its quota"
        else:
            remedy = "the file must exist there: check the base address"
        return Refused(f"{what}; {remedy}", response.status_code)


class Retry:
    """Counts the failures of one file, and waits between attempts."""

    def __init__(self, client: Client):
        self.client, self.fruitless, self.total = client, 0, 0

    def wait(self, error: Temporary, gained: bool = False) -> None:
        """Waits before the next attempt; raises DownloadError where there should be none.

        gained: the failed attempt brought bytes that were kept.
        """
        limits = self.client.politeness
        self.fruitless = 1 if gained else self.fruitless + 1
        self.total += 1
        if self.fruitless >= limits.attempts or self.total >= MOST_ATTEMPTS:
            raise DownloadError(f"{error}; given up after {self.total} attempts, run again later")
        if (error.retry_after or 0) > limits.max_wait_s:
            raise DownloadError(
                f"{error}, for {error.retry_after:.0f} s; waits last at most "
                f"{limits.max_wait_s:.0f} s, run again after that"
            )
        if error.retry_after is not None:
            self.client.hold(error.retry_after)
        else:
            wait = min(limits.backoff_s * 2 ** (self.fruitless - 1), limits.max_wait_s)
            self.client.pause(wait * random.uniform(0.5, 1.0))


class _Pace:
    """Lets one request through per interval, over all threads."""

    def __init__(self, per_second: float):
        self.interval, self.lock, self.next = 1 / per_second, threading.Lock(), 0.0

    def wait(self, pause: Callable[[float], None]) -> None:
        while True:
            with self.lock:
                now = time.monotonic()
                late = self.next - now
                if late <= 0:
                    self.next = now + self.interval
                    return
            pause(late)

    def hold(self, seconds: float) -> None:
        with self.lock:
            self.next = max(self.next, time.monotonic() + seconds)


class _Session(requests.Session):
    """Takes the API key out of a request that is redirected to another host."""

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        super().rebuild_auth(prepared_request, response)
        if self.should_strip_auth(response.request.url, prepared_request.url):
            prepared_request.headers.pop(_API_KEY, None)


def chunks(response: requests.Response, url: str, size: int = 1 << 16):
    """The body's bytes as they were sent. Raises Temporary where the connection breaks."""
    stream = response.raw.stream(size, decode_content=False)
    while True:
        try:
            chunk = next(stream, b"")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Temporary(f"{url}: the connection broke ({_root_cause(error)})") from error
        if not chunk:
            return
        yield chunk


def check_base_url(url: str) -> str:
    """The address without a final slash. Raises UserError unless it is http or https."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(
            f"base address {url!r} is not of the form https://host/path; give the folder that "
            "stands in for the official one"
        )
    return url.rstrip("/")


def _retry_after(response: requests.Response) -> float | None:
    """Seconds to wait, from either form of the header (RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _root_cause(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return f"{type(error).__name__}: {error}"
