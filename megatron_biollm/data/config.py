"""Where a run's token ids come from and how they are split."""

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Optional

from megatron_biollm.config import UserError, option

_SPLIT = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*")


@dataclass
class DataConfig:
    """Corpora as prefixes of Megatron's `.bin`/`.idx` files, and how samples are cut from them."""

    data_path: list[str] = option(
        [], "prefixes, or weights and prefixes in turn: [0.7, a_document, 0.3, b_document]"
    )
    train_data_path: list[str] = option([], "training corpora, instead of data_path and split")
    valid_data_path: list[str] = option([], "validation corpora, instead of data_path and split")
    test_data_path: list[str] = option([], "test corpora, instead of data_path and split")
    split: str = option("969,30,1", "shares of train, valid, test when data_path is given")
    data_cache_path: Optional[str] = option(
        None, "folder of the sample index; default: `index` beside the corpora"
    )
    num_workers: int = option(2, "processes that read samples ahead, per rank; 0 reads in place")
    eod_mask_loss: bool = option(False, "no loss where the input token is the end of a document")
    reset_position_ids: bool = option(False, "positions start again after the end of a document")
    reset_attention_mask: bool = option(
        False, "no attention across documents; needs reset_position_ids"
    )
    mmap_bin_files: bool = option(True, "map the .bin files into memory; false reads them by seeks")

    def __post_init__(self) -> None:
        per_split = [self.train_data_path, self.valid_data_path, self.test_data_path]
        if self.data_path and any(per_split):
            raise UserError(
                f"data.data_path ({_shown(self.data_path)}) excludes data.train_data_path, "
                "data.valid_data_path and data.test_data_path; give one way of splitting"
            )
        if any(per_split) and not self.train_data_path:
            raise UserError(
                "data.valid_data_path or data.test_data_path is given without "
                "data.train_data_path; give the training corpora as well"
            )
        for name in ("data_path", "train_data_path", "valid_data_path", "test_data_path"):
            parse_blend(getattr(self, name), f"data.{name}")
        parse_split(self.split)
        if self.num_workers < 0:
            raise UserError(
                f"data.num_workers is {self.num_workers}; it counts processes: give 0 or more"
            )

    def blends(self) -> list[list[str]]:
        """The train, valid and test corpora as given, in that order; equal where split does it."""
        if self.data_path:
            return [self.data_path] * 3
        return [self.train_data_path, self.valid_data_path, self.test_data_path]

    def check_given(self) -> None:
        """Raises UserError where no corpus is given."""
        if not self.prefixes():
            raise UserError(
                "data.data_path and data.train_data_path are empty; give the prefixes of corpora "
                "that tools/preprocess_data.py made"
            )

    def prefixes(self) -> list[str]:
        """Every corpus of the run once, in the order of its first mention."""
        names = (parse_blend(blend, "data")[0] for blend in self.blends())
        return list(dict.fromkeys(prefix for some in names for prefix in some))


def parse_blend(blend: list[str], name: str) -> tuple[list[str], Optional[list[str]]]:
    """Megatron's blend syntax to (prefixes, weights).

    Weights stay decimal strings, so that 0.1 remains a tenth exactly; they are None where only
    prefixes are given (then a corpus counts by its size). name: the option, for messages.

    Raises:
        UserError: weights beside some prefixes only, a weight that is not above 0, a prefix twice.
    """
    numeric = [_is_number(entry) for entry in blend]
    if not any(numeric):
        prefixes, weights = [entry.strip() for entry in blend], None
    elif numeric == [True, False] * (len(blend) // 2):
        prefixes = [entry.strip() for entry in blend[1::2]]
        weights = [entry.strip() for entry in blend[::2]]
    else:
        raise UserError(
            f"{name} is {_shown(blend)}: weights and prefixes must stand in turn, a weight before "
            "every prefix; or give prefixes alone"
        )
    _check_weights(weights or [], name)
    twice = [prefix for prefix, count in Counter(prefixes).items() if count > 1]
    if twice:
        raise UserError(
            f"{name} names {twice[0]} more than once; name it once, with the sum of its weights"
        )
    return prefixes, weights


def _check_weights(weights: list[str], name: str) -> None:
    for weight in weights:
        if not (float(weight) > 0 and math.isfinite(float(weight))):
            raise UserError(
                f"{name} has the weight {weight}; weights are above 0: leave that corpus out"
            )


def parse_split(split: str) -> list[float]:
    """`969,30,1` to [0.969, 0.03, 0.001]: one to three numbers, filled with 0, sum 1.

    Raises:
        UserError: other text, more than three numbers, or all of them 0.
    """
    parts = split.split(",")
    matches = [_SPLIT.fullmatch(part) for part in parts]
    if len(parts) > 3 or not all(matches) or sum(float(part) for part in parts) <= 0:
        raise UserError(
            f"data.split is {split!r}; it takes up to three shares for train, valid and test, "
            "0 or more and not all 0, for example 969,30,1"
        )
    shares = [float(part) for part in parts] + [0.0] * (3 - len(parts))
    total = shares[0] + shares[1] + shares[2]  # not sum(), which rounds otherwise from 3.12 on
    return [share / total for share in shares]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(blend: list[str]) -> str:
    return " ".join(blend[:6]) + (" ..." if len(blend) > 6 else "")
