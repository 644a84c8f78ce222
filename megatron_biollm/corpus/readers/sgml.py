"""Named characters and minimised markup of SGML, made fit for an XML parser.

The grants of 2001 and the applications of 2001 to 2004 name their characters by the ISO 8879 sets,
whose definitions lie in files beside the document type. HTML 5 has nearly all of these names;
the Greek letters of ISOgrk1 ("mgr") it has not.
"""

from __future__ import annotations

import html
import re
from html.entities import html5

_ENTITY = re.compile(rb"&([A-Za-z][A-Za-z0-9.]*);")
_XML_OWN = (b"amp", b"lt", b"gt", b"quot", b"apos")
_TAG = re.compile(rb"<(/?)([A-Za-z][\w.-]*)((?:[^<>\"']|\"[^\"]*\"|'[^']*')*?)(/?)>")
_DOCTYPE = re.compile(rb"<!DOCTYPE[^\[>]*(\[.*?\]\s*)?>", re.DOTALL)
_BARE_VALUE = re.compile(rb"(\s[\w:.-]+\s*=\s*)([^\s\"'>]+)")
_LOOSE_AMPERSAND = re.compile(rb"&(?!#?\w+;)")

_GREEK = (
    "a α b β g γ d δ e ε z ζ ee η th θ i ι k κ l λ m μ n ν x ξ o ο p π r ρ s σ t τ u υ ph φ kh χ "
    "ps ψ oh ω"
)


def _greek() -> dict[str, str]:
    """Small letters ("phgr") and capitals, of which a name writes all letters large ("PHgr")."""
    words = _GREEK.split()
    small = dict(zip(words[::2], words[1::2], strict=True))
    capitals = {name.upper(): letter.upper() for name, letter in small.items()}
    return {f"{name}gr": letter for name, letter in {**small, **capitals, "sf": "ς"}.items()}


# ISOgrk1, which HTML 5 lacks.
ISO_NAMES = _greek()


def with_characters(document: bytes) -> bytes:
    """The document with named characters as numbers; names that nothing knows stay readable."""
    return _ENTITY.sub(_as_number, document)


def as_xml(document: bytes) -> bytes:
    """SGML whose elements without content lack an end, with quotes around all values.

    The document type is left out, since XML asks for more of it than SGML does.
    """
    document = _DOCTYPE.sub(b"", document, count=1)
    tags = [(match[1], match[2]) for match in _TAG.finditer(document)]
    ended = {name for slash, name in tags if slash}
    empty = {name for slash, name in tags if not slash} - ended

    def repair(match: re.Match[bytes]) -> bytes:
        slash, name, attributes, closed = match.groups()
        if slash:
            return match[0]
        attributes = _BARE_VALUE.sub(rb'\1"\2"', attributes)
        return b"<" + name + attributes + (b"/>" if closed or name in empty else b">")

    return _TAG.sub(repair, _LOOSE_AMPERSAND.sub(b"&amp;", document))


def _as_number(match: re.Match[bytes]) -> bytes:
    name = match[1].decode()
    if match[1] in _XML_OWN:
        return match[0]
    characters = ISO_NAMES.get(name) or html5.get(f"{name};")
    if characters is None:
        return f"&amp;{name};".encode()
    return "".join(f"&#{ord(character)};" for character in html.unescape(characters)).encode()
