"""Chooses the sizes of the tokenizer by the amount of clean text, and says what it chose.

Prints four words for run.sh: ids of the base tokenizer, pieces to add to it, tokens that a new
piece must save, and the sources to learn from. No piece is added to a tokenizer of so little text
that the base has used it up.

example:
  python examples/quickstart/sizes.py runs/quickstart/corpus/manifest.json
"""

import argparse
import json
import sys
from pathlib import Path

# From so many characters on: ids of the base, pieces to add, tokens that a piece must save. Both
# together fill rows of an embedding, which are multiples of 1024, and leave none over.
SIZES = [
    (5_000_000, 4032, 64, 10),
    (1_000_000, 1984, 64, 10),
    (200_000, 960, 64, 2),
    (50_000, 512, 16, 2),
    (0, 512, 0, 2),
]


def choose(characters: int) -> tuple[int, int, int]:
    """Ids of the base, pieces to add, and tokens that a piece must save."""
    return next(sizes for least, *sizes in SIZES if characters >= least)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, help="manifest.json of tools/build_corpus.py")
    sources = json.loads(parser.parse_args().manifest.read_text(encoding="utf-8"))["sources"]
    characters = sum(source["characters"] for source in sources.values())
    if not characters:
        sys.exit("error: curation has left no text; its report says what was dropped and why")
    ids, pieces, frequency = choose(characters)
    print(
        f"{characters:,} characters of clean text: a vocabulary of {ids} with {pieces} more pieces",
        file=sys.stderr,
    )
    print(ids, pieces, frequency, f"[{','.join(sources)}]")


if __name__ == "__main__":
    main()
