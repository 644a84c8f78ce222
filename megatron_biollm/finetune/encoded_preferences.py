"""Preference files as token ids, in a folder of arrays that its name proves to be up to date.

Every sample has two rows. Of a pair they are chosen and rejected; of a labelled answer (KTO) they
are that answer, and the next answer of the file to another prompt, by which KTO estimates how far
the model is from the reference.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from megatron_biollm.atomic import disk_errors, new_folder
from megatron_biollm.config import UserError
from megatron_biollm.finetune.preferences import Labelled, Messages, Pair, read_labelled, read_pairs
from megatron_biollm.tokenizer.chat_template import ChatTemplate

Sample = Pair | Labelled
Row = tuple[list[int], list[bool]]
_FORMAT = 1
_ARRAYS = ("tokens", "answer", "ends", "margin", "label", "line", "sample_hash")


@dataclass(frozen=True)
class EncodingKey:
    """What the ids depend on, and nothing else.

    file, tokenizer, template: SHA-256 of each. labelled: samples are labelled answers, not pairs.
    seq_length: longest row. too_long: `drop` leaves out what is longer, `cut` cuts answers.
    """

    file: str
    tokenizer: str
    template: str
    labelled: bool
    seq_length: int
    too_long: str

    def folder_name(self) -> str:
        text = json.dumps([_FORMAT, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class EncodedPreferences:
    """The samples of one file; arrays are mapped into memory.

    Attributes:
        prefix: the file. folder: of the arrays. key: what they depend on.
        tokens: int32, all rows end to end; a row holds prompt and answer.
        answer: bool, where a token belongs to the answer, its stop token included.
        ends: int64 [rows + 1]; row r is tokens[ends[r]:ends[r + 1]].
        margin: float32 [samples]. label: bool [samples]. line: int64 [samples], of the file.
        sample_hash: uint64 [samples], of ids and answer masks of both rows.
        dropped: how many samples of the file are left out, by reason.
    """

    prefix: str
    folder: Path
    key: EncodingKey
    tokens: np.ndarray
    answer: np.ndarray
    ends: np.ndarray
    margin: np.ndarray
    label: np.ndarray
    line: np.ndarray
    sample_hash: np.ndarray
    dropped: dict[str, int]

    def __len__(self) -> int:
        return len(self.line)

    def row(self, sample: int, which: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and answer mask of row `which` (0 or 1) of a sample."""
        start, end = self.ends[2 * sample + which : 2 * sample + which + 2]
        return self.tokens[start:end], self.answer[start:end]


def encoding_key(
    path: str | Path,
    template: ChatTemplate,
    tokenizer_sha256: str,
    labelled: bool,
    seq_length: int,
    too_long: str,
) -> EncodingKey:
    """The key of a file; reads it through.

    Raises:
        UserError: no such file.
    """
    try:
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"preference file {path} cannot be read ({error.strerror}); give JSON lines with "
            f"prompt, chosen and rejected"
        ) from error
    return EncodingKey(digest, tokenizer_sha256, template.sha256, labelled, seq_length, too_long)


def encode_preferences(
    path: str | Path, key: EncodingKey, template: ChatTemplate, cache: Optional[Path] = None
) -> EncodedPreferences:
    """The samples of a file as ids, from the folder beside it (or in `cache`) if they are there.

    Safe when several processes do it at once.

    Raises:
        UserError: what is wrong with a line, with file and line; a template under which the prompt
            is no prefix of the answered conversation; nothing is left; the folder is damaged, or
            cannot be written.
    """
    folder = (cache or Path(f"{path}.tokens")) / key.folder_name()
    if not folder.is_dir():
        _write(folder, key, *_encode(path, key, template))
    return open_encoded(path, folder, key)


def open_encoded(path: str | Path, folder: Path, key: EncodingKey) -> EncodedPreferences:
    """Maps a folder of ids.

    Raises:
        UserError: damaged, or made of another file, tokenizer or template.
    """
    try:
        description = json.loads((folder / "description.json").read_text(encoding="utf-8"))
        stored, dropped = description["key"], description["dropped"]
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _ARRAYS
        }
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the encoded preferences {folder} cannot be read ({error}); delete this folder, and "
            f"it is made again"
        ) from error
    different = [name for name, value in asdict(key).items() if stored.get(name) != value]
    if different:
        raise UserError(
            f"the encoded preferences {folder} are of another {', '.join(different)} than this "
            f"run's; delete this folder, and it is made again"
        )
    return EncodedPreferences(str(path), folder, key, **arrays, dropped=dropped)


