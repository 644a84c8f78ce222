"""The ids of a file of conversations, made once and mapped into memory by every rank.

A folder's name is a digest of everything the ids depend on: the file's bytes, the tokenizer, the
template and the longest row. So a cache is never stale, and it appears complete or not at all.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional, Protocol

import numpy as np

from megatron_biollm.atomic import disk_errors, new_folder
from megatron_biollm.config import UserError
from megatron_biollm.finetune.conversations import read_conversations
from megatron_biollm.log import get_logger

_FORMAT = 1
COUNTS = "counts.json"
_BETWEEN = 200
logger = get_logger(__name__)


class Encoder(Protocol):
    """What is asked of a chat template (`tokenizer.chat_template.ChatTemplate`)."""

    sha256: str

    def encode(self, messages: list[dict[str, str]]) -> Any: ...


@dataclass(frozen=True)
class Counts:
    """What became of the conversations of a file.

    Attributes:
        conversations: of the file.
        kept: those that fit a row.
        too_long: those left out, since a conversation is never cut.
        tokens: that take a place in rows (each conversation's but its last, which is only a label).
        learnt_tokens: labels that count: the assistant's text and its stop tokens.
        longest: tokens of the longest conversation, kept or not.
    """

    conversations: int = 0
    kept: int = 0
    too_long: int = 0
    tokens: int = 0
    learnt_tokens: int = 0
    longest: int = 0


@dataclass(frozen=True)
class TokenCache:
    """The conversations of one file that fit a row, in the file's order.

    path: its folder. file: of the conversations.
    """

    path: Path
    file: str

    @cached_property
    def tokens(self) -> np.ndarray:
        """All ids, int32."""
        return np.memmap(self.path / "tokens.bin", np.int32, "r")

    @cached_property
    def mask(self) -> np.ndarray:
        """1 where the token of that place is learnt, uint8."""
        return np.memmap(self.path / "mask.bin", np.uint8, "r")

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each conversation begins in both, and the end; int64 [kept + 1]."""
        return np.load(self.path / "offsets.npy", allow_pickle=False)

    @cached_property
    def lines(self) -> np.ndarray:
        """The line of each conversation in its file, counted from 1; int64 [kept]."""
        return np.load(self.path / "lines.npy", allow_pickle=False)

    @cached_property
    def counts(self) -> Counts:
        return Counts(**json.loads((self.path / COUNTS).read_text(encoding="utf-8")))

    @property
    def is_there(self) -> bool:
        """Whether the ids are on the disk."""
        return (self.path / COUNTS).is_file()

    @property
    def lengths(self) -> np.ndarray:
        """Places that each conversation takes in a row; int64 [kept]."""
        return np.diff(self.offsets) - 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask of one conversation."""
        span = slice(self.offsets[index], self.offsets[index + 1])
        return self.tokens[span], self.mask[span]

    def __getstate__(self) -> dict[str, Any]:
        """Without open files: a worker process opens its own."""
        return {"path": self.path, "file": self.file}


def ensure_tokens(
    file: str,
    template: Encoder,
    tokenizer_sha256: str,
    seq_length: int,
    cache: Optional[str] = None,
    progress: Callable[[int], None] = lambda count: None,
) -> TokenCache:
    """Has the ids of a file on the disk, encoded now if they are not there yet.

    Args:
        file: JSON lines with `messages`.
        template: of the run.
        tokenizer_sha256: of its tokenizer.
        seq_length: places in a row; what takes more is left out and counted.
        cache: folder for the ids; beside the file if None.
        progress: told of how many are done, every so often.

    Raises:
        UserError: with file and line: a conversation that the template cannot write or nobody can
            learn from; or no conversation fits; or the cache cannot be written.
    """
    folder = cache_folder(file, template, tokenizer_sha256, seq_length, cache)
    found = TokenCache(folder, file)
    if not found.is_there:
        with (
            disk_errors(folder, "free space or set data.data_cache_path to another folder"),
            new_folder(folder) as temporary,
        ):
            counts = _write(temporary, _encoded(file, template, progress), seq_length)
            _refuse_nothing(file, counts, seq_length)
            (temporary / COUNTS).write_text(json.dumps(asdict(counts), indent=1) + "\n")
    _tell(found, seq_length)
    return found


def cache_folder(
    file: str, template: Encoder, tokenizer_sha256: str, seq_length: int, cache: Optional[str]
) -> Path:
    """Where the ids of a file lie.

    Raises:
        UserError: there is no such file.
    """
    key = [_FORMAT, _digest(file), template.sha256, tokenizer_sha256, seq_length]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    return Path(cache or f"{file}.tokens") / name


def _encoded(
    file: str, template: Encoder, progress: Callable[[int], None]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for number, conversation in enumerate(read_conversations(file)):
        if number % _BETWEEN == 0:
            progress(number)
        try:
            chat = template.encode(conversation.messages)
        except UserError as error:
            raise UserError(f"{conversation.where}: {error}") from error
        line = int(conversation.where.rpartition(":")[2])
        yield line, np.array(chat.tokens, np.int32), np.array(chat.loss_mask, np.uint8)


def _write(
    folder: Path, encoded: Iterator[tuple[int, np.ndarray, np.ndarray]], seq_length: int
) -> Counts:
    lengths, lines, total, longest, learnt = [], [], 0, 0, 0
    with (folder / "tokens.bin").open("wb") as ids, (folder / "mask.bin").open("wb") as masks:
        for line, tokens, mask in encoded:
            total, longest = total + 1, max(longest, len(tokens))
            if len(tokens) - 1 > seq_length:
                continue
            ids.write(tokens.tobytes())
            masks.write(mask.tobytes())
            lengths.append(len(tokens))
            lines.append(line)
            learnt += int(mask[1:].sum())
    np.save(folder / "offsets.npy", np.cumsum([0, *lengths], dtype=np.int64))
    np.save(folder / "lines.npy", np.array(lines, np.int64))
    kept = len(lines)
    return Counts(total, kept, total - kept, sum(lengths) - kept, learnt, longest)


def _refuse_nothing(file: str, counts: Counts, seq_length: int) -> None:
    if counts.kept:
        return
    raise UserError(
        f"none of the {counts.conversations} conversations of {file} fits a row of "
        f"model.seq_length={seq_length} tokens (the longest has {counts.longest}), and they are "
        f"never cut; give a larger model.seq_length"
    )


def _tell(cache: TokenCache, seq_length: int) -> None:
    counts = cache.counts
    logger.info(
        "%s: %d conversations of %d tokens, %d of which are learnt; %d left out as longer than "
        "model.seq_length=%d (the longest has %d); ids in %s",
        cache.file,
        counts.kept,
        counts.tokens,
        counts.learnt_tokens,
        counts.too_long,
        seq_length,
        counts.longest,
        cache.path,
    )


def _digest(file: str) -> str:
    try:
        with Path(file).open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{file} cannot be read ({error.strerror}); give a file with one conversation a line"
        ) from error
