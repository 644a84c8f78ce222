"""Settings of decontamination."""

from dataclasses import dataclass
from typing import Optional

from megatron_biollm.config import UserError, option


@dataclass
class DecontaminateConfig:
    """Which benchmarks to look for, and what to do with the documents that hold them.

    Two texts are compared word by word, without case, punctuation and spacing. `coverage` is the
    share of an item's words that a text has in the same order at one place. Items of fewer than
    `min_words` words, and questions that several items share ("Which of the following is true?"),
    are looked for together with their options.
    """

    benchmarks: list[str] = option([], "files and folders of benchmarks to keep out of the corpus")
    contexts: bool = option(False, "also keep out the texts that questions are asked about")
    coverage: float = option(0.8, "share of an item's words from which on it counts as found")
    min_words: int = option(8, "shorter items count only with their options, or word for word")
    cut_above_words: int = option(2000, "a longer document loses the passage, a shorter one goes")
    cache: Optional[str] = option(None, "folder for the index, so that it is built once")

    def __post_init__(self):
        if not 0.5 <= self.coverage <= 1:
            raise UserError(
                f"decontaminate.coverage is {self.coverage}; below 0.5 everything looks alike: "
                "give 0.5 to 1"
            )
        if self.min_words < 8:
            raise UserError(
                f"decontaminate.min_words is {self.min_words}; with one word changed fewer than 8 "
                "cannot be told from ordinary text: give at least 8"
            )
