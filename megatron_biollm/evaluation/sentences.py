"""Sentences of biomedical prose, where a corpus does not say where they are."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

# The mark, what may close it, white space, and what may begin a sentence; or a line's end.
_END = re.compile(r"""[.!?]["')\]]*\s+(?=["'(\[]*[A-Z0-9α-ωΑ-Ω])|\n+""")
_SHORT = re.compile(
    r"(?:\b(?:e\.g|i\.e|vs|al|cf|approx|ca|[Nn]os?|[Ff]igs?|[Rr]efs?|resp|Dr|St|spp?|subsp|var|"
    r"eq)|(?:^|[\s(])[A-Z])\.$"
)
_LONGEST_SHORT = 12


def sentences(text: str, whole: Sequence[tuple[int, int]] = ()) -> list[tuple[int, int]]:
    """Where the sentences of a text begin and end, white space at both ends left out.

    Args:
        whole: extents (start, end) that no end of a sentence may be in, such as mentions.
    """
    inside = set()
    for start, end in whole:
        inside.update(range(start + 1, end))
    cuts = [0, *(cut for cut in _cuts(text) if cut not in inside), len(text)]
    ranges = [_trimmed(text, *pair) for pair in pairwise(cuts)]
    return [(start, end) for start, end in ranges if start < end]


def _cuts(text: str) -> Iterator[int]:
    for match in _END.finditer(text):
        before = text[max(0, match.start() + 1 - _LONGEST_SHORT) : match.start() + 1]
        if "\n" in match.group() or not _SHORT.search(before):
            yield match.end()


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while end > start and text[end - 1].isspace():
        end -= 1
    while start < end and text[start].isspace():
        start += 1
    return start, end
