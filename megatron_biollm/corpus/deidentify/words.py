"""The words of a text that may be proper names, each with what the lexicon says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.vocabulary import (
    AFTER_NAME_NO_PLACE,
    DEGREES,
    FACILITIES,
    FUNCTION_WORDS,
    MEDICAL_PREFIXES,
    STREETS,
    TITLES,
)

# One word, inner apostrophes and hyphens included: O'Brien, Nguyen-Lee; Synthea writes Liz123.
WORD = re.compile(r"[^\W\d_]+(?:['’\-][^\W\d_]+){0,4}(?:\d{2,4}(?![\d\w]))?")
# The same, only those that do not begin with an ASCII lower-case letter, but for d'Arc and l'Isle.
# A set of characters comes first, because the engine skips to the next of them.
CAPITALISED = re.compile(
    # "=20" is a space of mail that nobody decoded.
    r"[^\W\d_a-ce-km-z](?:(?<![^\W_].)|(?<==20.))(?:(?<![dl])|['’][^\W\d_a-z])[^\W\d_]*"
    r"(?:['’\-][^\W\d_]+){0,4}(?:\d{2,4}(?![\d\w]))?"
)

# A device, a procedure, a disease behind the name of its inventor.
DEVICE_NOUN = re.compile(
    r"(?:['’]s)?[ /-](?:[a-z]{1,20} )?(?:" + "|".join(AFTER_NAME_NO_PLACE) + r")\b", re.IGNORECASE
)

# Codes of words.
NAME, EITHER, UNKNOWN, COMMON = "N", "A", "U", "C"
ACRONYM, INITIAL, TITLE, DEGREE, PERMITTED = "Y", "I", "T", "G", "S"

_SUFFIX = re.compile(
    r"(?:itis|osis|oses|ectomy|otomy|ostomy|plasty|scopy|graphy|gram|emia|uria|pathy|opathic|algia"
    r"|oma|omas|statin|steride|onide|amol|epin|idone|apine|oxin|olone|ectin|idol|amide|pril|sartan|olol|azole|cillin|mycin|cycline|floxacin|mab|nib|vir|dipine"
    r"|azepam|azolam|oxetine|triptan|gliptin|glitazone|prazole|tidine|parin|caine|barbital|profen"
    r"|sone|lone|thiazide|semide|phylline|terol|tropium|lukast|zepine|codone|morphone|amine|idine"
    r"|azine|etine|oxide|phosphate|chloride|sulfate|acid|ase|ology|ological|ologist|otic|emic"
    r"|tomic|ular|eal|iform|oid|genic|lysis|rrhea|rrhage|megaly|penia|philia|trophy|plasia|able"
    r"|ation|ations|ability|ically|ness|less|fully|ingly|ectomies|cardia|pnea|phagia|plegia|paresis)$"
)


@dataclass(frozen=True, slots=True)
class Token:
    """A word at `start` to `end`; `code` says what it may be; `low` is its text in lower case."""

    start: int
    end: int
    text: str
    low: str
    code: str


class Coder:
    """Gives every word its code, and remembers the words it met, up to a bound."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self.seen: dict[str, str] = {}
        self._last: tuple[str, list[Token]] = ("", [])

    def tokens(self, text: str) -> list[Token]:
        """Words that may be names; in a text with capitals, those that begin with one."""
        if self._last[0] is text:
            return self._last[1]
        found = self._lower_case(text) if text.islower() else self._capitalised(text)
        self._last = (text, found)
        return found

    def _capitalised(self, text: str) -> list[Token]:
        found = []
        for match in CAPITALISED.finditer(text):
            word = match[0]
            code = self.seen.get(word)
            if code is None:
                code = self._remember(word)
            start, end = match.span()
            found.append(Token(start, end, word, word.lower(), code))
        return found

    def _lower_case(self, text: str) -> list[Token]:
        """In a text without any capital, the words that no dictionary holds, and some marks."""
        found, known = [], self.lexicon.words
        for match in WORD.finditer(text):
            word = match[0]
            if word in known and word not in STREETS and word not in FACILITIES:
                continue
            if word in ("a", "i", "s", "t", "m", "d") or word in self.lexicon.ambiguous:
                continue
            title = word.title()
            code = self.seen.get(title) or self._remember(title)
            # Abbreviations, which capitals would tell: mri, cabg, bid.
            if code == UNKNOWN and len(word) < 5 and word.isascii():
                continue
            found.append(Token(*match.span(), word, word, code))
        return found

    def _remember(self, word: str) -> str:
        if len(self.seen) > 200_000:
            self.seen.clear()
        code = self.seen[word] = self.code(word)
        return code

    def code(self, word: str) -> str:
        low = word.lower().replace("’", "'")
        low = low.removesuffix("'s").removesuffix("'")
        if low[-1:].isdigit():
            letters = low.rstrip("0123456789")
            return NAME if self.lexicon.is_name(letters) else COMMON
        if low[:1] in "µμΩαβγδΔ°" and len(low) < 4:
            return COMMON
        if len(low) == 1:
            return INITIAL if low.isascii() else COMMON
        if low in TITLES:
            return TITLE
        if low in DEGREES and (word.isupper() or low in ("jr", "sr", "phd", "esq")):
            return DEGREE
        if low in self.lexicon.permitted:
            return PERMITTED
        if "-" in low or "'" in low:
            return self._compound(word, low)
        return self._simple(word, low)

    def _compound(self, word: str, low: str) -> str:
        if low in self.lexicon.words or self.lexicon.is_safe(low):
            return COMMON
        if low.startswith(("o'", "d'", "l'")) and len(low) > 4:
            return NAME
        parts = [p for p in re.split(r"['’\-]", low) if len(p) > 1]
        codes = {self._simple(p.title(), p) for p in parts}
        if all(self.lexicon.safe.__contains__(p) or p in self.lexicon.words for p in parts):
            return COMMON
        if codes <= {COMMON, ACRONYM, PERMITTED} or low.endswith(
            ("n't", "'ll", "'ve", "'re", "'d")
        ):
            return COMMON
        if word.isupper() and NAME not in codes:
            return ACRONYM
        if COMMON in codes and NAME not in codes:
            return COMMON
        if NAME in codes or codes == {EITHER}:
            return NAME
        return UNKNOWN

    def _simple(self, word: str, low: str) -> str:
        lexicon = self.lexicon
        if lexicon.is_safe(low):
            return COMMON
        if low in lexicon.permitted:
            return PERMITTED
        if low in FUNCTION_WORDS:
            return COMMON
        is_word = low in lexicon.words
        if lexicon.is_name(low) or low in lexicon.ambiguous:
            short = word.isupper() and len(word) <= 3
            return EITHER if is_word or short or low in lexicon.ambiguous else NAME
        if is_word or self._is_plural(low):
            return COMMON
        if word.isupper() and (len(word) <= 5 or word in lexicon.acronyms):
            return ACRONYM
        if any(c.isupper() for c in word[1:]) and not word.isupper() and not _is_mac(word):
            return ACRONYM  # mRNA, HbA, PaCO
        if word[-1:] == "s" and word[:-1].isupper():
            return ACRONYM
        if len(low) > 6 and (_SUFFIX.search(low) or low.startswith(MEDICAL_PREFIXES)):
            return COMMON
        return UNKNOWN if len(low) > 2 or not low.isascii() else COMMON

    def _is_plural(self, low: str) -> bool:
        words = self.lexicon.words
        return (
            (low.endswith("s") and low[:-1] in words)
            or (low.endswith("es") and low[:-2] in words)
            or (low.endswith("ed") and (low[:-2] in words or low[:-1] in words))
            or (low.endswith("ing") and (low[:-3] in words or low[:-3] + "e" in words))
            or any(low.startswith(p) and low[len(p) :] in words for p in _PREFIXES)
        )


_PREFIXES = (
    "non",
    "pre",
    "post",
    "re",
    "un",
    "anti",
    "hyper",
    "hypo",
    "sub",
    "peri",
    "intra",
    "inter",
)


def _is_mac(word: str) -> bool:
    return word.startswith(("Mc", "Mac", "De", "Di", "La", "Le", "Van", "O", "Fitz", "Du"))


def words_before(text: str, start: int) -> tuple[str, ...]:
    """The two words before a place in the text, in lower case."""
    words = text[max(0, start - 28) : start].lower().rsplit(None, 2)[-2:]
    return tuple([word.strip(".,:;()") for word in words]) or ("",)
