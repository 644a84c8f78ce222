"""Records that are about an article, not the article: errata, retractions, empty abstracts."""

from __future__ import annotations

import re

from megatron_biollm.corpus.document import Document

_NOTICE = re.compile(
    r"\W*(?:errat(?:um|a)\b|corrigend(?:um|a)\b|(?:author|publisher)(?:['’]s)? correction\b"
    r"|corrections?(?: to)?:|corrections?\.?$|retraction(?: note| notice| statement)?:"
    r"|retraction(?: note| notice)\b|notice of (?:retraction|withdrawal)|withdrawal notice"
    r"|(?:editorial )?expression of concern\b"
    r"|(?:this|the) (?:article|paper|manuscript) has been (?:withdrawn|retracted))",
    re.IGNORECASE,
)
_NOTICE_TYPES = frozenset(("correction", "retraction", "expression-of-concern", "addendum"))
# What goes on for longer has something to say of its own, more so where only the title tells.
LONGEST_NOTICE_WORDS = 500
LONGEST_TITLED_NOTICE_WORDS = 150

_RETRACTED = re.compile(
    r"\W*(?:retracted|withdrawn)(?: article| paper| chapter)?\W*[:.\]]", re.IGNORECASE
)

_EMPTY = re.compile(
    r"\W*(?:(?:no )?abstract(?: is)?(?: not)?(?: available)?|not available"
    r"|no (?:text|title|abstract)(?: available)?|see text|n/?a|none|null|nan|tbd|untitled"
    r"|(?:(?:subject|author|keyword)s? )?index|contents|table of contents|(?:front|back) matter"
    r"|editorial board|masthead|in this issue|books received|announcements?"
    r"|calendar(?: of events)?|acknowledge?ments?(?: (?:of|to) reviewers)?)\W*",
    re.IGNORECASE,
)
_LONGEST_EMPTY = 60


def is_retracted(document: Document) -> bool:
    """As the source's metadata say, or as publishers mark titles: RETRACTED: ..."""
    return bool(document.metadata.get("retracted")) or bool(_RETRACTED.match(document.text))


def is_notice(document: Document, words: int) -> str | None:
    """What makes the document a notice on another one; None for a document of its own."""
    if words > LONGEST_NOTICE_WORDS:
        return None
    if (kind := document.metadata.get("article_type")) in _NOTICE_TYPES:
        return kind
    first_line = document.text.partition("\n")[0]
    match = _NOTICE.match(first_line) if words <= LONGEST_TITLED_NOTICE_WORDS else None
    return match[0].strip() if match else None


def is_without_content(text: str) -> bool:
    """Whether a text only says that there is none, or names a part of a journal's make-up."""
    return len(text) <= _LONGEST_EMPTY and _EMPTY.fullmatch(text) is not None
