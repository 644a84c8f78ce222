"""The items of benchmark files, whatever their format: a question with its options, or a passage.

Deliberately shallow: to find an item in a text its words are enough, so one rule per kind of file
(JSON, CSV, PubTator, CoNLL, XML, lines of text) serves all benchmarks. Answers, labels and
annotations are left aside, and so is the text a question is asked about unless `contexts` is set.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from lxml import etree

from megatron_biollm.config import UserError
from megatron_biollm.corpus.open import BROKEN, open_streams
from megatron_biollm.corpus.report import FileReport

_QUESTION_KEYS = (
    "question",
    "questiontext",
    "body",
    "query",
    "prompt",
    "stem",
    "harmful medical request",
)
_PASSAGE_KEYS = (
    "sentence",
    "text",
    "title",
    "abstract",
    "passage",
    "section_text",
    "dialogue",
    "src",
    "note",
)
_CONTEXT_KEYS = ("context", "contexts", "snippets", "long_answer")
_OPTION_KEYS = (
    "options",
    "choices",
    "opa",
    "opb",
    "opc",
    "opd",
    "ending0",
    "ending1",
    "ending2",
    "ending3",
)

# What lies beside the items: annotations, answers and what people are told about the files.
_NOT_ITEMS = re.compile(
    r"readme|(^|/)(license|notice|source|manifest|\.|__macosx)|\.(md|eval|ann|a1|a2|sha256|html?|pdf)$"
    r"|(entities|relations|gold_standard|ground_truth|scores)[^/]*$",
    re.IGNORECASE,
)
_PUBTATOR = re.compile(r"^\d+\|[ta]\|(.*)$", re.MULTILINE)
_TAGGED = re.compile(r"^(\S+)[\t ](?:\S+[\t ])*[BIOES](?:-\S+)?$")
# "BC2GM000008491 Phenotypic analysis ..."
_LINE_NUMBER = re.compile(r"^(?=\S*\d{4})[A-Z]\S*\s+")

# A field of a table without a header is a text from so many words on.
_WORDS_OF_A_TEXT = 5


@dataclass(frozen=True)
class Item:
    """One item of a benchmark.

    name: file and running number, for example "medqa/test.jsonl#12".
    text: the question, or the sentence or abstract of a benchmark without questions.
    options: the answers to choose from, if there are any.
    passage: not a question.
    """

    name: str
    text: str
    options: tuple[str, ...] = ()
    passage: bool = False


def read_items(paths: Sequence[str], contexts: bool = False) -> Iterator[Item]:
    """The items of all files, folders searched through.

    Args:
        contexts: also take the texts that questions are asked about, as items of their own.

    Raises:
        UserError: a path that does not exist or cannot be read, or a file given by name in which
            no item is found.
    """
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"benchmark {path} does not exist; give files or folders that do")
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if not file.is_file() or (path.is_dir() and _NOT_ITEMS.search(file.name)):
                continue
            items = list(_read_file(file, contexts))
            if not items and file == path:
                raise UserError(
                    f"no item was found in benchmark file {file}; give JSON, CSV, TSV, XML, "
                    "PubTator, CoNLL or plain text with one item per line"
                )
            yield from items


def _read_file(path: Path, contexts: bool) -> Iterator[Item]:
    number = 0
    try:
        for member, stream in open_streams(path, FileReport(str(path))):
            if _NOT_ITEMS.search(member):
                continue
            text = stream.read().decode("utf-8", errors="replace").removeprefix("\ufeff")
            for item in _reader_of(text)(text, contexts):
                if item.text.strip():
                    yield replace(item, name=f"{path.parent.name}/{path.name}#{number}")
                    number += 1
    except BROKEN as error:
        raise UserError(f"benchmark file {path} cannot be read: {error}; get it again") from error


def _passages(texts: Iterable[str]) -> Iterator[Item]:
    return (Item("", text, passage=True) for text in texts)


def _reader_of(text: str) -> Callable[[str, bool], Iterator[Item]]:
    head = text.lstrip()[:1]
    if head in ("{", "["):
        return _read_json
    if head == "<":
        return _read_xml
    if _PUBTATOR.search(text[:4096]):
        return _read_pubtator
    lines = [line for line in text[:20000].splitlines()[:-1] if line.strip()]
    if lines and sum(bool(_TAGGED.match(line)) for line in lines) > 0.9 * len(lines):
        return _read_tagged
    return _read_table


def _read_json(text: str, contexts: bool) -> Iterator[Item]:
    try:
        records = [orjson.loads(text)]
    except orjson.JSONDecodeError:
        records = _json_lines(text)
    for record in records:
        yield from _in_record(record, contexts)


def _json_lines(text: str) -> Iterator[Any]:
    for line in text.splitlines():
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:
            continue


def _in_record(record: Any, contexts: bool) -> Iterator[Item]:
    """Descends until a record has a field that is known to hold an item's text."""
    if isinstance(record, list):
        for part in record:
            yield from _in_record(part, contexts)
    if not isinstance(record, dict):
        return
    fields = {str(key).lower(): value for key, value in record.items()}
    question = next((fields[k] for k in _QUESTION_KEYS if isinstance(fields.get(k), str)), None)
    passages = [fields[k] for k in _PASSAGE_KEYS if isinstance(fields.get(k), str)]
    if question is not None:
        yield Item("", question, tuple(_options(fields)))
    elif passages:
        yield from _passages(passages)
    else:
        yield from _in_record(list(record.values()), contexts)
    if contexts and question is not None:
        yield from _passages(_strings([fields.get(key) for key in _CONTEXT_KEYS]))


