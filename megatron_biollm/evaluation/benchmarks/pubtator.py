"""PubTator text: titles, abstracts, mentions and relations of PubMed articles.

Of each article: `pmid|t|title`, `pmid|a|abstract`, then lines with tabs between: mentions
(pmid, start, end, text, type, identifier, ...), whose offsets count characters of the title, one
space and the abstract, and relations (pmid, relation, first, second, and in BioRED `Novel` or
`No`). The format: https://www.ncbi.nlm.nih.gov/CBBresearch/Lu/Demo/PubTator/help.html
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.files import read_text

_TEXT = re.compile(r"(\d+)\|([ta])\|(.*)", re.DOTALL)
_LEAST_COLUMNS = 4


@dataclass(frozen=True)
class Mention:
    """Characters `start` to `end` (exclusive) of an article's text."""

    start: int
    end: int
    text: str
    type: str
    identifier: str


@dataclass
class Article:
    """One article.

    Attributes:
        relations: (relation, first identifier, second identifier, whatever follows...).
    """

    pmid: str
    title: str
    abstract: str = ""
    mentions: list[Mention] = field(default_factory=list)
    relations: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Title and abstract, as offsets count them."""
        return f"{self.title} {self.abstract}"

    def add(self, mention: Mention, where: str) -> None:
        """Adds a mention. White space may differ: one of the published files has it so.

        Raises:
            UserError: its text is not the one at its place.
        """
        found = self.text[mention.start : mention.end]
        if mention.start < 0 or found.split() != mention.text.split():
            raise UserError(
                f"{where}: {mention.text!r} is said to be at {mention.start}-{mention.end} of "
                f"article {self.pmid}, where {found!r:.80} is; the file is not the published one"
            )
        self.mentions.append(mention)


def read_pubtator(path: Path) -> list[Article]:
    """The articles of a file, in its order.

    Raises:
        UserError: it cannot be read, a line is none of the format's, a mention's text is not the
            one at its place, or there is no article.
    """
    articles = list(_articles(path))
    if not articles:
        raise UserError(f"{path} has no article; in PubTator text the first line is pmid|t|title")
    return articles


def _articles(path: Path) -> Iterator[Article]:
    article = None
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line, where = line.rstrip("\r"), f"{path}:{number}"
        if text := _TEXT.fullmatch(line):
            if text[2] == "t":
                if article:
                    yield article
                article = Article(text[1], text[3])
            else:
                _of(article, text[1], where).abstract = text[3]
        elif line.strip():
            _add_row(article, line.split("\t"), where)
    if article:
        yield article


def _of(article: Article | None, pmid: str, where: str) -> Article:
    if article is None or article.pmid != pmid:
        raise UserError(f"{where} is of article {pmid}, whose title (pmid|t|title) must come first")
    return article


def _add_row(article: Article | None, row: list[str], where: str) -> None:
    if len(row) < _LEAST_COLUMNS:
        raise UserError(f"{where} is {row!r:.80}; it must be a mention or a relation, with tabs")
    article = _of(article, row[0], where)
    if row[1].isdigit() and row[2].isdigit() and len(row) > _LEAST_COLUMNS:
        identifier = row[5].strip() if len(row) > 5 else ""
        article.add(Mention(int(row[1]), int(row[2]), row[3], row[4].strip(), identifier), where)
    elif row[1].isdigit():
        raise UserError(f"{where} is {row!r:.80}; a mention is pmid, start, end, text, type, id")
    else:
        article.relations.append(tuple(part.strip() for part in row[1:]))
