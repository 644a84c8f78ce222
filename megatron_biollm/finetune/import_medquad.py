"""MedQuAD: questions and answers of NIH web sites, a document with its pairs in each XML file.

Ben Abacha and Demner-Fushman 2019, https://github.com/abachaa/MedQuAD (CC BY 4.0). Three of its
collections come without answers; such pairs are left out.
"""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lxml import etree

from megatron_biollm.config import UserError
from megatron_biollm.finetune.imported import Dropped, Imported, asked

# Line ends of the web page's lists were lost, and stand as runs of spaces before a hyphen.
_LIST_ITEM = re.compile(r"\s{2,}- +")
_SPACES = re.compile(r"[ \t\xa0]+")
_LINE_END, _BLANK_LINES = re.compile(r" ?\n ?"), re.compile(r"\n{3,}")
_ENDS = (".tar", ".tar.gz", ".tgz")


def read_medquad(path: Path) -> Iterator[Imported | Dropped]:
    """The pairs of a folder of XML files, of an archive of it, or of one file.

    Raises:
        UserError: nothing there, or no XML in it.
    """
    empty = True
    for name, data in _files(path):
        empty = False
        yield from _pairs(data, name)
    if empty:
        raise UserError(f"{path} holds no .xml; give MedQuAD's folder, its .tar.gz, or one file")


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_file() and path.name.endswith(_ENDS):
        yield from _archived(path)
    elif path.is_file() or path.is_dir():
        files = [path] if path.is_file() else sorted(path.rglob("*.xml"))
        yield from ((str(file), file.read_bytes()) for file in files)
    else:
        raise UserError(f"{path} does not exist; give MedQuAD's folder, its .tar.gz, or one file")


def _archived(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".xml"):
                    yield f"{path}/{member.name.removeprefix('./')}", _content(archive, member)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path} is not a whole archive ({error}); fetch it again") from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file is not None else b""


def _pairs(data: bytes, name: str) -> Iterator[Imported | Dropped]:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
    try:
        document = etree.fromstring(data, parser)
    except etree.XMLSyntaxError:
        yield Dropped(name, "a file that is not XML")
        return
    source, focus = document.get("source", ""), _text(document.find("Focus"))
    for pair in document.iter("QAPair"):
        question = pair.find("Question")
        identifier = question.get("qid", "") if question is not None else ""
        kind = question.get("qtype", "") if question is not None else ""
        yield asked(
            _text(question),
            _tidy(_text(pair.find("Answer"))),
            f"{name}#{pair.get('pid', '')}",
            f"{source}-{identifier}",
            {"source": source, "focus": focus, "question_type": kind},
            group=focus.lower(),
        )


def _text(element: Any) -> str:
    return "" if element is None else "".join(element.itertext()).strip()


def _tidy(answer: str) -> str:
    """List items on lines of their own, and no runs of spaces or of empty lines."""
    text = _SPACES.sub(" ", _LIST_ITEM.sub("\n- ", answer))
    return _BLANK_LINES.sub("\n\n", _LINE_END.sub("\n", text)).strip()
