"""XML as a stream of elements: bounded memory, nothing fetched, no entity of the file's own.

Every reader of XML goes through here, so that hostile and broken files meet one set of rules. The
parser never repairs (`recover` invents structure, and lxml's loses whole files without a word):
what stood before a break is kept, the break is named.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from lxml import etree

from megatron_biollm.corpus.report import FileReport

# No document type is fetched or applied and no entity is expanded. `huge_tree` lifts libxml2's
# limits on depth and on the length of one text, which long articles pass. `collect_ids` stays as it
# is: without it lxml 6 loads document types from disk after all.
SAFE: dict[str, Any] = {
    "load_dtd": False,
    "no_network": True,
    "resolve_entities": False,
    "huge_tree": True,
    "remove_comments": True,
    "remove_pis": True,
}

_CHUNK_BYTES = 1 << 17
# A prologue longer than this holds no root that any of our sources would write.
_PROLOGUE_BYTES = 1 << 20
_ROOT_START = re.compile(r"<[A-Za-z_:]")
# The blank tells it from instructions such as <?xml-stylesheet?>.
_DECLARATION = b"<?xml "
_ENDS_EARLY = ("no element found", "Premature end", "Document is empty")
_ENTITY = re.compile(r"<!ENTITY\b[^>]*>?")


def stream_elements(
    stream: BinaryIO, tags: Sequence[str], report: FileReport, unit: str = "records"
) -> Iterator[etree._Element]:
    """Yields each complete element with one of the names, in any namespace.

    An element is good until the next one is asked for; then it and all before it are emptied. One
    inside another of `tags` comes with that one, or by itself where a break cuts the outer one.

    Args:
        stream: one XML document, already unpacked, or several behind one another (EDirect's efetch
            writes such files), each with its XML declaration.
        tags: local names.
        report: takes the place where a document breaks off, is refused, or ends too early.
        unit: what the elements are, for the message.

    Raises:
        What reading `stream` raises, after the elements before it.
    """
    count = 0
    broken: tuple[str, str] | None = None
    for number, chunks in enumerate(_documents(stream), start=1):
        if broken:
            report.fault(*broken)
        broken = None
        for element in _pull(chunks, tags):
            if isinstance(element, etree._Element):
                count += 1
                yield element
                release(element)
            else:
                where = f"document {number}, {element[0]}" if number > 1 else element[0]
                broken = where, f"{element[1]}; read {count} {unit} before it"
    if broken:
        report.break_off(broken[0], f"{broken[1]}, none after it")


def parse_document(data: bytes) -> etree._Element:
    """The root of one whole XML document held in memory, under the same rules.

    Raises:
        ValueError: not well-formed, or refused; the message says where and why.
    """
    if reason := refusal(data[:_PROLOGUE_BYTES]):
        raise ValueError(reason)
    parser = etree.XMLParser(**SAFE)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise ValueError(": ".join(_syntax(parser.error_log, error))) from error


def refusal(head: bytes) -> str | None:
    """Why a document that begins with `head` is not read: it declares entities of its own.

    Those of two lines unfold to gigabytes, and those that name a file would put it into the text.
    Declarations of pictures (NDATA), which patents have, are never expanded and do no harm.
    """
    text = _decoded(head)
    root = _ROOT_START.search(text)
    declared = _ENTITY.findall(text, 0, root.start() if root else len(text))
    if root is None and len(head) >= _PROLOGUE_BYTES:
        return f"refused: no element begins in its first {_PROLOGUE_BYTES} bytes"
    own = [entity for entity in declared if " NDATA " not in " ".join(entity.split())]
    if not own:
        return None
    return (
        f"refused: its document type declares {len(own)} entities "
        f"({own[0][:60]!r} is the first), which may unfold without bound"
    )


def release(element: etree._Element) -> None:
    """Frees an element's content and everything before it in the tree."""
    element.clear()
    place: etree._Element | None = element
    while place is not None and (parent := place.getparent()) is not None:
        while place.getprevious() is not None:
            del parent[0]
        place = parent


