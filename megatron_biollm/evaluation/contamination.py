"""Items that the training data holds: the file that lists them, and scores with and without them.

An item counts as found from 70 % of its n-grams on, wherever they stand; with n-grams of 8 that is
the rule of PaLM (Chowdhery et al. 2022, section 8).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_biollm.atomic import disk_errors, write_json
from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Benchmark, Conventions
from megatron_biollm.evaluation.items import AnyItem, ChoiceItem, Prediction
from megatron_biollm.evaluation.results import Contamination, make_part

VERSION = 1
NGRAM = 8
THRESHOLD = 0.7

# What stands in the place of a mention is in no training text; marks around one are not either.
_MASK = re.compile(r"@[A-Za-z/-]+\$")
_MARK = re.compile(r"</?[a-z-]+>")


@dataclass(frozen=True)
class Findings:
    """What `contamination.json` says.

    Attributes:
        ngram: words of an n-gram.
        searched: names of the training data.
        benchmarks: by name: split, conventions, items, too_short, and `found`: for each item with
            an n-gram in the training data its id, share, and the document with most of it.
    """

    ngram: int
    searched: tuple[str, ...]
    benchmarks: Mapping[str, Mapping[str, Any]]

    def shares(self, benchmark: str) -> dict[str, float]:
        """Of each item that was met the share of its n-grams, by its id."""
        return {one["id"]: one["share"] for one in self.benchmarks[benchmark]["found"]}

    def summary(self, threshold: float = THRESHOLD) -> list[dict[str, Any]]:
        """Counts by benchmark: items, those too short to be looked for, and those found."""
        return [
            {
                "benchmark": name,
                "split": one["split"],
                "items": one["items"],
                "too_short": one["too_short"],
                "found": sum(share >= threshold for share in self.shares(name).values()),
            }
            for name, one in self.benchmarks.items()
        ]


def passages(items: Sequence[AnyItem], ngram: int = NGRAM) -> list[list[str]]:
    """Of each item the texts that are looked for.

    The question of a choice, with its choices where it has fewer words than an n-gram and these
    are its own; else the item's text. Contexts are not looked for: that a model was trained on an
    article is no harm, as long as it was not told the question. Masked mentions cut a text.
    """
    own = len({one.choices for one in items if isinstance(one, ChoiceItem)}) > 1
    return [list(_passages(one, ngram, own)) for one in items]


def write_findings(path: Path | str, findings: Findings) -> None:
    """Writes the file in one step.

    Raises:
        UserError: it cannot be written.
    """
    with disk_errors(path, "free some disk space and search again"):
        write_json(
            path,
            {
                "version": VERSION,
                "ngram": findings.ngram,
                "searched": list(findings.searched),
                "benchmarks": dict(findings.benchmarks),
            },
        )


def read_findings(path: Path | str) -> Findings:
    """Reads what `write_findings` wrote.

    Raises:
        UserError: there is no such file, it is damaged, or another version wrote it.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist; make it with tools/contamination.py")
    try:
        stored = json.loads(Path(path).read_bytes())
        version = stored["version"]
        made = Findings(stored["ngram"], tuple(stored["searched"]), stored["benchmarks"])
        for name in made.benchmarks:
            made.shares(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); make it again") from error
    if version != VERSION:
        raise UserError(f"{path} has version {version}, not {VERSION}; make it again")
    return made


def contaminated(
    benchmark: Benchmark,
    items: Sequence[AnyItem],
    predictions: Sequence[Prediction],
    conventions: Conventions,
    split: str,
    findings: Findings,
    threshold: float = THRESHOLD,
) -> Contamination | None:
    """Scores on the items that were found and on the others; None where none was searched for.

    Raises:
        UserError: another split was searched for.
    """
    known = findings.benchmarks.get(benchmark.name)
    if known is None:
        return None
    if known["split"] != split:
        raise UserError(
            f"{benchmark.name}: the training data was searched for its split {known['split']}, but "
            f"{split} is scored; run tools/contamination.py with --split {benchmark.name}={split}"
        )
    shares = findings.shares(benchmark.name)
    sides: dict[bool, list[tuple[AnyItem, Prediction]]] = {False: [], True: []}
    for item, prediction in zip(items, predictions, strict=True):
        sides[shares.get(item.id, 0.0) >= threshold].append((item, prediction))
    parts = {
        dirty: make_part(benchmark.score([i for i, _ in rows], [p for _, p in rows], conventions))
        for dirty, rows in sides.items()
        if rows
    }
    return Contamination(threshold, findings.searched, parts.get(False), parts.get(True))


def _passages(item: AnyItem, ngram: int, own_choices: bool) -> Iterator[str]:
    text = item.question if isinstance(item, ChoiceItem) else item.text
    pieces = [_MARK.sub(" ", piece) for piece in _MASK.split(text)]
    short = len(text.split()) < ngram
    if isinstance(item, ChoiceItem) and own_choices and short and len(pieces) == 1:
        pieces = [" ".join([text, *item.choices])]
    yield from (piece for piece in pieces if piece.strip())