def encode_answer(
    prompt: Messages, answer: Messages, where: str, template: ChatTemplate
) -> tuple[list[int], list[bool]]:
    """Ids of prompt and answer, and which of them the assistant writes in answer to this prompt.

    Raises:
        UserError: the prompt alone is no prefix of it: what is trained would not be what is asked.
    """
    try:
        asked = template.encode_prompt(prompt)
        whole = template.encode([*prompt, *answer])
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if whole.tokens[: len(asked)] != asked:
        raise UserError(
            f"{where}: the chat template writes this prompt otherwise once it is answered, so the "
            f"model would be trained on what it is never asked; use a template under which the "
            f"prompt stays the beginning (the built-in ones do)"
        )
    mask = [False] * len(asked) + list(whole.loss_mask[len(asked) :])
    return list(whole.tokens), mask


def _encode(
    path: str | Path, key: EncodingKey, template: ChatTemplate
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The arrays of a file's samples that fit, and the number of the others by reason."""
    samples = read_labelled(path) if key.labelled else read_pairs(path)
    dropped: Counter[str] = Counter()
    kept: list[tuple[Sample, list[Row]]] = []
    for sample, asked in _two_rows(samples):
        rows = [encode_answer(prompt, text, sample.where, template) for prompt, text in asked]
        reason = _fit(rows, key)
        if reason:
            dropped[reason] += 1
        else:
            kept.append((sample, rows))
    if not kept:
        raise UserError(
            f"no sample of {path} fits ({_listed(dropped)}); raise model.seq_length="
            f"{key.seq_length}, or cut answers that are too long with data.too_long=cut"
        )
    return _arrays(kept), dict(dropped)


def _two_rows(samples: list[Any]) -> Iterator[tuple[Sample, list[tuple[Messages, Messages]]]]:
    for at, sample in enumerate(samples):
        if isinstance(sample, Pair):
            yield sample, [(sample.prompt, answer) for answer in sample.answers]
        else:
            others = itertools.chain(samples[at + 1 :], samples[:at])
            other = next((one for one in others if one.prompt != sample.prompt), None)
            if other is None:
                raise UserError(
                    f"{sample.where}: KTO estimates the divergence from the reference on answers "
                    f"to other prompts, and the file has one prompt alone; give more of them"
                )
            yield sample, [(sample.prompt, sample.completion), (sample.prompt, other.completion)]


def _fit(rows: list[Row], key: EncodingKey) -> str:
    """Cuts the rows if that is asked for; why they are left out, or nothing."""
    longest = key.seq_length
    if all(len(tokens) <= longest for tokens, _ in rows):
        return ""
    if key.too_long == "drop":
        return "longer than model.seq_length"
    for number, (tokens, mask) in enumerate(rows):
        rows[number] = tokens[:longest], mask[:longest]
        if not any(mask[:longest]):
            return "no room for the answer within model.seq_length"
    if rows[0][0] == rows[1][0]:
        return "answers equal where they are cut"
    return ""


def _arrays(kept: list[tuple[Sample, list[Row]]]) -> dict[str, np.ndarray]:
    rows = [row for _, two in kept for row in two]
    ends = np.cumsum([0, *(len(tokens) for tokens, _ in rows)])
    return {
        "tokens": np.array([t for tokens, _ in rows for t in tokens], np.int32),
        "answer": np.array([m for _, mask in rows for m in mask], bool),
        "ends": ends.astype(np.int64),
        "margin": np.array([getattr(s, "margin", 0.0) for s, _ in kept], np.float32),
        "label": np.array([getattr(s, "label", True) for s, _ in kept], bool),
        "line": np.array([int(s.where.rpartition(":")[2]) for s, _ in kept], np.int64),
        "sample_hash": np.array([_hash(two) for _, two in kept], np.uint64),
    }


def _hash(rows: list[Row]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for tokens, mask in rows:
        digest.update(np.array([len(tokens), *tokens], "<i8").tobytes())
        digest.update(np.array(mask, bool).tobytes())
    return int.from_bytes(digest.digest(), "little")


def _write(
    folder: Path, key: EncodingKey, arrays: dict[str, np.ndarray], dropped: dict[str, int]
) -> None:
    with (
        disk_errors(folder, "free space or set data.data_cache_path to another folder"),
        new_folder(folder) as temporary,
    ):
        for name, values in arrays.items():
            np.save(temporary / f"{name}.npy", values, allow_pickle=False)
        description = {"key": asdict(key), "samples": len(arrays["line"]), "dropped": dropped}
        text = json.dumps(description, indent=2) + "\n"
        (temporary / "description.json").write_text(text, encoding="utf-8")


def _listed(dropped: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "it is empty"
