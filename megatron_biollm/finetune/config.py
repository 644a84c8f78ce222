"""Where a fine-tuning run's texts come from, and what it does with them."""

from dataclasses import dataclass
from typing import Optional

from megatron_biollm.config import UserError, option
from megatron_biollm.data.config import parse_blend

TOO_LONG = ("drop", "cut")


@dataclass
class FinetuneData:
    """JSON lines, one conversation or one judged answer each.

    Raises:
        UserError: a blend that is none, or numbers out of range.
    """

    train_data_path: list[str] = option(
        [], "JSONL files, or weights and files in turn: [0.7, a.jsonl, 0.3, b.jsonl]"
    )
    valid_data_path: list[str] = option([], "JSONL files to validate on, as train_data_path")
    packing: bool = option(
        True, "several conversations in a row of tokens, which do not see each other; else one"
    )
    too_long: str = option(
        "drop", "judged answers that do not fit a row: drop the sample, or cut the answer"
    )
    data_cache_path: Optional[str] = option(
        None, "folder of the token ids; default: FILE.tokens beside each file"
    )
    num_workers: int = option(0, "processes that read samples ahead, per rank; 0 reads in place")

    def __post_init__(self) -> None:
        for name in ("train_data_path", "valid_data_path"):
            parse_blend(getattr(self, name), f"data.{name}")
        if self.too_long not in TOO_LONG:
            raise UserError(
                f"data.too_long={self.too_long!r} is unknown; use one of {', '.join(TOO_LONG)}"
            )
        if self.num_workers < 0:
            raise UserError(
                f"data.num_workers is {self.num_workers}; it counts processes: give 0 or more"
            )

    def check_given(self) -> None:
        """Raises UserError where there is nothing to train on."""
        if not self.train_data_path:
            raise UserError(
                "data.train_data_path is empty; give JSONL files (tools/prepare_conversations.py "
                "makes them from other forms)"
            )

    def files(self) -> list[str]:
        """Every file of the run once, in the order of its first mention."""
        blends = (self.train_data_path, self.valid_data_path)
        return list(dict.fromkeys(file for b in blends for file in parse_blend(b, "data")[0]))
