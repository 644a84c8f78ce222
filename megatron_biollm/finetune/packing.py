"""Which conversations share a row of tokens: best-fit decreasing, the same on every machine.

The longest conversations go first, each into the row with the least room that still takes it, else
into a new one. Best-fit decreasing needs at most 11/9 of the fewest rows possible, and 4 more
(Johnson et al. 1974, https://doi.org/10.1137/0203025). Which of several equally long conversations
goes where makes no difference to the rows' lengths, so that every epoch has as many rows as the
last, of other mixtures.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Packs:
    """Rows of places. Place r is that of the r-th longest item.

    places: int64 [items], the places of row 0, then those of row 1, ...
    bounds: int64 [rows + 1], where each row begins in `places`.
    """

    places: np.ndarray
    bounds: np.ndarray

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.places[self.bounds[row] : self.bounds[row + 1]]


def best_fit(lengths: np.ndarray, capacity: int) -> Packs:
    """Packs items into rows.

    Args:
        lengths: of the items, each from 0 to `capacity`.
        capacity: of a row.
    """
    room: list[int] = []  # left in each row
    rows_with = [[] for _ in range(capacity + 1)]  # rows by the room that is left
    # Bit n is set where a row has room n: the row with the least room that takes an item is that
    # of the lowest bit from the item's length on, found in a few machine words.
    rooms = 0
    row_of = np.empty(len(lengths), np.int64)
    for place, length in enumerate(np.sort(lengths)[::-1].tolist()):
        enough = rooms >> length
        if enough:
            found = length + (enough & -enough).bit_length() - 1
            row = rows_with[found].pop()
            if not rows_with[found]:
                rooms ^= 1 << found
        else:
            row = len(room)
            room.append(capacity)
        room[row] -= length
        rows_with[room[row]].append(row)
        rooms |= 1 << room[row]
        row_of[place] = row
    return _grouped(row_of, len(room))


def one_each(count: int) -> Packs:
    """Every item in a row of its own."""
    return _grouped(np.arange(count), count)


@dataclass(frozen=True)
class EpochOrder:
    """What the rows of one epoch hold: `order[i]` is the items (int64) of its i-th row.

    packs: the same in every epoch. items: int64 [items], which item has each place.
    rows: int64 [rows], which row comes at each turn.
    """

    packs: Packs
    items: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.items[self.packs[self.rows[index]]]


def epoch_order(packs: Packs, lengths: np.ndarray, seed: int, epoch: int) -> EpochOrder:
    """The order of an epoch, by the seed and its number alone.

    Items of equal length change places from epoch to epoch, and rows their order.

    lengths: those that `packs` was made from.
    """
    random = np.random.default_rng([seed, epoch])
    drawn = random.permutation(len(lengths))
    items = drawn[np.argsort(-lengths[drawn], kind="stable")]
    return EpochOrder(packs, items, random.permutation(len(packs)))


def _grouped(row_of: np.ndarray, rows: int) -> Packs:
    bounds = np.zeros(rows + 1, np.int64)
    np.cumsum(np.bincount(row_of, minlength=rows), out=bounds[1:])
    return Packs(np.argsort(row_of, kind="stable"), bounds)
