"""Matrix products with weights that stay on the disk: a few rows in memory at a time."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from megatron_biollm.conversion.blocks import Scratch

# Of a weight in fp32: such a block stays in a processor's cache between its cast and its product.
PARITY_BLOCK_BYTES = 2 * 2**20

# Fills a tensor [rows, ...] with the rows of a weight from an index on.
ReadRows = Callable[[Tensor, int], None]


class Blockwise:
    """Runs a function over blocks of rows: one after the other, or on several threads.

    Each thread has memory of its own for a block, and uses it again for the next one: freed blocks
    of this size would stay with the process, and new ones cost more than the reading.
    """

    def __init__(
        self, pool: ThreadPoolExecutor | None = None, block_bytes: int = PARITY_BLOCK_BYTES
    ):
        self.map, self.block_bytes = map if pool is None else pool.map, block_bytes
        self.local = threading.local()

    def run(self, rows: int, columns: int, function: Callable[[int, int, int], None]) -> int:
        """Calls `function(number, start, stop)` for every block; returns how many there are.

        The threads change no block, so the numbers do not depend on them.
        """
        step = max(1, self.block_bytes // (4 * columns))
        starts = range(0, rows, step)

        def block(number: int) -> None:
            with torch.inference_mode():  # known to this thread alone
                function(number, starts[number], min(starts[number] + step, rows))

        for _ in self.map(block, range(len(starts))):
            pass
        return len(starts)

    def memory(self, name: str) -> Scratch:
        """This thread's memory of that name."""
        if not hasattr(self.local, name):
            setattr(self.local, name, Scratch())
        return getattr(self.local, name)


@contextmanager
def blockwise(workers: int, block_bytes: int = PARITY_BLOCK_BYTES) -> Iterator[Blockwise]:
    """Blocks on `workers` threads: reading, casting and multiplying all leave Python's lock."""
    if workers == 1:
        yield Blockwise(None, block_bytes)
        return
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield Blockwise(pool, block_bytes)


class StoredMatrix:
    """A weight on the disk, as fp32 a block of rows at a time.

    shape: [rows, columns], where fewer than the stored rows may be meant. dtype: as stored.
    rounded_to: dtype that the other side was written in, where it is not the stored one.
    """

    def __init__(
        self,
        read: ReadRows,
        shape: tuple[int, int],
        dtype: torch.dtype,
        rounded_to: torch.dtype | None,
        blocks: Blockwise,
    ):
        self.read, self.shape, self.dtype = read, shape, dtype
        self.rounded_to, self.blocks = rounded_to or dtype, blocks

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop`, until this thread asks for others."""
        shape = (stop - start, *self.shape[1:])
        stored = self.blocks.memory("stored").take(shape, self.dtype)
        self.read(stored, start)
        exact = self.blocks.memory("exact").take(shape, torch.float32)
        return exact.copy_(stored.to(self.rounded_to))

    def times(self, x: Tensor) -> Tensor:
        """`x` [..., columns] times the transposed matrix: [..., rows]."""
        flat = x.reshape(-1, self.shape[1])
        product = flat.new_empty(len(flat), self.shape[0])

        def multiply(_: int, start: int, stop: int) -> None:
            product[:, start:stop] = flat @ self.rows(start, stop).T

        self.blocks.run(*self.shape, multiply)
        return product.view(*x.shape[:-1], self.shape[0])

    def weighted_sum(self, weights_r: Tensor) -> Tensor:
        """The sum [columns] of all rows by their weights."""
        sums: dict[int, Tensor] = {}

        def add(number: int, start: int, stop: int) -> None:
            sums[number] = weights_r[start:stop] @ self.rows(start, stop)

        count = self.blocks.run(*self.shape, add)
        return torch.stack([sums[number] for number in range(count)]).sum(dim=0)

    def pick(self, indices: Tensor) -> Tensor:
        """Rows by their indices: [*indices.shape, columns]."""
        found = [self.rows(index, index + 1).clone() for index in indices.flatten().tolist()]
        return torch.cat(found).view(*indices.shape, self.shape[1])


class StreamedLinear(torch.nn.Module):
    """Stands in for a layer without bias; `matrix` gives its weight, which changes with the layer.

    in_pair: answers (output, None) as core's layers do, and takes whatever they are given besides.
    """

    def __init__(self, matrix: Callable[[], StoredMatrix], in_pair: bool):
        super().__init__()
        self.matrix, self.in_pair = matrix, in_pair

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor | tuple[Tensor, None]:
        product = self.matrix().times(x)
        return (product, None) if self.in_pair else product
