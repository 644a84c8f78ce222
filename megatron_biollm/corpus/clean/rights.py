"""Copyright and licence notices, as publishers append them to abstracts and articles.

A notice begins where a sentence begins and reaches to the end of its paragraph, as long as every
sentence of it speaks of rights; the first that does not ends it. So "(C)" as the third panel
of a figure, "SCALE©" in a text and a sentence on copyright law stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from megatron_biollm.corpus.clean.edits import Edit

# Cheap to look for: one of these is in every notice, at most so far behind its beginning.
_SIGNS = (
    "©", "opyright", "OPYRIGHT", "ights reserved", "ights are reserved", "(c)", "(C)",
    "ublished by", "ublished online by", "istributed under", "icensed under", "icenced under",
    "ublished under", "terms of the Creative",
)  # fmt: skip
_FARTHEST = 160

_YEAR = r"(?:19|20)\d\d"
_BEGINNINGS = (
    rf"\[?(?:Crown )?(?:Copyright|COPYRIGHT) ?(?:©|\([cC]\)|{_YEAR}|by )",
    rf"Crown copyright|©|\([cC]\) ?(?:Copyright )?{_YEAR}|\([cC]\) (?:The )?Authors?\b",
    r"Published (?:online )?by (?:Elsevier|Wiley|John Wiley|Oxford|Springer|BMJ|the BMJ|Mosby"
    r"|Cambridge|S\. Karger)",
    r"This article is protected by copyright|All rights (?:are )?reserved",
    r"(?:This is|This article is|It is) (?:an? )?(?:[Oo]pen[- ][Aa]ccess|published)"
    r" (?:article|work)[^\n.]{0,80}(?:distributed|licen[cs]ed|under|terms)",
    r"This (?:article|work) is (?:distributed|licen[cs]ed|published) under",
)
_START = re.compile(
    r"(?:^|(?<=[.!?)\]>”\"'*:;,0-9])[ \t]|(?<=[.!?)\]>”\"']))"
    rf"(?:{'|'.join(_BEGINNINGS)})",
    re.MULTILINE,
)
_SENTENCE_END = re.compile(r"[.!?](?:[ \t]+(?=[\w©(“\"])|[ \t]*$)|$", re.MULTILINE)
_SPEAKS_OF_RIGHTS = re.compile(
    r"rights|copyright|©|\([cC]\)|licen[cs]|publish|permission|reprint|reproduc|Creative Commons|"
    r"creativecommons|commercial|properly cited|\b(?:Inc|Ltd|LLC|GmbH|B\.?V|Co|AG|Press|Elsevier|"
    r"Wiley|Springer|Karger|Society|Association|College|Publishers?|Publications?|Periodicals|"
    r"Kluwer|Lippincott|Academy|Foundation|Federation|Journals?|University|Verlag|Liss)\b"
)
# "Elsevier B." / "V." and "Karger AG," / "Basel": what abbreviations leave of a sentence.
_REMNANT_WORDS = 3
_LONGEST = 600
# What stands before the notice in many abstracts: Head Neck 38: E783-E791, 2016.
_OWN_CITATION = re.compile(
    rf"[ \t](?:[A-Z][A-Za-z&]*\.? ){{1,6}}(?:{_YEAR})?[;:,]? ?\d{{1,4}}(?:\(\d{{1,3}}\))?"
    rf"[:,] ?[A-Z]?\d+"
    rf"[-–][A-Z]?\d+(?:, ?{_YEAR})?\.[ \t]?\Z"
)
_TRUNCATED = re.compile(r"[ \t]*\(?ABSTRACT TRUNCATED(?: AT \d{2,4} WORDS)?\.?\)?\.?")


def copyright_notices(text: str) -> Iterator[Edit]:
    """Notices, and before them the journal's own citation of the article."""
    done = 0
    for match in _beginnings(text):
        if match.start() < done:
            continue
        start, done = _own_citation(text, match.start()), _end(text, match.start())
        yield start, done, " " if text[done : done + 1].strip() else ""


def _beginnings(text: str) -> list[re.Match[str]]:
    """Where a notice may begin, in order of place."""
    found = {}
    for sign in _SIGNS:
        at = text.find(sign)
        while at >= 0:
            for match in _START.finditer(text, max(0, at - _FARTHEST), at + 2 * _FARTHEST):
                found[match.start()] = match
            at = text.find(sign, at + _FARTHEST)
    return [found[start] for start in sorted(found)]


def truncation_marks(text: str) -> Iterator[Edit]:
    """MEDLINE's note that it cut an abstract after 250 or 400 words."""
    if "TRUNCATED" in text:
        yield from ((m.start(), m.end(), "") for m in _TRUNCATED.finditer(text))


def _own_citation(text: str, start: int) -> int:
    before = _OWN_CITATION.search(text[max(0, start - 100) : start])
    return start - min(start, 100) + before.start() if before else start


def _end(text: str, start: int) -> int:
    """Where the last sentence ends that belongs to the notice."""
    at = start
    for match in _SENTENCE_END.finditer(text, start + 2, start + _LONGEST):
        sentence = text[at : match.end()]
        is_part = at == start or _SPEAKS_OF_RIGHTS.search(sentence) or _is_remnant(sentence)
        if not is_part:
            break
        at = match.end()
        if at >= len(text) or text[at] == "\n" or text[match.start()] not in ".!?":
            break
    return at


def _is_remnant(sentence: str) -> bool:
    return len(sentence.split()) <= _REMNANT_WORDS
