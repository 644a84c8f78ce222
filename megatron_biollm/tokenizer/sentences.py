"""Sentences of biomedical text: nltk's Punkt, with abbreviations learned from such text.

Punkt (Kiss and Strunk, 2006, https://aclanthology.org/J06-4003) knows the end of a sentence from
the full stop of an abbreviation by what it learned from plain text. nltk downloads what it learned
from newspapers; `biomedical_sentences.json` beside this file was learned by `learn_parameters` from
PubMed abstracts and open-access articles, and knows "i.v.", "et al." and "Fig.".
"""

from __future__ import annotations

import importlib.resources
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from megatron_biollm.config import UserError

BIOMEDICAL = "biomedical"

_FILE = "biomedical_sentences.json"
_LONGEST_PART = 1_000_000  # characters; Megatron-LM splits longer texts there, so we do
# What makes a word before a full stop an abbreviation (see `learn_parameters`).
_LEAST_COUNT, _LONGEST, _LONGEST_TITLE = 8, 8, 3
_GOES_ON, _WITH_STOP = 0.4, 0.3
_LEAST_STARTS = 200
_BEFORE_WORD = "([{'\"\u2018\u201c/"


@dataclass(frozen=True)
class SentenceSplitter:
    """A text to its sentences, as Megatron-LM's --split-sentences has it; picklable.

    lang: "biomedical", or a language whose Punkt data nltk finds on this machine.
    keep_newlines: white space after a sentence stays at its end, and nothing of the text is lost.
    """

    lang: str = BIOMEDICAL
    keep_newlines: bool = False

    def load(self) -> Callable[[str], list[str]]:
        """The splitting function.

        Raises:
            UserError: nltk or its data for the language is not there.
        """
        tokenizer = load_punkt(self.lang)
        if self.keep_newlines:
            punkt = _punkt()
            tokenizer = punkt.PunktSentenceTokenizer(tokenizer._params, lang_vars=_language(punkt))

        def split(text: str) -> list[str]:
            parts = range(0, len(text), _LONGEST_PART)
            return [s for i in parts for s in tokenizer.tokenize(text[i : i + _LONGEST_PART])]

        return split


def load_punkt(lang: str = BIOMEDICAL) -> Any:
    """nltk's sentence tokenizer with the parameters of a language.

    Raises:
        UserError: nltk or its data for the language is not there.
    """
    punkt = _punkt()
    if lang == BIOMEDICAL:
        parameters = punkt.PunktParameters()
        learned = biomedical_parameters()
        parameters.abbrev_types = set(learned["abbreviations"])
        parameters.sent_starters = set(learned["sentence_starters"])
        return punkt.PunktSentenceTokenizer(parameters)
    try:
        return punkt.PunktTokenizer(lang)
    except LookupError as error:
        raise UserError(
            f"nltk has no Punkt data for --lang {lang} on this machine; put its punkt_tab folder "
            f"into NLTK_DATA, or give --lang {BIOMEDICAL}, which comes with this package"
        ) from error


def biomedical_parameters() -> dict[str, list[str]]:
    """What `learn_parameters` found in biomedical text."""
    file = importlib.resources.files("megatron_biollm.tokenizer") / _FILE
    return json.loads(file.read_text(encoding="utf-8"))


def learn_parameters(texts: Iterable[str]) -> dict[str, list[str]]:
    """Abbreviations (lower case, without the last full stop) and words that begin sentences.

    Punkt's own measure finds "i.v." but not "al.", "Fig." and "vs.", which are written without a
    full stop as well. So a word of at most eight letters, seen eight times with a full stop, is an
    abbreviation if Punkt says so, or the text goes on behind it in two cases of five (a small
    letter or a digit), or it is short, capital and hardly ever without a full stop ("Dr.").

    texts: some MB in all, or nothing is learned.
    """
    trainer = _punkt().PunktTrainer()
    counts = _Counts()
    for text in texts:
        trainer.train(text, finalize=False)
        counts.add(text)
    trainer.finalize_training()
    found = trainer.get_params()
    words = {word for word in counts.stopped if word.replace(".", "").isascii()}
    return {
        "abbreviations": sorted(
            word for word in words if counts.is_abbreviation(word, word in found.abbrev_types)
        ),
        "sentence_starters": sorted(
            word
            for word in found.sent_starters
            if word.isalpha() and word.isascii() and counts.starts[word] >= _LEAST_STARTS
        ),
    }


class _Counts:
    """How words stand in a text.

    stopped: lower-case words before a full stop. followed: those with a word behind, goes_on:
    those of them behind which the sentence goes on. titles: capital words before a full stop. bare:
    words without one. starts: capital words behind a full stop, in lower case.
    """

    def __init__(self) -> None:
        self.stopped, self.followed, self.goes_on = Counter(), Counter(), Counter()
        self.titles, self.bare, self.starts = Counter(), Counter(), Counter()

    def add(self, text: str) -> None:
        words = [word.lstrip(_BEFORE_WORD) for word in text.split()]
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if not word.endswith("."):
                self.bare[word] += 1
                continue
            name = word[:-1].lower()
            self.stopped[name] += 1
            self.titles[name] += word[:1].isupper() and word[1:].islower()
            if following[:1].isalnum():
                self.followed[name] += 1
                self.goes_on[name] += following[0].islower() or following[0].isdigit()
                self.starts[following.lower()] += following[0].isupper()

    def is_abbreviation(self, word: str, by_punkt: bool) -> bool:
        letters = word.replace(".", "")
        if not letters.isalpha() or len(letters) > _LONGEST or self.stopped[word] < _LEAST_COUNT:
            return False
        return (
            by_punkt
            or self.goes_on[word] >= max(_GOES_ON * self.followed[word], _LEAST_COUNT)
            or self._is_title(word)
        )

    def _is_title(self, word: str) -> bool:
        with_stop, without = self.titles[word], self.bare[word.capitalize()]
        return (
            1 < len(word) <= _LONGEST_TITLE
            and with_stop >= _LEAST_COUNT
            and with_stop >= _WITH_STOP * (with_stop + without)
            and with_stop >= _WITH_STOP * self.stopped[word]
        )


def _punkt() -> Any:
    try:
        from nltk.tokenize import punkt
    except ImportError as error:
        raise UserError(
            "--split-sentences needs the package nltk: pip install nltk, or give each text as a "
            "JSON list of sentences"
        ) from error
    return punkt


def _language(punkt: Any) -> Any:
    """Punkt's rules, but a sentence keeps the white space after it.

    The rule is that of Megatron-LM's `CustomLanguageVars`, from
    https://stackoverflow.com/questions/33139531/preserve-empty-lines-with-nltks-punkt-tokenizer.
    """

    class KeepNewlines(punkt.PunktLanguageVars):
        _period_context_fmt = r"""
        \S*
        %(SentEndChars)s
        \s*
        (?=(?P<after_tok>
            %(NonWord)s
            |
            (?P<next_tok>\S+)
        ))"""

    return KeepNewlines()
