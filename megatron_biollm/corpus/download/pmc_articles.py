"""One article version of PMC's cloud service: what its metadata say, and its JATS XML."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from megatron_biollm.corpus.download.client import Client, Refused, Temporary
from megatron_biollm.corpus.download.pmc_inventory import Article

# NLM's own groups; author manuscripts may be mined, not passed on.
SUBSETS = ("oa_comm", "oa_noncomm", "oa_other", "author_manuscript")
_COMMERCIAL = {"CC0", "CC BY", "CC BY SA", "CC BY ND"}
_LARGEST_ARTICLE = 1 << 28


@dataclass(frozen=True)
class Member:
    """What is kept of an article's metadata.

    subset: its licence group, None for an article that is in no open dataset or was withdrawn.
    licence: NLM's code. md5: of its XML. etag: of the metadata in the inventory.
    """

    article: str
    etag: str
    subset: str | None = None
    licence: str = ""
    md5: str = ""


def subset_of(metadata: dict) -> str | None:
    """The licence group of an article, None for one that is in no open dataset."""
    code = str(metadata.get("license_code") or "").upper().replace("-", " ").strip()
    if code in _COMMERCIAL:
        return "oa_comm"
    if code.startswith("CC BY NC"):
        return "oa_noncomm"
    if code == "TDM":
        return "author_manuscript"
    return "oa_other" if metadata.get("is_pmc_openaccess") in (True, "yes", "true") else None


def fetch_member(client: Client, base_url: str, article: Article) -> Member:
    """The metadata of an article; without a subset where it was withdrawn since the inventory."""
    url = f"{base_url}/metadata/{article.name}.json"

    def attempt() -> Member:
        answer = client.get(url)
        try:
            return _member(article, json.loads(answer))
        except (ValueError, AttributeError, TypeError) as error:
            raise Temporary(f"{url} does not hold an article's metadata ({error})") from error

    try:
        return client.retried(attempt)
    except Refused as error:
        if error.status != 404:
            raise
        return Member(article.name, article.etag)


def fetch_xml(
    client: Client, base_url: str, article: Article, member: Member
) -> tuple[Member, bytes]:
    """The XML of an article and the metadata that fit it, read again where both changed."""
    url = f"{base_url}/{article.name}/{article.name}.xml"

    def attempt() -> tuple[Member, bytes]:
        nonlocal member
        content = client.get(url, largest=_LARGEST_ARTICLE)
        if md5_of(content) != member.md5:
            told, member = member.md5, fetch_member(client, base_url, article)
            raise Temporary(f"{url}: MD5 is {md5_of(content)}, but must be {told}")
        return member, content

    try:
        return client.retried(attempt)
    except Refused as error:
        if error.status != 404:
            raise
        return Member(article.name, article.etag), b""


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _member(article: Article, metadata: dict) -> Member:
    checksum = re.search(r"[?&]md5=([0-9a-f]{32})", str(metadata.get("xml_url") or ""))
    if checksum is None:
        return Member(article.name, article.etag)
    licence = str(metadata.get("license_code") or "no Creative Commons licence")
    return Member(article.name, article.etag, subset_of(metadata), licence, checksum[1])
