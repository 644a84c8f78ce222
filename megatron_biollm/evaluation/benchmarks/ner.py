"""What the benchmarks of named entities share: sentences as items, prompts, conventions."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from megatron_biollm.evaluation.benchmark import Convention, Conventions, Prompt, Source
from megatron_biollm.evaluation.benchmarks.bio import read_tagged
from megatron_biollm.evaluation.benchmarks.placed import Placed, place, widened
from megatron_biollm.evaluation.benchmarks.pubtator import Article, read_pubtator
from megatron_biollm.evaluation.entities import span_tally
from megatron_biollm.evaluation.items import Prediction, Span, SpanItem
from megatron_biollm.evaluation.tally import Tally

MENTIONS = Convention(
    "mentions",
    ("bio", "pubtator"),
    "bio: the mentions of the tokenised version, as papers score them; pubtator: all of the "
    "original file, nested ones too",
)


def ner_prompt(what: str, types: Sequence[str]) -> Prompt:
    """How the mentions of a sentence are asked for.

    Args:
        what: is sought, in the plural.
        types: as they begin a line.
    """
    kinds = types[0] if len(types) == 1 else f"one of {', '.join(types)}"
    form = f"{kinds}, a tab, and the mention exactly as it is written"
    return Prompt(
        f"Find all mentions of {what} in the sentence. Write one line for each: {form}. "
        f"Write none if there are none.",
        (
            f"Which {what} does the sentence mention? Answer with one line for each mention: "
            f"{form}. If it mentions none, answer none.",
            f"Extract the names of {what} from the following sentence, one on each line, as "
            f"{form}. A sentence without any gets the answer none.",
        ),
    )


def score_spans(
    items: Sequence[SpanItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """Strict scores; conventions have no part in them."""
    return span_tally(items, predictions)


def read_placed(
    source: Source, conventions: Conventions, kinds: Mapping[str, str]
) -> list[SpanItem]:
    """The sentences of PubTator articles, as their tokenised version has them.

    Args:
        source: with the files `abstracts` (PubTator text) and `sentences` (tokens and tags).
        conventions: with `mentions`.
        kinds: types of the original file that are sought, and what tags and items call them.

    Raises:
        UserError: a file is missing or of another format, or the two are of different splits.
    """
    articles = read_pubtator(source.path("abstracts"))
    types = tuple(dict.fromkeys(kinds.values()))
    placed = list(place(read_tagged(source.path("sentences"), types), articles))
    if conventions["mentions"] == "pubtator":
        placed = list(_with_original_mentions(placed, articles, kinds))
    numbers = Counter[str]()
    items = []
    for one in placed:
        article = articles[one.article]
        numbers[article.pmid] += 1
        text = article.text[one.start : one.end]
        name = f"{article.pmid}.{numbers[article.pmid]}"
        items.append(SpanItem(name, article.pmid, text, _shifted(one), types=types))
    return items


def _with_original_mentions(
    placed: Sequence[Placed], articles: Sequence[Article], kinds: Mapping[str, str]
) -> Iterator[Placed]:
    for article, sentences in groupby(placed, key=lambda one: one.article):
        spans = [
            Span(one.start, one.end, kinds[one.type])
            for one in articles[article].mentions
            if one.type in kinds
        ]
        yield from widened(list(sentences), spans)


def _shifted(one: Placed) -> tuple[Span, ...]:
    return tuple(
        Span(span.start - one.start, span.end - one.start, span.type) for span in one.spans
    )
