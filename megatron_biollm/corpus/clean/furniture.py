"""What publishers and converters put around a text: links, page marks, addresses, form words.

Lines are cut only where the whole line is furniture; phrases only in the exact wordings that
publishers use. A trial's registration number, an acknowledged grant or an ethics vote says
something of the study and stays.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from megatron_biollm.corpus.clean.edits import Edit, cut, cuts

_URL = r"(?:https?://|www\.)[^\s]{3,200}"
_DATE = r"\d{0,2} ?[A-Z][a-z]+\.? \d{0,2},? ?\d{4}"

# Whole lines; tried on lines up to this length only.
LONGEST_LINE = 400
_LINES = (
    r"Click here (?:for|to view) (?:additional data )?(?:files?|the .{0,40}file)\b.{0,60}",
    r"\(?[\d.,]+ ?[MKG]i?B,? ?(?:pdf|docx?|xlsx?|zip)\)?\.?",
    r"Additional files? \d+:?",
    r"(?:Electronic )?supplementary material:?",
    r"Pre-?publication history",
    rf"The pre-?publication history for this paper can be accessed here:?(?:\s*{_URL})?",
    rf"{_URL}/prepub",
    r"(?:The|An) online version of this article .{0,200}(?:contains?|supplementary).{0,160}",
    rf"(?:Downloaded|Accessed|Retrieved) from:? {_URL}.{{0,120}}",
    r"Downloaded (?:from|by) .{2,80} (?:on|at) .{0,60}\d{4}.{0,60}",
    r"View Article Online|View publication stats|For personal use only\.?.{0,80}|Uncorrected proof",
    r"Page \d{1,4} of \d{1,4}|\(page number not for citation purposes\)",
    r"NIH Public Access|Author Manuscript|NIH-PA Author Manuscript|HHS Public Access",
    r".{0,80}Author manuscript; available in PMC .{0,40}",
    r"\*?(?:Address )?(?:for )?correspond(?:ence|ing author)\b.{0,40}[:;].{0,300}",
    r"\*?Corresponding author.{0,200}@.{0,100}",
    r"\*?E-?mail(?: address(?:es)?)?:? .{0,60}@.{0,120}",
    r"(?:Tel(?:ephone)?|Phone|Fax)[.:]{1,2} ?[+()\d][\d ().\-/+]{6,40}"
    r"(?:[;,]? ?(?:Tel|Fax|E-?mail).{0,100})?",
    rf"(?:Received|Accepted|Revised|Published(?: online)?)(?: in (?:revised|final) form)?:? {_DATE}"
    r"(?:[;,.] ?(?:Received|Revised|Accepted|Published).{0,100})?\.?",
)
_LINE = re.compile(rf"(?:{'|'.join(_LINES)})\s*", re.IGNORECASE)
# A line is tried only if it holds one of these, in lower case: most hold none.
_LINE_SIGNS = (
    "click here", "additional file", "upplementary material", "prepub", "pre-pub",
    "online version", "downloaded", "accessed from", "retrieved from", "article online",
    "view publication", "use only", "uncorrected proof", "page", "public access",
    "author manuscript", "correspond", "mail", "tel", "phone", "fax", "received", "accepted",
    "revised", "published", "b, pdf", "b pdf",
)  # fmt: skip

# Where a sentence may begin.
_START = r"(?:^|(?<=[.:;)])[ \t]?)"
_PHRASES = {
    "journal_links": re.compile(
        r"[ \t]?\[(?:PubMed|CrossRef|Cross Ref|Google Scholar|PMC free article|Full Text"
        r"|Web of Science|Medline|ISI)\]"
    ),
    "supplement_notices": re.compile(
        _START + r"Supplementary (?:materials?|data|information|tables?|figures?)"
        r"(?: (?:associated|accompan)[^\n.]{0,60})? (?:is|are|can be) (?:available|found|accessed)"
        r"[^\n]{0,30}? (?:at|from|on|online|in the online)\b[^\n]{0,200}?(?:\.(?=\s|\Z)|$)",
        re.MULTILINE,
    ),
    "declarations": re.compile(
        r"(?:^(?:[*#\d. ]{0,6})?(?:Competing|Conflicts? of|Conflicting) interests?"
        rf"(?: statement)?[.:]?[ \t]*\n?)?(?:{_START}|(?<=[a-z])(?=The author))"
        r"(?:(?:The|All) authors?(?:\(s\))?|We|None of the authors)(?: have)?"
        r" (?:declared?|report(?:ed)?|ha(?:s|ve))(?: that)?"
        r"(?: there (?:is|are)| they have| s?he has)? (?:no|any)"
        r" (?:(?:potential|actual|financial|known) ){0,2}(?:competing|conflicts?|conflicting)"
        r"(?: or competing)?(?: of)?(?: financial)? interests?"
        r"(?: to (?:declare|disclose|report))?\.",
        re.MULTILINE | re.IGNORECASE,
    ),
    "publisher_notes": re.compile(
        r"(?:Publisher[’']s [Nn]ote:?\s*)?Springer Nature remains neutral with regard to "
        r"jurisdictional claims in published maps and institutional affiliations\."
    ),
    "approvals": re.compile(
        _START + r"All (?:the )?authors (?:have )?(?:read,? |reviewed,? |seen,? )?(?:and )?"
        r"(?:contributed to,? )?(?:read |approved |revised )?(?:and )?(?:approved|read)"
        r" the (?:final|submitted) (?:version of the )?(?:manuscript|version|article|paper)\.",
        re.MULTILINE | re.IGNORECASE,
    ),
}
_PHRASE_SIGNS = {
    "journal_links": (
        "[PubMed]", "[CrossRef]", "[Cross Ref]", "[Google Scholar]", "[PMC free", "[Full Text]",
        "[Web of", "[Medline]", "[ISI]",
    ),
    "supplement_notices": ("Supplementary ",),
    "declarations": (" interest",),
    "publisher_notes": ("remains neutral with regard",),
    "approvals": (" the final ", " the submitted "),
}  # fmt: skip

_FORM_FEED = re.compile("\n?\f\n?")
_PAGE_END = re.compile(r"\f\s*")
_LINE_WITH_TEXT = re.compile(r"[^\n\f]*[^\s][^\n\f]*")
# How far a phrase reaches around its sign, in characters.
_BEFORE, _AFTER = 160, 320
# Page heads and feet are as often there as pages; fewer than this may be chance.
PAGES = 3
# More form feeds than any book has pages: something else is meant by them.
MOST_PAGES = 20_000
LONGEST_HEAD = 120


def furniture_lines(text: str) -> Iterator[Edit]:
    """Whole lines of furniture, each with its line break."""
    low = text.lower()
    # A few capitals (İ) become two characters: then positions would not fit.
    low = low if len(low) == len(text) else text
    for sign in _LINE_SIGNS:
        at = low.find(sign)
        while at >= 0:
            start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
            end = len(text) if end < 0 else end
            if end - start <= LONGEST_LINE and _LINE.fullmatch(text, start, end):
                yield cut(text, start, end)
            at = low.find(sign, end)


def phrases(name: str, text: str) -> Iterator[Edit]:
    """Matches of one of the `PHRASES`, looked for around the words that all its forms have."""
    at = 0
    for sign in _PHRASE_SIGNS[name]:
        while (found := text.find(sign, at)) >= 0:
            match = _PHRASES[name].search(text, max(at, found - _BEFORE), found + _AFTER)
            at = match.end() if match else found + len(sign)
            if match:
                yield cut(text, *match.span())
        at = 0


PHRASES = tuple(_PHRASES)


def page_heads(text: str) -> Iterator[Edit]:
    """Running heads and feet: lines next to form feeds that come back on at least three pages.

    Figures in them count as equal, so that page numbers do not hide them.
    """
    if not 0 < text.count("\f") <= MOST_PAGES:
        return
    ends = [(0, 0), *(match.span() for match in _PAGE_END.finditer(text)), (len(text),) * 2]
    beside = {line for end in ends for line in _lines_beside(text, *end)}
    seen = Counter(_masked(text[start:end]) for start, end in beside)
    for start, end in beside:
        if seen[_masked(text[start:end])] >= PAGES:
            yield start, end, ""


def form_feeds(text: str) -> Iterator[Edit]:
    """Page ends become line ends."""
    return cuts(_FORM_FEED, text, "\n") if "\f" in text else ()


def _masked(line: str) -> str:
    return re.sub(r"\d+", "0", line.strip())


def _lines_beside(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The nearest lines with something on them before and after a page end."""
    reach = 2 * LONGEST_HEAD
    before = list(_LINE_WITH_TEXT.finditer(text, max(0, start - reach), start))[-1:]
    after = list(_LINE_WITH_TEXT.finditer(text, end, end + reach))[:1]
    return [m.span() for m in before + after if m.end() - m.start() <= LONGEST_HEAD]
