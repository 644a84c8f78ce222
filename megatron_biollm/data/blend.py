"""Which source the i-th sample of a run comes from: a pure function of i.

A blend is walked down like a tree: the sources are halved, and of the first n samples of a node
floor(n * weight of its first half / its weight) go to the first half. In whole numbers this is
exact, needs no memory and no length, so a longer run continues the order of a shorter one. After
any number of samples each source is within the depth of the tree, log2 of the number of sources,
of its exact share.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Place:
    """source: its number in the blend. epoch: how often it has been gone through before.

    sample: the number of the sample within that epoch.
    """

    source: int
    epoch: int
    sample: int


class BlendedSamples:
    """Maps global sample indices to sources, epochs and samples.

    weights: relative, above 0; decimal strings, integers or fractions, taken exactly.
    sizes: samples in one epoch of each source. endless: after its last sample a source goes on
    with the next epoch (training); else with the first sample of the same one (evaluation).
    """

    def __init__(
        self, weights: Sequence[str | int | Fraction], sizes: Sequence[int], endless: bool = True
    ):
        exact = [Fraction(weight) for weight in weights]
        unit = math.lcm(*(weight.denominator for weight in exact))
        self.sizes = list(sizes)
        self.endless = endless
        self._sums = [0, *itertools.accumulate(int(weight * unit) for weight in exact)]

    def locate(self, index: int) -> Place:
        """Where sample `index` (0 or more) lies."""
        if index < 0:
            raise IndexError(f"sample index {index} is below 0; samples are numbered from 0")
        first, end = 0, len(self.sizes)
        while end - first > 1:
            middle = (first + end) // 2
            before = self._left(index, first, middle, end)
            if self._left(index + 1, first, middle, end) > before:
                index, end = before, middle
            else:
                index, first = index - before, middle
        epoch, sample = divmod(index, self.sizes[first])
        return Place(first, epoch if self.endless else 0, sample)

    def count(self, source: int, samples: int) -> int:
        """How many of the first `samples` samples come from `source`."""
        first, end = 0, len(self.sizes)
        while end - first > 1:
            middle = (first + end) // 2
            before = self._left(samples, first, middle, end)
            if source < middle:
                samples, end = before, middle
            else:
                samples, first = samples - before, middle
        return samples

    def _left(self, samples: int, first: int, middle: int, end: int) -> int:
        weight = self._sums[end] - self._sums[first]
        return samples * (self._sums[middle] - self._sums[first]) // weight
