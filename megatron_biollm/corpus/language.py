"""Which language a text is in, and whether it stays.

The text itself is asked first, as far as it can answer, because sources are wrong (an article
marked English with a French text); to overrule what a source states it must be surer. Then a
fastText model where the user has one; then what the source states. A text that no one can tell
about (a list of genes, a dose table, three words) stays.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Optional

from datatrove.data import Document as DatatroveDocument
from datatrove.utils.lid import FastTextLID

from megatron_biollm.config import UserError, option
from megatron_biollm.corpus.clean.stop_words import SCRIPTS, STOP_WORDS
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.languages import iso_639_1
from megatron_biollm.corpus.steps import Drop

# A long text is judged by as many characters from its beginning, middle and end.
WINDOW = 3000
# Fewest stop words, and different ones, that tell a language, their least share of all words, and
# how many times the other side's. English abstracts have 25 to 45 %, lists of genes under 5 %.
FEWEST_HITS = 4
FEWEST_DIFFERENT = 3
LEAST_SHARE = 0.10
LEAD = 1.5
# How sure the text must be of another language where the source states a wanted one.
OVERRULING = 0.85
# Shorter runs of letters of another script are names, formulas or quotations.
FEWEST_LETTERS = 20

_WORD = re.compile(r"[^\W\d_]+")
_LETTERS = {code: re.compile(f"[{letters}]") for code, letters in SCRIPTS.items()}
# Japanese is written with Chinese characters too; a tenth in kana tells it apart.
_KANA_SHARE = 0.1


@dataclass
class LanguageConfig:
    """Which languages stay, and how sure a drop must be."""

    languages: list[str] = option(["en"], "ISO 639-1 codes that stay; an empty list keeps all")
    threshold: float = option(0.7, "least confidence, 0 to 1, with which a text is dropped")
    model: Optional[str] = option(None, "path of a fastText language model (lid.176 or GlotLID)")

    def __post_init__(self) -> None:
        odd = [code for code in self.languages if not re.fullmatch(r"[a-z]{2,3}", code)]
        if odd:
            raise UserError(f"languages holds {odd}; give ISO 639-1 codes in lower case, as in en")
        if not 0 <= self.threshold <= 1:
            raise UserError(f"threshold is {self.threshold}; it is a share from 0 to 1")
        if self.model is not None and not Path(self.model).is_file():
            raise UserError(f"language model {self.model} is no file; give the path of a .bin file")


@dataclass(frozen=True)
class Verdict:
    """A language (ISO 639-1), how sure it is from 0 to 1, and what told it."""

    language: str
    confidence: float
    told_by: str


class LanguageFilter:
    """Processor: drops documents in other languages; notes a language that the source left open.

    tally: documents by what told their language ("text", "model", "source"), and "undecided".
    """

    name = "language"

    def __init__(self, config: LanguageConfig):
        self.config = config
        self.tally: Counter[str] = Counter()
        self._languages = frozenset(config.languages)

    def __call__(self, document: Document) -> Document | Drop:
        """The document, its language filled in where the text tells it, or a drop."""
        verdict = self._verdict(document)
        self.tally[verdict.told_by if verdict else "undecided"] += 1
        if verdict is None:
            return document
        wanted = not self._languages or verdict.language in self._languages
        needed = OVERRULING if document.language in self._languages else self.config.threshold
        if not wanted and verdict.confidence >= needed:
            return Drop("language", f"{verdict.language} {verdict.confidence:.2f}")
        is_news = wanted and document.language is None
        return replace(document, language=verdict.language) if is_news else document

    def _verdict(self, document: Document) -> Verdict | None:
        sample = _sample(document.text)
        if verdict := language_of(sample, self._languages):
            return verdict
        if self._model is not None and (verdict := self._model.verdict(sample)):
            return verdict
        return Verdict(document.language, 1.0, "source") if document.language else None

    @cached_property
    def _model(self) -> "LanguageModel | None":
        return LanguageModel(self.config.model) if self.config.model else None

    def __getstate__(self) -> dict:
        """Without the loaded model, which cannot be pickled; a worker loads its own."""
        return {name: value for name, value in vars(self).items() if name != "_model"}


def language_of(text: str, wanted: Iterable[str] = ()) -> Verdict | None:
    """The language by script and stop words; None where they do not tell.

    wanted: how sure it is counts against the best of the other side, wanted or not: whether a text
    is Danish or Norwegian does not matter to who wants English. Without, against the second best.
    """
    if code := _script(text):
        return Verdict(code, 1.0, "text")
    # DES, MET and LE in capitals are genes.
    words = Counter(word.lower() for word in _WORD.findall(text) if not word.isupper())
    hits = {
        code: sum(words[word] for word in stop_words & words.keys())
        for code, stop_words in STOP_WORDS.items()
    }
    best = max(hits, key=hits.__getitem__)
    if hits[best] < max(FEWEST_HITS, LEAST_SHARE * words.total()):
        return None
    if len(STOP_WORDS[best] & words.keys()) < FEWEST_DIFFERENT:
        return None
    wanted = set(wanted) or {best}
    rival = max(hits[code] for code in hits if (code in wanted) != (best in wanted))
    if hits[best] < LEAD * rival:
        return None
    return Verdict(best, hits[best] / (hits[best] + rival + 1), "text")


def _script(text: str) -> str | None:
    """The language that the script tells by itself: not Latin, Cyrillic or Greek."""
    if text.isascii():
        return None
    letters = sum(map(str.isalpha, text))
    shares = {code: len(pattern.findall(text)) for code, pattern in _LETTERS.items()}
    if sum(shares.values()) < max(FEWEST_LETTERS, letters / 2):
        return None
    if shares["ja"] > _KANA_SHARE * letters:
        return "ja"
    best = max(shares, key=shares.__getitem__)
    return best if best not in STOP_WORDS else None


def _sample(text: str) -> str:
    """The text, or as much of its beginning, middle and end as tells its language."""
    if len(text) <= 3 * WINDOW:
        return text
    middle = len(text) // 2
    return " ".join((text[:WINDOW], text[middle : middle + WINDOW], text[-WINDOW:]))


class LanguageModel:
    """A fastText language model of the user's, read through datatrove's wrapper.

    Raises:
        UserError: the fasttext package is missing.
    """

    # With fewer words fastText guesses.
    FEWEST_WORDS = 6

    def __init__(self, path: str):
        try:
            from fasttext.FastText import _FastText
        except ImportError as error:
            raise UserError(
                f"language model {path} needs the fasttext package; install fasttext-numpy2-wheel"
            ) from error
        self._wrapper = FastTextLID(k=1)
        # The wrapper would download a model of its own; this is the place where it keeps one.
        self._wrapper._model = _FastText(path)

    def verdict(self, text: str) -> Verdict | None:
        """What the model says; None for a text too short to ask about."""
        if len(text.split()) < self.FEWEST_WORDS:
            return None
        sample = DatatroveDocument(text=text, id="")
        (code, score), _ = self._wrapper.predict(sample)
        # lid.176 says "en", GlotLID "eng_Latn".
        return Verdict(iso_639_1(code) or code, score, "model")
