"""What a reader offers: which files it knows, and how it reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.report import FileReport

# As much of a file as `Format.matches` gets to see.
HEAD_BYTES = 1 << 16

_PROLOGUE = re.compile(rb"<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(\[.*?\]\s*)?>", re.DOTALL)
_ROOT = re.compile(rb"[\xef\xbb\xbf\s]*<([A-Za-z_][\w.:-]*)")


@dataclass(frozen=True)
class Format:
    """One file format of one source.

    name: for reports and the inventory, for example "PubMed XML".
    source: what its documents name as their source.
    matches: says from the first bytes of the unpacked stream (at most `HEAD_BYTES`) and the file's
        name without .gz or .zst whether this is the format.
    read: yields the documents of one unpacked stream, given the file's or archive member's name
        and a report. Bad content never raises: it is counted in the report and the rest goes on.
    """

    name: str
    source: str
    matches: Callable[[bytes, str], bool]
    read: Callable[[BinaryIO, str, FileReport], Iterator[Document]]


def xml_root(head: bytes) -> str | None:
    """The name of the root element if `head` begins an XML document, else None."""
    match = _ROOT.match(_PROLOGUE.sub(b"", head))
    return match[1].decode("ascii", "replace") if match else None
