"""PubTator articles as documents whose relations between normalised entities are sought."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from megatron_biollm.evaluation.benchmark import Convention
from megatron_biollm.evaluation.benchmarks.pubtator import Article, Mention
from megatron_biollm.evaluation.items import Triple, TripleItem

ENTITIES = Convention(
    "entities",
    ("given", "found"),
    "given: the document's entities follow it, as where relations alone are scored; found: the "
    "text alone is shown",
)
# The identifiers of a mention, none where it is not normalised.
Identifiers = Callable[[Mention], Sequence[str]]


def document(
    article: Article,
    triples: Sequence[Triple],
    relations: tuple[str, ...],
    identifiers: Identifiers,
    entities: str,
) -> TripleItem:
    """An article as an item.

    Args:
        triples: that are sought, by identifiers.
        relations: that there may be.
        identifiers: of a mention.
        entities: a value of `ENTITIES`.
    """
    names = entity_names(article, identifiers)
    text = article.text
    if entities == "given":
        _tell_apart(names)
        text = "\n".join([text, "", "Entities:", *_listed(article, names, identifiers)])
    return TripleItem(
        article.pmid,
        article.pmid,
        text,
        tuple(dict.fromkeys(triples)),
        tuple((key, tuple(some)) for key, some in names.items()),
        relations,
    )


def entity_names(article: Article, identifiers: Identifiers) -> dict[str, list[str]]:
    """Of each entity, what the text calls it; a mention may be of several entities."""
    names: dict[str, list[str]] = {}
    for mention in article.mentions:
        for key in identifiers(mention):
            known = names.setdefault(key, [])
            if mention.text not in known:
                known.append(mention.text)
    return names


def _tell_apart(names: dict[str, list[str]]) -> None:
    """Gives entities that share all their names one more, with their identifier."""
    entities = Counter(name.casefold() for some in names.values() for name in set(some))
    for key, some in names.items():
        if all(entities[name.casefold()] > 1 for name in some):
            some.append(f"{some[0]} [{key}]")


def _listed(
    article: Article, names: dict[str, list[str]], identifiers: Identifiers
) -> Iterator[str]:
    """A line for each entity: its type, a tab, and its names."""
    kinds = {key: mention.type for mention in article.mentions for key in identifiers(mention)}
    for key, some in names.items():
        yield f"{kinds[key]}\t{'; '.join(some)}"
