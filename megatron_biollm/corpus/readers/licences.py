"""Short names of licences, from the addresses and sentences that state them."""

from __future__ import annotations

import re

_DEED = re.compile(
    r"creativecommons\.org/+(?:licenses/+(by(?:-nc)?(?:-nd|-sa)?)(?:/+(\d)(?:\.(\d))?)?"
    r"|publicdomain/+(zero|mark))",
    re.IGNORECASE,
)
_WORDS = re.compile(r"creative commons[\s,-]+(?:public domain|attribut\w*)", re.IGNORECASE)
_ABBREVIATED = re.compile(r"\bcc[\s-]+by((?:-nc)?(?:-nd|-sa)?)(?:\s+(\d\.\d))?\b", re.IGNORECASE)
_VERSION = re.compile(r"\b(\d\.\d)\b")


def short_licence(*statements: str | None) -> str | None:
    """``CC BY-NC 4.0``, ``CC0 1.0``, ``public domain``; None where nothing known is named.

    Args:
        statements: addresses or sentences; the first that names a licence decides.
    """
    for statement in filter(None, statements):
        if name := _from_address(statement) or _from_words(statement):
            return name
    return None


def _from_address(text: str) -> str | None:
    deed = _DEED.search(text)
    if deed is None:
        return None
    kind, major, minor, domain = deed.groups()
    if domain:
        return "CC0 1.0" if domain.lower() == "zero" else "public domain"
    version = f" {major}.{minor or 0}" if major else ""
    return f"CC {kind.upper()}{version}"


def _from_words(text: str) -> str | None:
    if short := _ABBREVIATED.search(text):
        return f"CC BY{short[1].upper()}{f' {short[2]}' if short[2] else ''}"
    if not (words := _WORDS.search(text)):
        return "public domain" if "public domain" in text.lower()[:300] else None
    if "public domain" in words[0].lower():
        return "CC0 1.0"
    # The conditions and the version are named right behind: "Attribution Non-Commercial 4.0".
    near = text[words.start() : words.end() + 60].lower().replace("-", "").replace(" ", "")
    terms = "".join(
        short
        for word, short in (("noncommercial", "-NC"), ("noderiv", "-ND"), ("sharealike", "-SA"))
        if word in near
    )
    version = _VERSION.search(text[words.end() : words.end() + 60])
    return f"CC BY{terms}{f' {version[1]}' if version else ''}"
