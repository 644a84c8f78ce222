"""Text as it should be learnt: one form of every character, and only what the author wrote.

Nothing here changes a number, a dose, a unit or a gene's name. What each rule takes away or mends
is counted under its name. Cleaning a clean text changes nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Optional

from megatron_biollm.config import option
from megatron_biollm.corpus.clean import characters, furniture, references, rights
from megatron_biollm.corpus.clean.edits import Edit, in_order, tighten
from megatron_biollm.corpus.clean.hyphens import hyphenation
from megatron_biollm.corpus.clean.spaces import white_space
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.steps import Drop

# One rule may uncover work for an earlier one (an escaped tag); what is nested deeper is no text.
ROUNDS = 4
# These uncover nothing for the rules before them.
QUIET = frozenset({"line_breaks", "odd_spaces", "ligatures", "composed", "white_space"})


@dataclass
class NormaliseConfig:
    """What cleaning does beside Unicode, controls and white space, which are always put right."""

    mojibake: bool = option(True, "mend UTF-8 that was read as another encoding (ftfy)")
    markup: bool = option(True, "resolve HTML escapes and inline tags that stayed in the text")
    hyphenation: bool = option(True, "join words broken at line ends where the text shows them")
    furniture: bool = option(True, "cut page heads, links, addresses and declarations of form")
    copyright: bool = option(True, "cut copyright and licence notices")
    references: bool = option(True, "cut lists of references")
    citations: bool = option(False, "cut citation numbers such as [3, 5-7] in articles")
    formal_sections: list[str] = option(
        [
            "acknowledgements",
            "acknowledgments",
            "authors' contributions",
            "author contributions",
            "competing interests",
            "conflict of interest",
            "conflicts of interest",
            "electronic supplementary material",
            "pre-publication history",
            "publisher's note",
            "references",
        ],
        "sections of articles that are cut whole, by name in lower case",
    )
    articles: list[str] = option(
        ["pubmed", "pmc", "text"],
        "sources that journals print: furniture, notices, references and citations are cut there",
    )


@dataclass(frozen=True)
class Rule:
    """One kind of edit.

    name: what it is counted under. setting: the field of `NormaliseConfig` that turns it on; None
    for always. in_articles_only: notes, trials and patents have no journal's furniture, and a line
    with a telephone number there belongs to the text.
    """

    name: str
    find: Callable[[Document], Iterable[Edit]]
    setting: Optional[str] = None
    in_articles_only: bool = False


def _of_text(find: Callable[[str], Iterable[Edit]], document: Document) -> Iterable[Edit]:
    return find(document.text)


def _rule(find: Callable[[str], Iterable[Edit]], *settings) -> Rule:
    return Rule(find.__name__, partial(_of_text, find), *settings)


# In this order: each works on what the one before left.
RULES = (
    _rule(characters.line_breaks),
    _rule(characters.entities, "markup"),
    _rule(characters.tags, "markup"),
    _rule(characters.mojibake, "mojibake"),
    _rule(characters.controls),
    _rule(characters.soft_hyphens),
    _rule(characters.invisible),
    _rule(characters.odd_spaces),
    _rule(characters.ligatures),
    _rule(characters.composed),
    _rule(furniture.page_heads, "furniture", True),
    _rule(furniture.form_feeds),
    _rule(white_space),
    _rule(hyphenation, "hyphenation"),
    _rule(furniture.furniture_lines, "furniture", True),
    *(
        Rule(name, partial(_of_text, partial(furniture.phrases, name)), "furniture", True)
        for name in furniture.PHRASES
    ),
    _rule(rights.truncation_marks, "furniture", True),
    _rule(rights.copyright_notices, "copyright", True),
    Rule("references", references.reference_lists, "references", True),
    _rule(references.citation_numbers, "citations", True),
    _rule(white_space),
)


class Normaliser:
    """Processor: cleans a document's text and moves its section marks along.

    tally: edits by rule, and the documents that were changed.
    """

    name = "normalise"

    def __init__(self, config: NormaliseConfig):
        self.tally: Counter[str] = Counter()
        cut = partial(references.sections_named, frozenset(config.formal_sections))
        rules = [r for r in RULES if r.setting is None or getattr(config, r.setting)]
        rules.insert(0, Rule("formal_sections", cut, in_articles_only=True))
        self._articles = frozenset(config.articles)
        self._article_rules = tuple(rules)
        self._other_rules = tuple(r for r in rules if not r.in_articles_only)

    def __call__(self, document: Document) -> Document | Drop:
        """The clean document, or a drop where nothing but furniture was in it."""
        clean = self._clean(document)
        if not clean.text:
            return Drop("only_boilerplate", document.text[:100])
        if clean is document:
            return document
        self.tally["documents_changed"] += 1
        return tighten(clean)

    def _clean(self, document: Document) -> Document:
        rules = self._article_rules if document.source in self._articles else self._other_rules
        for _ in range(ROUNDS):
            fired = set()
            for rule in rules:
                if edits := in_order(rule.find(document)):
                    fired.add(rule.name)
                    self.tally[rule.name] += len(edits)
                    document = document.edit(edits)
            if fired <= QUIET:
                break
        return document