def local_name(element: etree._Element) -> str:
    """The element's name without its namespace; "" for what is no element."""
    tag = element.tag
    if not isinstance(tag, str):
        return ""
    return tag.rpartition("}")[2] if tag[0] == "{" else tag


def _is_inside(element: etree._Element, names: frozenset[str]) -> bool:
    outer = element.getparent()
    while outer is not None:
        if local_name(outer) in names:
            return True
        outer = outer.getparent()
    return False


def _documents(stream: BinaryIO) -> Iterator[Iterator[bytes]]:
    """The chunks of one document after another; each is to be used up before the next."""
    chunks = _chunks(stream)
    first = next(chunks, b"")
    # Parsers refuse blank lines before a declaration.
    rest = [first.lstrip() if first.lstrip().startswith(_DECLARATION) else first]

    def document() -> Iterator[bytes]:
        start = 1
        for chunk in itertools.chain([rest.pop()], chunks):
            end = chunk.find(_DECLARATION, start)
            if end >= 0:
                rest.append(chunk[end:])
                yield chunk[:end]
                return
            yield chunk
            start = 0

    while rest:
        yield (part := document())
        for _ in part:
            pass


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    """What one read gives, so that a packed file cut short loses nothing that it holds.

    A declaration lies in one chunk as a whole.
    """
    read = getattr(stream, "read1", stream.read)
    held = b""
    while new := read(_CHUNK_BYTES):
        chunk = held + new
        mark = chunk.rfind(b"<", -len(_DECLARATION))
        end = mark if mark >= 0 else len(chunk)
        held = chunk[end:]
        if end:
            yield chunk[:end]
    if held:
        yield held


def _pull(
    chunks: Iterator[bytes], tags: Sequence[str]
) -> Iterator[etree._Element | tuple[str, str]]:
    """The outermost elements of one document; position and reason where it breaks off."""
    names = frozenset(tags)
    parser = etree.XMLPullParser(events=("end",), tag=[f"{{*}}{tag}" for tag in tags], **SAFE)
    head, error, inner = _head(chunks), None, None
    if reason := refusal(head):
        yield "prologue", reason
        return
    for chunk in itertools.chain([head], chunks, [b""]):
        error = _feed(parser, chunk)
        for _, element in parser.read_events():
            if _is_inside(element, names):
                inner = element
            else:
                inner = None
                yield element
        if error:
            break
    if inner is not None:
        yield inner
    if error:
        yield error


def _feed(parser: etree.XMLPullParser, chunk: bytes) -> tuple[str, str] | None:
    """Position and reason of the first error, which lxml does not always raise."""
    raised = None
    try:
        parser.feed(chunk) if chunk else parser.close()
    except etree.XMLSyntaxError as error:
        raised = error
    return _syntax(parser.feed_error_log, raised)


def _head(chunks: Iterator[bytes]) -> bytes:
    """Up to the root's start, so that the whole prologue is seen before any of it is parsed."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= _PROLOGUE_BYTES or _ROOT_START.search(_decoded(head)):
            break
    return head


def _decoded(head: bytes) -> str:
    """Enough of a decoding to find markup: all other encodings have it where ASCII has."""
    if head[:2] in (b"\xff\xfe", b"<\0"):
        return head.decode("utf-16-le", "replace")
    if head[:2] in (b"\xfe\xff", b"\0<"):
        return head.decode("utf-16-be", "replace")
    return head.decode("latin-1")


def _syntax(
    log: etree._ListErrorLog, raised: etree.XMLSyntaxError | None
) -> tuple[str, str] | None:
    first = next((entry for entry in log if entry.level == etree.ErrorLevels.FATAL), None)
    if first is None and raised is None:
        return None
    line, message = (first.line, first.message) if first else (raised.position[0], raised.msg)
    if message.startswith(_ENDS_EARLY):
        message = "the file ends too early"
    position = f"line {line}, column {first.column}" if first else f"line {max(line, 1)}"
    return position, f"not well-formed XML: {' '.join(message.split())}"
