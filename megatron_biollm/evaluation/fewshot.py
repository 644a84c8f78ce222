"""Examples for a prompt: drawn by a seed, the same for every item, and never the item itself."""

import random
from collections.abc import Sequence

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.items import AnyItem, ChoiceItem


class Examples:
    """Chooses the examples of an item.

    All items of a run have the same ones, but for those that would give an answer away: an example
    never has the item's text and, out of the split that is scored, never its document.

    Args:
        pool: items to draw from.
        count: examples of a prompt.
        seed: of the draw.
        same_split: the pool is the split that is scored.
        by_group: an item has examples of its own group (subject).

    Raises:
        UserError: the pool is too small.
    """

    def __init__(
        self,
        pool: Sequence[AnyItem],
        count: int,
        seed: int,
        same_split: bool = False,
        by_group: bool = False,
    ) -> None:
        self.count, self.same_split, self.by_group = count, same_split, by_group
        self.order = random.Random(seed).sample(list(pool), len(pool)) if count else []
        if count and len(pool) < count + same_split:
            raise UserError(
                f"{count} examples are asked for, and the split they come from has {len(pool)} "
                f"items; ask for fewer, or name another split"
            )

    def of(self, item: AnyItem) -> list[AnyItem]:
        """The examples of an item, always in the same order.

        Raises:
            UserError: too few are left.
        """
        found: list[AnyItem] = []
        for one in self.order:
            if len(found) == self.count:
                break
            if self._may_show(one, item):
                found.append(one)
        if len(found) < self.count:
            raise UserError(
                f"of {len(self.order)} items, {len(found)} may be examples for {item.id}, and "
                f"{self.count} are asked for; ask for fewer"
            )
        return found

    def _may_show(self, one: AnyItem, item: AnyItem) -> bool:
        if self.same_split and one.document == item.document:
            return False
        if self.by_group and getattr(one, "group", "") != getattr(item, "group", ""):
            return False
        return _key(one) != _key(item)


def _key(item: AnyItem) -> str:
    text = item.question if isinstance(item, ChoiceItem) else item.text
    return "".join(text.casefold().split())
