"""Sentences of a tokenised file, placed in the articles that they were taken from.

Papers score the tokenised versions of PubTator corpora. Their sentences, without white space, are
the articles' own letters, so that each sentence has its article, its original text, and its
mentions as characters of that text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmarks.bio import Tagged
from megatron_biollm.evaluation.benchmarks.pubtator import Article
from megatron_biollm.evaluation.items import Span


@dataclass(frozen=True)
class Placed:
    """A sentence in its article.

    Attributes:
        article: place in the list of articles.
        start: its first character in the article's text.
        end: after its last one.
        spans: its mentions, in characters of the article's text.
    """

    article: int
    start: int
    end: int
    spans: tuple[Span, ...]


class _Packed:
    """A text without white space, and where its letters were."""

    def __init__(self, text: str) -> None:
        self.places = [place for place, letter in enumerate(text) if not letter.isspace()]
        self.letters = "".join(text[place] for place in self.places)


def place(sentences: Sequence[Tagged], articles: Sequence[Article]) -> Iterator[Placed]:
    """Finds each sentence, where articles are in any order and each goes on to its end.

    Raises:
        UserError: a sentence begins no article and goes on with none.
    """
    packed = [_Packed(article.text) for article in articles]
    waiting = list(range(len(articles)))
    current, position = -1, 0
    for sentence in sentences:
        letters = sentence.packed
        if current < 0 or position == len(packed[current].letters):
            current, position = _beginning_with(letters, packed, waiting), 0
        if current < 0 or not packed[current].letters.startswith(letters, position):
            raise UserError(
                f"{sentence.where}: no article goes on with {' '.join(sentence.tokens)!r:.80}; "
                f"the sentences and the articles must be of the same split"
            )
        yield _placed(sentence, current, packed[current].places, position)
        position += len(letters)


def _beginning_with(letters: str, packed: Sequence[_Packed], waiting: list[int]) -> int:
    for article in waiting:
        if packed[article].letters.startswith(letters):
            waiting.remove(article)
            return article
    return -1


def _placed(sentence: Tagged, article: int, places: Sequence[int], position: int) -> Placed:
    starts, ends = [], []
    first = position
    for token in sentence.tokens:
        starts.append(places[position])
        position += len("".join(token.split()))
        ends.append(places[position - 1] + 1)
    return Placed(article, places[first], ends[-1], sentence.spans(starts, ends))


def widened(sentences: Sequence[Placed], spans: Sequence[Span]) -> list[Placed]:
    """The sentences of one article with other mentions, joined where one crosses their bounds."""
    bounds: list[list[int]] = []
    for sentence in sentences:
        joins = bounds and any(
            one.start < bounds[-1][1] and one.end > sentence.start for one in spans
        )
        if joins:
            bounds[-1][1] = sentence.end
        else:
            bounds.append([sentence.start, sentence.end])
    return [
        Placed(sentences[0].article, start, end, _within(spans, start, end))
        for start, end in bounds
    ]


def _crossed(spans: Sequence[Span], end: int, start: int) -> bool:
    """Whether a mention begins before the end of one sentence and ends in the next."""
    return any(one.start < end and one.end > start for one in spans)


def _within(spans: Sequence[Span], start: int, end: int) -> tuple[Span, ...]:
    return tuple(sorted({one for one in spans if start <= one.start and one.end <= end}))
