"""Names of persons: lists of names, what stands before and after a word, and what no list knows.

A capitalised word that neither the list of common words nor that of medical terms holds counts as
a name: recall comes first. A word that is a name and a word ("Grant", "May", "Brown") counts only
with evidence: a title, a header field, a first name before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.patterns import positions
from megatron_biollm.corpus.deidentify.spans import Span
from megatron_biollm.corpus.deidentify.vocabulary import (
    AFTER_TITLE_NO_NAME,
    CLINICAL,
    CLINICAL_ENDS,
    FUNCTION_WORDS,
    HEADERS,
    INTRODUCTIONS,
)
from megatron_biollm.corpus.deidentify.words import (
    COMMON,
    DEGREE,
    EITHER,
    INITIAL,
    NAME,
    PERMITTED,
    TITLE,
    UNKNOWN,
    WORD,
    Coder,
    Token,
)

_NAMEISH = frozenset((NAME, EITHER, UNKNOWN, INITIAL, DEGREE))
_PARTICLES = r"(?:van|von|de|der|den|del|della|di|da|dos|du|la|le|bin|al|el|ter|zu|y)"
_GAP = re.compile(
    r"(?:[ \t]{1,2}|\.[ \t]?|, ?(?=(?:[JS]r|I{2,3}|IV|M\.?D|D\.?O)\b)|-|"
    rf"[ \t]{_PARTICLES}[ \t](?:{_PARTICLES}[ \t])?)"
)
_EPONYM_NOUN = re.compile(
    r"(?:['’]s?)?[ -](?:disease|syndrome|sign|test|phenomenon|criteria|classification|score|scale"
    r"|index|maneuver|manoeuvre|catheter|retractor|forceps|clamp|scissors|suture|needle|procedure"
    r"|stent|drain|blade|tumou?r|palsy|fracture|deformity|hernia|lymphoma|sarcoma|disorder"
    r"|incision|position|operation|repair|technique|stain|reaction|contracture|nodes?|cyst"
    r"|dementia|thyroiditis|esophagus|anomaly|murmur|reflex|point|triad|law|curve|method|staging"
    r"|equation|formula|chart|knife|hook|rongeur|elevator|curette|tube|dressing|brace|collar|sling"
    r"|splint|screws?|plates?|pins?|wires?|nails?|traction|rods?|gel|cream|tablets?|capsules?"
    r"|inhaler|patch|drops|mesh|balloon|graft|valve|block|virus|encephalopathy|chorea|ataxia"
    r"|aphasia|arthropathy|thyrotoxicosis|nevus|gland|tubes?|trial|regression|analysis)\b",
    re.IGNORECASE,
)
_DOSE = re.compile(
    r"[ ,]{1,2}(?:[A-Z]{2}[ ])?\d[\d.,/-]{0,8}\s?"
    r"(?:mg|mcg|µg|g\b|units?|iu\b|ml|meq|%|tabs?|puffs?)",
    re.IGNORECASE,
)
_FIELD_ENDS = re.compile(r"[\n\r;|>\t]|\s\s")
_HEADER_VALUE = re.compile(
    r"[ \t]{0,4}\n?[ \t]{0,4}(?:(?:Mr|Mrs|Ms|Dr|Prof)\.?\s)?"
    r"(?P<name>[^\W\d_][\w'’-]{0,30}\.?(?:(?:,\s?|[ ])[^\W\d_][\w'’-]{0,30}\.?){0,4})"
    r"(?=\s{0,2}(?:$|[\n\r\t;|(\[<]|\s\s|,|\.\s"
    r"|(?:DOB|MRN|Age|Sex|SSN|Date|Room|Acct|Account|ID|DOS|M\.?D)\b))"
)
_TITLED = re.compile(
    r"(?:[Mm][Rr][Ss]?|[Mm][Ss]|[Dd][Rr][Ss]?|[Pp]rof|[Mm]essrs)\b\.?\s{1,2}"
    r"(?P<name>[^\W\d_][\w'’-]{1,30})"
)
_LONG_TITLED = re.compile(
    r"(?:Doctor|Miss|Mister|Professor|Nurse|Sister|Father|Pastor|Judge|Officer|Uncle|Aunt)\s"
    r"(?P<name>[A-Z][\w'’-]{1,30})"
)
_INTRODUCED = re.compile(
    r"(?:\sis)?[ \t,:?]{1,3}"
    r"(?P<name>[^\W\d_][\w'’-]{1,30}(?:\s(?:[A-Z]\.?\s)?[A-ZÀ-Þ][\w'’-]{1,30})?)"
)
_SURE_OF_NAME = re.compile(r"name\b|names\b|/s/", re.IGNORECASE)
_DEGREE = re.compile(
    r"(?:M\.?\s?D|D\.?O|R\.?N|N\.?P|P\.?A(?:-C)?|Ph\.?D|D\.?D\.?S|D\.?P\.?M|CRNA|LPN|APRN|MSW"
    r"|LCSW|Pharm\.?D)\b"
)
_SIGNED = re.compile(
    r"(?<![\w'’-])(?P<name>(?:[A-Z][\w'’-]{0,30}\.?[ ]){1,3}[A-Z][\w'’-]{1,30}),?[ ]{1,2}\Z"
)
# What only persons do.
_PERSON_VERB = re.compile(
    r"(?:['’]s (?:mother|father|wife|husband|son|daughter|sister|brother|car|house)"
    r"| (?:said|says|asked|told|called|lives|lived|works|worked|went|came|wants|thinks|shouted"
    r"|is a (?:very )?[a-z]+ (?:person|man|woman|friend)|is (?:very |my |originally|from)|and I\b))"
)
_LOWER_WORD = re.compile(r"(?<![\w'’-])[a-z]{3,30}(?![\w-])")
_LOWER_FOREIGN = re.compile(r"(?<![\w'’-])(?=[a-z]{0,20}[^\x00-\x7f])[a-zß-ÿĀ-ɏΆ-ώ]{4,30}(?![\w-])")
_NEXT_WORD = re.compile(r"\s(?:[a-z]\.?\s)?([^\W\d_]{3,30})")
_WORD_BEFORE = re.compile(r"(?<![\w'’-])([^\W\d_]{3,30})\s(?:[a-z]\.?\s)?\Z")
_SENTENCE_END = re.compile(r"[.!?\n]")


class NameDetector:
    """Names of patients, relatives and staff, in any case of letters."""

    def __init__(self, lexicon: Lexicon, coder: Coder) -> None:
        self.lexicon, self.coder = lexicon, coder

    def __call__(self, text: str) -> list[Span]:
        tokens = self.coder.tokens(text)
        spans = [s for run in self._runs(text, tokens) for s in self._judge(text, run)]
        spans += self._titled(text)
        spans += self._headers(text)
        spans += self._introduced(text)
        spans += self._signed(text)
        lower = set(_LOWER_WORD.findall(text))
        spans += self._lower_case(text, lower)
        return spans + list(self._again(text, tokens, spans, lower))

    def _runs(self, text: str, tokens: Iterable[Token]) -> Iterator[list[Token]]:
        """Runs of words that may belong to one name: spaces or an initial between them."""
        run: list[Token] = []
        last: Token | None = None
        for token in tokens:
            if not run and last and self._is_first_name(text, last, token):
                run.append(last)
            last = token
            joined = run and _joined(text, run[-1], token)
            if joined and token.code == COMMON and self._is_surname(run[-1], token):
                run.append(token)
                continue
            if run and (token.code not in _NAMEISH or not joined):
                yield run
                run = []
            if token.code in _NAMEISH and (run or token.code != DEGREE):
                run.append(token)
        if run:
            yield run

    def _is_first_name(self, text: str, word: Token, name: Token) -> bool:
        """A common word within a sentence, before a name: "by Quarto Angelo"."""
        if name.code not in (NAME, UNKNOWN) or not word.text.istitle():
            return False
        if word.code == PERMITTED:
            # "Georgia Phillips"
            return word.low in self.lexicon.common_first and _joined(text, word, name)
        if word.code != COMMON:
            return False
        within = text[max(0, word.start - 2) : max(0, word.start - 1)].islower()
        plain = word.low not in CLINICAL and word.low not in FUNCTION_WORDS
        safe = self.lexicon.is_safe(word.low) or word.low.endswith(CLINICAL_ENDS)
        return within and plain and not safe and _joined(text, word, name)

    def _is_surname(self, first: Token, word: Token) -> bool:
        """A common word behind a first name: "Rebecca Hides", "Jeremy Hartmann"."""
        is_first = first.code == NAME and first.text.istitle()
        return (
            is_first
            and word.text.istitle()
            and word.low not in FUNCTION_WORDS
            and "-" not in word.low
        )

    def _judge(self, text: str, run: list[Token]) -> Iterator[Span]:
        """A run of words that may be names, side by side: a name, or none."""
        while run and (run[-1].code == DEGREE or (run[-1].code == INITIAL and len(run) == 1)):
            run = run[:-1]
        while run and run[0].code in (INITIAL, DEGREE) and text[run[0].end : run[0].end + 1] != ".":
            run = run[1:]
        words = [t for t in run if t.code in (NAME, EITHER, UNKNOWN)]
        if not words:
            return
        codes = {t.code for t in words}
        last = words[-1]
        if _EPONYM_NOUN.match(text, last.end) and len(words) < 3:
            return
        if len(words) == 1 and (_DOSE.match(text, last.end) or _possessive_eponym(text, last)):
            return
        if codes == {EITHER} and not self._both_either(text, run, words):
            return
        if codes <= {UNKNOWN, EITHER} and last.text.isupper() and _in_capitals(text, last):
            return
        certain = len(words) > 1 and NAME in codes
        first_known = certain and (words[0].low in self.lexicon.first or run[0].code == INITIAL)
        rule = "full_name" if certain else f"name_{min(codes)}"
        yield _span(run[0], run[-1], rule, 50 if first_known else 20)

    def _both_either(self, text: str, run: list[Token], words: list[Token]) -> bool:
        """Words that are names and common words, "Mark Brown" or "Grace" within a sentence."""
        first = words[0]
        if len(words) > 1 and first.low not in self.lexicon.ambiguous | self.lexicon.common_first:
            return False
        if len(words) == 1 and first.low not in self.lexicon.ambiguous:
            return False
        if len(words) > 1:
            return words[1].low in self.lexicon.common_last or any(t.code == INITIAL for t in run)
        if first.low in (
            "may",
            "april",
            "june",
            "august",
            "van",
            "art",
            "will",
            "winter",
            "autumn",
        ):
            return False
        before, after = text[max(0, first.start - 2) : first.start], text[first.end : first.end + 2]
        if _PERSON_VERB.match(text, first.end) and first.text.istitle():
            return True
        listed = before == ", " and text[max(0, first.start - 3) : first.start - 2].islower()
        within = listed or (before[-1:] == " " and before[:1].islower())
        return within and not after[1:2].isupper() and not first.text.isupper()

    def _titled(self, text: str) -> Iterator[Span]:
        for pattern in (_TITLED, _LONG_TITLED):
            for match in pattern.finditer(text):
                word, low = match["name"], match["name"].lower()
                if text[max(0, match.start() - 1) : match.start()].isalnum():
                    continue
                plain = low in self.lexicon.words and not self.lexicon.is_name(low)
                if low not in AFTER_TITLE_NO_NAME and not (word.islower() and plain):
                    end = _bare_end(text, *match.span("name"))
                    yield Span(match.start("name"), end, "name", "title", 25)

    def _headers(self, text: str) -> Iterator[Span]:
        """The value of a field such as "Attending:" where it looks like a name."""
        for mark in ":=":
            for at in positions(text, mark):
                label = _FIELD_ENDS.split(text[max(0, at - 34) : at])[-1].strip().lower()
                value = _HEADER_VALUE.match(text, at + 1) if label in HEADERS else None
                if value and self._is_header_name(value["name"]):
                    yield Span(*value.span("name"), "name", "header", 28)

    def _is_header_name(self, value: str) -> bool:
        codes = [self.coder.code(w) for w in WORD.findall(value)]
        known = sum(c in (NAME, UNKNOWN, EITHER) for c in codes)
        common = sum(c == COMMON for c in codes)
        if not known or not (value[0].isupper() or value.islower()):
            return False
        if not {NAME, UNKNOWN} & set(codes):
            # "Patient: Ah, yes." in a dialogue, unlike "Pt: GREEN, MAY".
            words = WORD.findall(value)
            return common == 0 and len(words) > 1 and all(w[0].isupper() for w in words)
        if value.islower():
            return all(c in (NAME, EITHER, INITIAL) for c in codes) and NAME in codes
        return common == 0 or ("," in value and common <= 1 and len(codes) <= 4)

    def _introduced(self, text: str) -> Iterator[Span]:
        """What stands behind "name is", "called", "this is"."""
        for phrase in INTRODUCTIONS:
            for at in positions(text, phrase):
                match = _INTRODUCED.match(text, at + len(phrase))
                if match is None or text[max(0, at - 1) : at].isalnum():
                    continue
                if self._is_introduced(match["name"], bool(_SURE_OF_NAME.search(phrase))):
                    end = _bare_end(text, *match.span("name"))
                    yield Span(match.start("name"), end, "name", "introduced", 24)

    def _is_introduced(self, name: str, sure: bool) -> bool:
        code = self.coder.code(WORD.findall(name)[0])
        if name[0].islower():
            return code == NAME or (sure and code == UNKNOWN)
        safe = self.lexicon.is_safe(name.lower()) or code == TITLE
        return (sure and not safe) or code in (NAME, UNKNOWN, EITHER)

    def _signed(self, text: str) -> Iterator[Span]:
        """Names before a degree: "Jane Roe, M.D."."""
        for degree in _DEGREE.finditer(text):
            if text[max(0, degree.start() - 1) : degree.start()] != " ":
                continue
            match = _SIGNED.search(text, max(0, degree.start() - 100), degree.start())
            words = WORD.findall(match["name"]) if match else []
            codes = [self.coder.code(w) for w in words]
            known = {NAME, EITHER, UNKNOWN, INITIAL} & set(codes)
            if match and known and sum(c == COMMON for c in codes) <= 1:
                first = match["name"].index(words[0] if codes[0] != TITLE else words[1])
                yield Span(match.start() + first, match.end("name"), "name", "signed", 26)

    def _lower_case(self, text: str, lower: set[str]) -> Iterator[Span]:
        """Names in lower case: frequent first names anywhere, others in lower-case sentences."""
        lexicon = self.lexicon
        unknown = {w for w in lower - lexicon.words if w not in lexicon.safe}
        candidates = {w for w in unknown if lexicon.is_name(w)}
        strange = {w for w in unknown - candidates if self.coder.code(w) == UNKNOWN}
        for match in _find_words(text, candidates):
            if match[0] in lexicon.common_first or _is_lower_sentence(text, match.start()):
                start, end = self._extend(text, *match.span())
                yield Span(start, end, "name", "lower_case", 15)
        for match in _find_words(text, strange):
            start, end = self._extend(text, *match.span())
            # One strange word may be a slip of the pen; two side by side are a name.
            if (start, end) != match.span() and _is_lower_sentence(text, match.start()):
                yield Span(start, end, "name", "lower_case", 10)
        if not text.isascii():
            for match in _LOWER_FOREIGN.finditer(text):
                known = match[0] in lexicon.words or match[0] in lexicon.safe
                if not known and _is_lower_sentence(text, match.start()):
                    yield Span(*match.span(), "name", "lower_case", 10)

    def _extend(self, text: str, start: int, end: int) -> tuple[int, int]:
        """A name in lower case with the words beside it that are names or unknown."""
        after = _NEXT_WORD.match(text, end)
        if after and self._goes_along(after[1]):
            end = after.end()
        before = _WORD_BEFORE.search(text, max(0, start - 36), start)
        if before and self._goes_along(before[1]):
            start = before.start(1)
        return start, end

    def _goes_along(self, word: str) -> bool:
        low = word.lower()
        return low not in self.lexicon.words and self.coder.code(low) in (NAME, UNKNOWN)

    def _again(
        self, text: str, tokens: Iterable[Token], spans: Iterable[Span], lower: set[str]
    ) -> Iterator[Span]:
        """Names that are certain in one place of the note, wherever else they stand."""
        certain: set[str] = set()
        for span in spans:
            if span.rule in ("full_name", "title", "header", "introduced", "signed"):
                found = WORD.findall(text[span.start : span.end])
                certain |= {w.lower().removesuffix("'s") for w in found if len(w) > 2}
        certain = {w for w in certain if w not in self.lexicon.words and w not in self.lexicon.safe}
        if not certain:
            return
        for token in tokens:
            if token.low.removesuffix("'s").removesuffix("’s") in certain:
                yield _span(token, token, "again", 12)
        compounds = {w for w in certain if "-" in w or "'" in w}
        for match in _find_words(text, (certain & lower) | compounds):
            yield Span(*match.span(), "name", "again", 12)


def _joined(text: str, left: Token, right: Token) -> bool:
    if right.start - left.end > 12:
        return False
    between = text[left.end : right.start]
    if between[:1] == "." and left.code != INITIAL and right.code != DEGREE:
        return False
    return _GAP.fullmatch(between) is not None


def _span(first: Token, last: Token, rule: str, priority: int) -> Span:
    end = last.end - (2 if last.text[-2:] in ("'s", "’s", "'S", "’S") else 0)
    return Span(first.start, end, "name", rule, priority)


def _bare_end(text: str, start: int, end: int) -> int:
    return end - 2 if text[end - 2 : end] in ("'s", "’s", "'S") and end - start > 3 else end


def _possessive_eponym(text: str, token: Token) -> bool:
    return token.text.endswith(("'s", "’s")) and bool(_EPONYM_NOUN.match(text, token.end))


def _in_capitals(text: str, token: Token) -> bool:
    """The line of the token is a heading in capitals."""
    start = text.rfind("\n", 0, token.start) + 1
    end = text.find("\n", token.end)
    line = text[max(start, token.start - 80) : min(end if end >= 0 else len(text), token.end + 80)]
    lower = sum(c.islower() for c in line)
    return lower * 4 < sum(c.isupper() for c in line) and len(line.split()) > 1


def _find_words(text: str, words: set[str]) -> Iterator[re.Match[str]]:
    if not words:
        return iter(())
    alternatives = "|".join(map(re.escape, sorted(words, key=lambda w: (-len(w), w))))
    return re.finditer(rf"(?<![\w'’-])(?:{alternatives})(?![\w-])", text)


def _is_lower_sentence(text: str, position: int) -> bool:
    """No capital between the ends of sentence before and after; looks 200 characters far."""
    start = position
    low = max(0, position - 200)
    for match in _SENTENCE_END.finditer(text, low, position):
        low = match.end()
    start = low
    match = _SENTENCE_END.search(text, position, position + 200)
    end = match.start() if match else min(len(text), position + 200)
    return text[start:end].islower()
