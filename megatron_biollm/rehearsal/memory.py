"""Every allocation and release of a rehearsed rank, and what lay in memory at the worst moment.

Memory is counted by storages: the bytes that torch asks an allocator for, whatever tensors share
them. A GPU adds what torch does not see (CUDA's context, NCCL's buffers, the libraries' work
space) and the allocator's rounding.
"""

import weakref
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial

import torch

# What a storage is for, by when it is allocated and how long it lives.
CATEGORIES = ("weights", "gradients", "optimizer", "activations", "temporary")


@dataclass(frozen=True)
class PeakMemory:
    """Bytes at the moment of the peak.

    Attributes:
        weights: parameters of the model chunks.
        gradients: main gradients.
        optimizer: master weights and moments.
        activations: what lives from one forward or backward pass to another; tensors between
            stages included.
        temporary: the rest: work of the moment, and buffers that core keeps for it.
        when: the part of the step.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    temporary: int
    when: str

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, name) for name in CATEGORIES)

    def row(self) -> dict[str, int | str]:
        """For JSON."""
        return {**asdict(self), "total": self.total}


@dataclass
class _Block:
    size: int
    span: int
    category: str | None = None
    freed_in: int | None = None


class MemoryLog:
    """Storages as they come and go, in order, cut into spans.

    A span is a forward pass, a backward pass, an optimizer step, or what lies between two of them.
    """

    def __init__(self) -> None:
        self.blocks: list[_Block] = []
        self.events: list[int] = []  # block + 1 where it comes, -(block + 1) where it goes
        self.spans: list[tuple[str, int]] = [("build", 0)]  # name, first event
        self._alive: dict[int, tuple[int, weakref.ref]] = {}

    @property
    def live(self) -> int:
        """Bytes alive now."""
        return sum(self.blocks[block].size for block, _ in self._alive.values())

    def saw(self, storage: torch.UntypedStorage) -> None:
        """Takes note of a storage if it is new."""
        key = storage._cdata
        if key in self._alive:
            return
        self.blocks.append(_Block(storage.nbytes(), len(self.spans) - 1))
        self.events.append(len(self.blocks))
        self._alive[key] = (len(self.blocks) - 1, weakref.ref(storage, partial(self._gone, key)))

    def span(self, name: str) -> int:
        """Begins a span; returns its number."""
        self.spans.append((name, len(self.events)))
        return len(self.spans) - 1

    def assign(self, tensor: torch.Tensor, category: str) -> None:
        """Says what a tensor's storage is for."""
        self.saw(tensor.untyped_storage())
        self.blocks[self._alive[tensor.untyped_storage()._cdata][0]].category = category

    def assign_rest(self, category: str) -> None:
        """Says what everything that is alive and has no category yet is for."""
        for block, _ in self._alive.values():
            if self.blocks[block].category is None:
                self.blocks[block].category = category

    def peak(self, first_span: int, last_span: int | None = None) -> PeakMemory:
        """The worst moment of some spans; later ones decide what lived on.

        Args:
            first_span: number of the first.
            last_span: number of the one after the last; None goes to the end.
        """
        start = self.spans[first_span][1]
        stop = self.spans[last_span][1] if last_span is not None else len(self.events)
        worst, at = self._worst(start, stop)
        alive = self._alive_after(at)
        bytes_of = Counter()
        for block in alive:
            bytes_of[self._category(self.blocks[block])] += self.blocks[block].size
        assert sum(bytes_of.values()) == worst
        sizes = {name: bytes_of[name] for name in CATEGORIES}
        return PeakMemory(**sizes, when=self._span_at(at))

    def _gone(self, key: int, _: weakref.ref) -> None:
        block = self._alive.pop(key)[0]
        self.blocks[block].freed_in = len(self.spans) - 1
        self.events.append(-block - 1)

    def _sum_before(self, stop: int) -> int:
        return sum(self._change(event) for event in self.events[:stop])

    def _worst(self, start: int, stop: int) -> tuple[int, int]:
        """Most bytes alive in a range of events, and how many events lead up to it."""
        now = worst = self._sum_before(start)
        at = start
        for index in range(start, stop):
            now += self._change(self.events[index])
            if now > worst:
                worst, at = now, index + 1
        return worst, at

    def _change(self, event: int) -> int:
        return self.blocks[event - 1].size if event > 0 else -self.blocks[-event - 1].size

    def _alive_after(self, events: int) -> set[int]:
        alive: set[int] = set()
        for event in self.events[:events]:
            if event > 0:
                alive.add(event - 1)
            else:
                alive.discard(-event - 1)
        return alive

    def _category(self, block: _Block) -> str:
        if block.category is not None:
            return block.category
        lived_on = block.freed_in is not None and block.freed_in != block.span
        return "activations" if lived_on else "temporary"

    def _span_at(self, events: int) -> str:
        before = [name for name, first in self.spans if first < max(events, 1)]
        return before[-1]
