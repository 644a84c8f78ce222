"""Large reads of a stream that may break off, without losing what came before the break."""

from __future__ import annotations

from typing import BinaryIO

# What a packed stream has unpacked of a piece when it breaks is lost with it.
_PIECE_BYTES = 1 << 14


class Chunks:
    """Reads of any size. `stream.read(n)` would throw away up to n bytes where a stream breaks."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.error: Exception | None = None

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, fewer only at the end or before a break; b"" at the end.

        Raises:
            What the stream raised, once all bytes before it have been given.
        """
        pieces: list[bytes] = []
        while size > 0 and self.error is None:
            try:
                piece = self.stream.read1(min(size, _PIECE_BYTES))
            except Exception as error:
                self.error = error
                break
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        if self.error is not None and not pieces:
            raise self.error
        return b"".join(pieces)
