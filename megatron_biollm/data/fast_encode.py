"""The ids of a tokenizer at the speed of `gigatoken`, wherever they are provably the same.

`gigatoken` (https://github.com/marcelroed/gigatoken, MIT) encodes BPE some twenty times as fast as
`tokenizers` and `sentencepiece`. Where its ids might differ, and where a run compares a sample, the
tokenizer itself encodes. Which of the two it is, `megatron_biollm.data.encoder_plan` decides.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.data.long_text import LongText

_PIECE_CHARACTERS = 1 << 20  # longer documents are encoded in pieces of about this length
_CACHE_BYTES = 64 << 20  # gigatoken 0.10 never empties its cache of words; we do beyond this
_CUT = re.compile(r"(?<=[a-z]) (?=[a-z])")


@dataclasses.dataclass(frozen=True)
class EncoderPlan:
    """Everything a worker needs to encode as the tokenizer does; picklable.

    Attributes:
        kind: "huggingface" or "sentencepiece": what `source` is for.
        source: contents of tokenizer.json, or of the .model file.
        fast: the tokenizer.json that gigatoken takes, or None where the tokenizer itself encodes.
        reason: why it does, for people; empty if `fast` is set.
        normalise: SentencePiece's own normalisation comes before `fast`.
        cut: how a long document may be cut at a space between two letters without a change of
            ids: "drop" (the space is made again) or "keep"; None where it may not.
        prefix, suffix: ids that a Hugging Face tokenizer's own rule puts around each text.
        split_special_tokens: the text of a control token is ordinary text, as in SentencePiece.
        control_tokens: texts of the tokens that stand for no text.
        eod, vocab_size: as in `Tokenizer`.
    """

    kind: str
    source: str | bytes
    fast: Optional[str]
    reason: str
    normalise: bool
    cut: Optional[str]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    split_special_tokens: bool
    control_tokens: tuple[str, ...]
    eod: int
    vocab_size: int


class TextEncoder:
    """Encodes texts in one process, as a plan says. dtype: of the corpus."""

    def __init__(self, plan: EncoderPlan, dtype: str = "<u4"):
        self.plan, self.dtype = plan, np.dtype(dtype)
        self._reference: Any = None
        self._resident = 0
        self._encode = self.reference
        if plan.fast is not None:
            self._load_fast()

    def encode(self, texts: Sequence[str | LongText]) -> Iterator[np.ndarray]:
        """Ids of each text: uint32, but for long ones in the corpus's dtype."""
        for text in texts:
            if isinstance(text, str) and len(text) <= _PIECE_CHARACTERS:
                ids = self._encode(text)
            else:
                pieces = map(self._encode, self._pieces(text))
                ids = np.concatenate([narrow(piece, self.dtype) for piece in pieces])
            yield self._wrapped(ids) if self.plan.prefix or self.plan.suffix else ids

    def compare(self, text: str, ids: np.ndarray) -> None:
        """Raises UserError unless these are the tokenizer's own ids of the text."""
        own = self._wrapped(self.reference(text))
        if not np.array_equal(own, ids):
            raise UserError(
                f"gigatoken gives other ids than the tokenizer for the text {text[:80]!r}, and "
                "must give the same; encode with --exact, and report the text and the tokenizer"
            )

    def reference(self, text: str) -> np.ndarray:
        """The tokenizer's own ids of a text, without the ids its rule puts around it."""
        if self._reference is None:
            self._reference = load_reference(self.plan)
        return np.array(self._reference(text), np.uint32)

    def bound_memory(self) -> None:
        """Empties gigatoken's cache of words when it has grown; call it once in a while."""
        if self.plan.fast is not None and resident_bytes() > self._resident + _CACHE_BYTES:
            self._load_fast()

    def _load_fast(self) -> None:
        from gigatoken.gigatoken_rs import load_hf_json  # the package around it takes longer

        self._encode = None
        backend = load_hf_json(self.plan.fast)
        if self.plan.normalise:
            normalise = _load_sentencepiece(self.plan.source).normalize
            self._encode = lambda text: backend.encode(normalise(text))
        else:
            self._encode = backend.encode
        self._encode("a")
        self._resident = resident_bytes()

    def _pieces(self, text: str | LongText) -> Iterator[str]:
        """Texts whose ids follow one another to those of the whole."""
        if self.plan.cut is None:
            yield str(text)
            return
        pieces = text.pieces() if isinstance(text, LongText) else _cut(text)
        for number, piece in enumerate(pieces):
            yield piece[1:] if number and self.plan.cut == "drop" else piece

    def _wrapped(self, ids: np.ndarray) -> np.ndarray:
        return np.concatenate([self.plan.prefix, ids, self.plan.suffix]).astype(ids.dtype)


def _cut(text: str) -> Iterator[str]:
    """The text, cut before spaces between letters."""
    start = 0
    while cut := _CUT.search(text, start + _PIECE_CHARACTERS):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def narrow(ids: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The ids in a corpus's dtype; numpy alone would let too large ones wrap around.

    Raises:
        UserError: naming the largest id.
    """
    if len(ids) and (largest := int(ids.max())) > np.iinfo(dtype).max:
        raise UserError(
            f"the tokenizer gives the id {largest}, which {dtype} cannot hold; leave --dtype out, "
            "or give int32"
        )
    return ids.astype(dtype, copy=False)


def load_reference(plan: EncoderPlan) -> Any:
    """The tokenizer itself, as a function from a text to its ids."""
    if plan.kind == "sentencepiece":
        return _load_sentencepiece(plan.source).encode
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(plan.source)
    backend.encode_special_tokens = plan.split_special_tokens
    return lambda text: backend.encode(text, add_special_tokens=False).ids


def resident_bytes() -> int:
    """Memory of this process, 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _load_sentencepiece(model: bytes) -> Any:
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_proto=model)