def _options(fields: dict[str, Any]) -> Iterator[str]:
    for text in _strings([fields.get(key) for key in _OPTION_KEYS]):
        # A list of options that a table holds as the text of a Python or JSON list.
        listed = re.findall(r"""['"]value['"]: (['"])(.*?)\1[,}]""", text)
        yield from [value for _, value in listed] or [text]


def _strings(value: Any) -> Iterator[str]:
    """Every text below a value that is more than a letter or an address."""
    if isinstance(value, str):
        if len(value) > 1 and not value.startswith(("http://", "https://")):
            yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))


def _read_xml(text: str, contexts: bool) -> Iterator[Item]:
    parser = etree.XMLParser(
        load_dtd=False, no_network=True, resolve_entities=False, huge_tree=True, recover=True
    )
    root = etree.fromstring(text.encode(), parser)
    for element in () if root is None else root.iter(etree.Element):
        name = etree.QName(element).localname.lower()
        if element.get("text") and name in ("sentence", "passage", "document"):
            yield from _passages([element.get("text")])
        elif len(element) == 0 and name in _QUESTION_KEYS:
            yield Item("", element.text or "")
        elif len(element) == 0 and name in _PASSAGE_KEYS and not _is_annotation(element):
            yield from _passages([element.text or ""])


def _is_annotation(element: etree._Element) -> bool:
    parent = element.getparent()
    return parent is not None and etree.QName(parent).localname in ("annotation", "entity")


def _read_pubtator(text: str, contexts: bool) -> Iterator[Item]:
    return _passages(_PUBTATOR.findall(text))


def _read_tagged(text: str, contexts: bool) -> Iterator[Item]:
    """CoNLL: a word and its tags on each line, a blank line after a sentence."""
    for sentence in re.split(r"\n\s*\n", text):
        lines = [line for line in sentence.splitlines() if line.strip()]
        yield from _passages([" ".join(line.split(None, 1)[0] for line in lines)])


def _read_table(text: str, contexts: bool) -> Iterator[Item]:
    """Rows of CSV or TSV, with names in the first or without; a line of text is a row as well."""
    rows = _rows(text)
    first = next(rows, [])
    names = [field.strip().lower() for field in first]
    if {*names} & {*_QUESTION_KEYS, *_PASSAGE_KEYS}:
        for row in rows:
            yield from _in_record(dict(zip(names, row, strict=False)), contexts)
        return
    for row in (first, *rows):
        yield from _in_row(row)


def _rows(text: str) -> Iterator[list[str]]:
    first = text.split("\n", 1)[0]
    if "\t" in first:
        quoted = '\t"' in text and '"\n' in text
        yield from csv.reader(
            io.StringIO(text), "excel-tab", quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        )
    elif first.startswith('"') or first.count(",") - first.count(", ") >= 2:
        yield from csv.reader(io.StringIO(text))
    else:
        yield from ([_LINE_NUMBER.sub("", line)] for line in text.splitlines())


def _in_row(row: Sequence[str]) -> Iterator[Item]:
    """A question, its options and a letter; else every field that is long enough to be a text."""
    if len(row) > 3 and re.fullmatch(r"[A-E]", row[-1].strip()):
        yield Item("", row[0], tuple(row[1:-1]))
        return
    yield from _passages(field for field in row if len(field.split()) >= _WORDS_OF_A_TEXT)
