"""Which texts are worth learning from, each drop with its reason.

datatrove's filters are made for web pages. With their default limits, on samples of 80 to 600
documents of each source here, Gopher's quality rules drop 48 % of PubMed and 58 % of PMC articles
(spaCy takes % and = for words without letters), its repetition rules 80 % of the patents (claims
restate each other) and 44 % of the trials, and C4's a third of PubMed for want of five sentences,
all below 1 MB/s with spaCy's words. So only their counts of repetition are used, where zlib says
there may be any, and the limits here are set by what the sources hold: dose tables, gene lists and
laboratory panels stay.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from megatron_biollm.config import UserError, option
from megatron_biollm.corpus.clean.measures import Measures
from megatron_biollm.corpus.clean.notices import is_notice, is_retracted, is_without_content
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.steps import Drop

KEEP_OR_DROP = ("keep", "drop")
# Shares say little of fewer words than these.
FEWEST_WORDS = 20


@dataclass
class QualityConfig:
    """Limits beyond which a text is dropped. Shares lie between 0 and 1."""

    min_words: dict[str, int] = option(
        {
            "pubmed": 5,
            "pmc": 100,
            "clinical_trials": 10,
            "clinical_notes": 3,
            "patents": 40,
            "text": 5,
        },
        "fewest words by source; a title alone has 5 to 20",
    )
    max_characters: int = option(20_000_000, "longest text in characters; longer ones are dropped")
    min_letters: float = option(0.05, "least share of letters among visible characters")
    min_word_length: float = option(1.4, "least mean length of words in characters")
    max_word_length: float = option(15.0, "greatest mean length of words in characters")
    max_encoded: float = option(0.5, "greatest share of unbroken runs (base64, sequences)")
    max_residues: float = option(0.5, "greatest share of a sequence listing's words")
    max_broken: float = option(0.1, "most marks of bad scans or encodings per word")
    max_single_letters: float = option(0.35, "most letters standing alone per word")
    max_without_vowel: float = option(0.2, "most small-letter words without a vowel per word")
    max_tags: float = option(0.2, "most markup tags per word")
    max_repeated: float = option(0.8, "greatest share of characters in repeated lines or runs")
    retracted: str = option("drop", "keep or drop retracted articles")
    notices: str = option("drop", "keep or drop errata, retraction and withdrawal notices")
    licences: list[str] = option([], "licences that stay, by their first words (CC BY); empty: all")
    unknown_licence: str = option("keep", "with licences given: keep or drop where none is stated")

    def __post_init__(self) -> None:
        for name in ("retracted", "notices", "unknown_licence"):
            if getattr(self, name) not in KEEP_OR_DROP:
                raise UserError(f"{name} is {getattr(self, name)!r}; give keep or drop")
        for name, value in vars(self).items():
            if isinstance(value, int | float) and value < 0:
                raise UserError(f"{name} is {value}; a limit is 0 or more")


class QualityFilter:
    """Processor: keeps a document as it is, or drops it with the first reason that applies.

    Reasons, in this order: retracted, notice, licence, no_content, too_short, too_long,
    lorem_ipsum, markup, encoded, sequence_listing, few_letters, scattered_letters, word_length,
    broken_characters, gibberish, web_menu, repetition.
    """

    name = "quality"

    def __init__(self, config: QualityConfig):
        self.config = config
        self.tally: Counter[str] = Counter()

    def __call__(self, document: Document) -> Document | Drop:
        """The document itself, or why it goes."""
        measures = Measures(document.text)
        for judge in (self._by_origin, self._by_length, self._by_characters, self._by_repetition):
            if drop := judge(document, measures):
                return drop
        return document

    def _by_origin(self, document: Document, measures: Measures) -> Drop | None:
        config = self.config
        if config.retracted == "drop" and is_retracted(document):
            return Drop("retracted")
        if config.notices == "drop" and (notice := is_notice(document, len(measures.words))):
            return Drop("notice", notice)
        if config.licences and not _is_allowed(document.licence, config):
            return Drop("licence", document.licence or "none stated")
        return None

    def _by_length(self, document: Document, measures: Measures) -> Drop | None:
        fewest = self.config.min_words.get(document.source, self.config.min_words.get("text", 0))
        if is_without_content(document.text):
            return Drop("no_content", document.text[:100])
        if len(measures.words) < fewest:
            return Drop("too_short", f"{len(measures.words)} words, fewest {fewest}")
        if len(document.text) > self.config.max_characters:
            return Drop("too_long", f"{len(document.text)} characters")
        return None

    def _by_characters(self, document: Document, measures: Measures) -> Drop | None:
        if "orem ipsum dolor" in document.text:
            return Drop("lorem_ipsum")
        if measures.encoded > self.config.max_encoded:
            return Drop("encoded", f"{measures.encoded:.2f}")
        if len(measures.words) < FEWEST_WORDS:
            return None
        for reason, measure, least, most in self._limits():
            value = measure(measures)
            if not least <= value <= most:
                return Drop(reason, f"{value:.2f}")
        return Drop("web_menu") if is_web_menu(document.text) else None

    def _limits(self) -> list[tuple[str, Callable[[Measures], float], float, float]]:
        """Reason, measure, least and greatest value."""
        c = self.config
        return [
            ("markup", lambda m: m.tags, 0, c.max_tags),
            ("sequence_listing", lambda m: m.residues, 0, c.max_residues),
            ("few_letters", lambda m: m.letters, c.min_letters, 1),
            ("scattered_letters", lambda m: m.single_letters, 0, c.max_single_letters),
            ("word_length", lambda m: m.mean_word_length, c.min_word_length, c.max_word_length),
            ("broken_characters", lambda m: m.broken, 0, c.max_broken),
            ("gibberish", lambda m: m.without_vowel, 0, c.max_without_vowel),
        ]

    def _by_repetition(self, document: Document, measures: Measures) -> Drop | None:
        if len(measures.words) < FEWEST_WORDS or measures.compression < MAYBE_REPEATED:
            return None
        share = max(measures.repeated_lines, measures.repeated_words)
        return Drop("repetition", f"{share:.2f}") if share > self.config.max_repeated else None


# Texts that zlib makes less than this many times smaller repeat too little to matter.
MAYBE_REPEATED = 3.3

_MENU_WORDS = frozenset(
    (
        "home", "about", "about us", "contact", "contact us", "login", "log in", "sign in",
        "sign up", "register", "subscribe", "search", "menu", "site map", "sitemap", "help", "faq",
        "privacy policy", "terms of use", "terms and conditions", "cookie policy", "cookies",
        "accept cookies", "next", "previous", "back to top", "share", "tweet", "facebook",
        "twitter", "linkedin", "rss", "advertise", "careers", "news", "my account", "cart",
        "skip to main content", "skip to content", "print", "email this page", "read more",
    )
)  # fmt: skip
_MENU_ENTRIES = 5
_MENU_SHARE = 0.2
_ENTRY_ENDS = re.compile(r"\n| [|>»•] ")
# A menu has one of these; they are rare elsewhere.
_MENU_SIGNS = ("login", "log in", "sign in", "contact us", "privacy policy", "site map", "sitemap")


def is_web_menu(text: str) -> bool:
    """Whether at least five lines, and a fifth of all, are entries of a web page's menu."""
    low = text.lower()
    if not any(sign in low for sign in _MENU_SIGNS):
        return False
    lines = [line.strip(" \t|>»•*-") for line in _ENTRY_ENDS.split(low)]
    entries = [line for line in lines if line in _MENU_WORDS]
    return len(set(entries)) >= _MENU_ENTRIES and len(entries) >= _MENU_SHARE * len(lines)


def _is_allowed(licence: str | None, config: QualityConfig) -> bool:
    if licence is None:
        return config.unknown_licence == "keep"
    words = licence.lower().replace("-", " ").split()
    allowed = [name.lower().replace("-", " ").split() for name in config.licences]
    return any(words[: len(name)] == name for name in allowed)
