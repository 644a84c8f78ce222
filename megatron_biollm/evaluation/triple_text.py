"""Relations as a language model writes them: one line each, its parts with tabs between, or `none`.

The parts are the two entities by a name, the relation, and where it is asked `Novel` or `No`.
Marks of a list before a line are passed over, and bars between the parts are as good as tabs.
"""

import re
from collections import Counter

from megatron_biollm.evaluation.items import Triple, TripleItem

NONE = "none"
_BULLET = re.compile(r"(?:[-*•]|\d+[.)])\s+")
_BAR = re.compile(r"\||\\t")


def write_triples(item: TripleItem) -> str:
    """The relations of an item, entities by a name that no other has, where there is one."""
    shared = Counter(_key(name) for _, names in item.names for name in set(map(_key, names)))
    chosen = {
        entity: min(names, key=lambda name: shared[_key(name)], default=entity)
        for entity, names in item.names
    }
    lines = [
        "\t".join((chosen.get(first, first), chosen.get(second, second), *rest))
        for first, second, *rest in item.triples
    ]
    return "\n".join(dict.fromkeys(lines)) or NONE


def _key(name: str) -> str:
    return "".join(name.split()).casefold()


def read_triples(text: str, item: TripleItem) -> tuple[Triple, ...] | None:
    """The relations that a text tells, entities as the item calls them; None where none is read.

    A name that the item does not know stays as it is. Lines of other relations than the item's
    say nothing.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    entities = _entities(item)
    relations = {_key(one): one for one in item.relations}
    told = [triple for line in lines if (triple := _read_line(line, entities, relations))]
    if not told and NONE not in [line.casefold().rstrip(".") for line in lines]:
        return None
    return tuple(dict.fromkeys(told))


def _entities(item: TripleItem) -> dict[str, str]:
    """Entities by name; of a name that several have, the first of them."""
    entities: dict[str, str] = {}
    for entity, names in item.names:
        for name in names:
            entities.setdefault(_key(name), entity)
    return entities


def _read_line(line: str, entities: dict[str, str], relations: dict[str, str]) -> Triple | None:
    line = _BULLET.sub("", line, count=1) if _BULLET.match(line) else line
    parts = [part.strip() for part in (line.split("\t") if "\t" in line else _BAR.split(line))]
    if len(parts) not in (3, 4) or not all(parts):
        return None
    first, second, relation, *rest = parts
    if relations and _key(relation) not in relations:
        return None
    first, second = (entities.get(_key(name), name) for name in (first, second))
    return (first, second, relations.get(_key(relation), relation), *rest)
