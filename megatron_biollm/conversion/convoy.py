"""The parts of a conversion side by side along the weights of a model, close to each other.

Converting, checking digests, computing logits on both sides and forcing to the disk all go through
the weights in the order of computation. Done one after the other they would read everything from
the disk again, and fill the machine's memory with files that nobody needs any more, for which
whoever runs beside pays. Side by side each weight is read from the disk once and leaves the memory
as soon as all have passed it.

A weight's index is its place in the order of computation.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

from megatron_biollm.conversion.names import megatron_shape, weights
from megatron_biollm.model.config import ModelConfig

# Of weights that the conversion may be ahead of what has been dropped: what it gets done while the
# libraries of the parity check are loaded, and the largest weight of a 70B model.
AHEAD_BYTES = 2**30


class Stopped(Exception):
    """Another part failed; its error is the one to tell."""


@dataclass(frozen=True)
class Route:
    """The weights to pass, in order: `names[i]` are all names of weight i, on both sides.

    sizes: bytes of each. vectors: indices of those that are read ahead of their turn.
    """

    names: Sequence[Sequence[str]]
    sizes: Sequence[int]
    vectors: frozenset[int]

    @classmethod
    def of(cls, sizes: ModelConfig, itemsize: int) -> "Route":
        """The route through a model."""
        every = list(weights(sizes.num_layers))
        shapes = [megatron_shape(weight.mapping, sizes) for weight in every]
        return cls(
            [(weight.megatron, *weight.parts) for weight in every],
            [itemsize * math.prod(shape) for shape in shapes],
            frozenset(i for i, shape in enumerate(shapes) if len(shape) == 1),
        )


class Convoy:
    """Who is where: the converter a little ahead of the slowest, no follower ahead of it.

    followers: names of the parts that read what was converted. on_passed: called with the index of
    every weight that all followers have behind them, once; whoever drops its pages then says so
    with `dropped`.
    """

    def __init__(
        self,
        route: Route,
        followers: Sequence[str],
        on_passed: Callable[[int], None],
        ahead: int = AHEAD_BYTES,
    ):
        self.count, self.ahead, self.on_passed = len(route.sizes), ahead, on_passed
        self.ends = [0, *accumulate(route.sizes)]
        self.index = {name: i for i, names in enumerate(route.names) for name in names}
        self.vectors = route.vectors
        self.at = dict.fromkeys(followers, 0)
        self.wanted = dict.fromkeys(followers, 0)
        self.converted = self.passed = self.gone = 0
        self.stopped = self.ended = False
        self.changed = threading.Condition()

    def arrive(self, follower: str, name: str) -> None:
        """Waits until the weight of that name is converted; all matrices before it are behind.

        Raises:
            Stopped: it never will be.
        """
        index = self.index[name]
        with self.changed:
            self.wanted[follower] = index
            if index not in self.vectors:
                self.at[follower] = max(self.at[follower], index)
                self._pass()
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.stopped or self.converted > index)
            if self.stopped:
                raise Stopped

    def lead(self, follower: str, index: int) -> None:
        """For who reads what is going to be converted: begins with a weight, once it is near.

        Raises:
            Stopped: the whole conversion was ended from outside.
        """
        with self.changed:
            self.at[follower] = self.wanted[follower] = index
            self._pass()
            self.changed.wait_for(lambda: self.stopped or self._near(index, self.converted))
            if self.ended:
                raise Stopped

    def leave(self, follower: str) -> None:
        """It is at the end."""
        with self.changed:
            self.at[follower] = self.wanted[follower] = self.count
            self._pass()

    def convert(self, count: int) -> None:
        """The first `count` weights are converted; waits while that is too far ahead.

        Raises:
            Stopped: another part failed.
        """
        with self.changed:
            self.converted = count
            self.changed.notify_all()
            self.changed.wait_for(
                lambda: self.stopped or self._near(self.converted, self.gone) or self._starving()
            )
            if self.stopped:
                raise Stopped

    def dropped(self, count: int) -> None:
        """The first `count` weights are on the disk and no longer in memory; told in any order."""
        with self.changed:
            self.gone = max(self.gone, count)
            self.changed.notify_all()

    @contextmanager
    def follower(self, name: str) -> Iterator[None]:
        """Around all that a follower does."""
        try:
            yield
        except BaseException:
            self.stop()
            raise
        self.leave(name)

    def stop(self, at_once: bool = False) -> None:
        """Ends all waiting; `at_once` also ends those that would go on without waiting."""
        with self.changed:
            self.stopped, self.ended = True, self.ended or at_once
            self.changed.notify_all()

    def _near(self, index: int, behind: int) -> bool:
        return self.ends[index] - self.ends[min(index, behind)] <= self.ahead

    def _starving(self) -> bool:
        """Somebody waits for a vector that lies further on than the matrices still to be passed."""
        return any(
            wanted >= self.converted and wanted > self.at[name]
            for name, wanted in self.wanted.items()
        )

    def _pass(self) -> None:
        slowest = min(self.at.values())
        while self.passed < slowest:
            self.on_passed(self.passed)
            self.passed += 1
        self.changed.notify_all()
