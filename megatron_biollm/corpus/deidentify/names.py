"""Names of persons: lists of names, what stands before and after a word, and what no list knows.

A capitalised word that neither the list of common words nor that of medical terms holds counts as
a name: recall comes first. A word that is a name and a word ("Grant", "May", "Brown") counts only
with evidence: a title, a header field, a first name before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from megatron_biollm.corpus.deidentify.cued_names import CuedNames
from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.lower_case_names import LowerCaseNames
from megatron_biollm.corpus.deidentify.spans import Span
from megatron_biollm.corpus.deidentify.vocabulary import (
    CLINICAL,
    CLINICAL_ENDS,
    FUNCTION_WORDS,
)
from megatron_biollm.corpus.deidentify.words import (
    COMMON,
    DEGREE,
    EITHER,
    INITIAL,
    NAME,
    PERMITTED,
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
# What only persons do.
_PERSON_VERB = re.compile(
    r"(?:['’]s (?:mother|father|wife|husband|son|daughter|sister|brother|car|house)"
    r"| (?:said|says|asked|told|called|lives|lived|works|worked|went|came|wants|thinks|shouted"
    r"|is a (?:very )?[a-z]+ (?:person|man|woman|friend)|is (?:very |my |originally|from)|and I\b))"
)


class NameDetector:
    """Names of patients, relatives and staff, in any case of letters."""

    def __init__(self, lexicon: Lexicon, coder: Coder) -> None:
        self.lexicon, self.coder = lexicon, coder
        self.cued = CuedNames(lexicon, coder)
        self.lower_case = LowerCaseNames(lexicon, coder)

    def __call__(self, text: str) -> list[Span]:
        tokens = self.coder.tokens(text)
        spans = [s for run in self._runs(text, tokens) for s in self._judge(text, run)]
        spans += self.cued(text)
        spans += self.lower_case(text)
        return spans + list(self._again(text, tokens, spans))

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

    def _again(self, text: str, tokens: Iterable[Token], spans: Iterable[Span]) -> Iterator[Span]:
        """Names that are certain in one place of the note, wherever else they stand."""
        certain: set[str] = set()
        for span in spans:
            if span.rule in ("full_name", "title", "header", "introduced", "signed"):
                found = WORD.findall(text[span.start : span.end])
                certain |= {w.lower().removesuffix("'s") for w in found if len(w) > 2}
        lexicon = self.lexicon
        certain = {w for w in certain if w not in lexicon.words and w not in lexicon.safe}
        for token in tokens:
            if token.low.removesuffix("'s").removesuffix("’s") in certain:
                yield _span(token, token, "again", 12)
        lower = [w for w in sorted(certain, key=lambda w: (-len(w), w)) if len(w) > 2 and w in text]
        if lower:
            alternatives = "|".join(map(re.escape, lower))
            for match in re.finditer(rf"(?<![\w'’-])(?:{alternatives})(?![\w-])", text):
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


def _possessive_eponym(text: str, token: Token) -> bool:
    return token.text.endswith(("'s", "’s")) and bool(_EPONYM_NOUN.match(text, token.end))


def _in_capitals(text: str, token: Token) -> bool:
    """The line of the token is a heading in capitals."""
    start = text.rfind("\n", 0, token.start) + 1
    end = text.find("\n", token.end)
    line = text[max(start, token.start - 80) : min(end if end >= 0 else len(text), token.end + 80)]
    lower = sum(c.islower() for c in line)
    return lower * 4 < sum(c.isupper() for c in line) and len(line.split()) > 1
