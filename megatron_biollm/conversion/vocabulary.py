"""How many rows of a vocabulary are true, and where rows of added tokens come from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.extend import load_extension
from megatron_biollm.tokenizer.manifest import MANIFEST_FILE, load_tokenizer
from megatron_biollm.tokenizer.tokenizer import Tokenizer, TokenizerConfig, build_tokenizer

# The largest multiple that frameworks commonly pad a vocabulary to.
LARGEST_PADDING = 1024


@dataclass(frozen=True)
class Vocabulary:
    """size: true vocabulary of the model to be made. sub_ids: per added token, its base ids."""

    size: int
    sub_ids: Sequence[Sequence[int]] = ()
    notes: list[str] = field(default_factory=list)


def find_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer in `folder` (or the .model file at that path), None where there is none.

    Raises:
        UserError: its files are damaged or not those of its manifest.
    """
    if (folder / MANIFEST_FILE).is_file():
        return load_tokenizer(folder)
    if (folder / "tokenizer.json").is_file():
        return build_tokenizer(TokenizerConfig("HuggingFaceTokenizer", str(folder)))
    if folder.is_file() or (folder / "tokenizer.model").is_file():
        return build_tokenizer(TokenizerConfig("SentencePieceTokenizer", str(folder)))
    return None


def vocabulary_of(tokenizer: Tokenizer | None, rows: int, input_folder: Path) -> Vocabulary:
    """Fits a tokenizer to the `rows` of the embedding in `input_folder`.

    Fewer tokens than rows: the rows behind are padding and are dropped. More: the tokenizer must
    be an extension (`tokenizer/extend.py`) of the one the rows belong to.

    Raises:
        UserError: neither explains the difference, or the extension is of another tokenizer.
    """
    if tokenizer is None:
        return Vocabulary(rows, notes=["no tokenizer: the vocabulary is config.json's"])
    extension = load_extension(tokenizer.folder)
    # An extended model that was exported has rows for its added tokens already.
    if extension is not None and rows < tokenizer.vocab_size:
        _check_base(tokenizer, extension.base_vocab_size, input_folder)
        _check_padding(extension.base_vocab_size, rows, tokenizer, input_folder)
        added = len(extension.sub_ids)
        note = f"{added} added tokens start as the mean of their sub-tokens"
        return Vocabulary(tokenizer.vocab_size, extension.sub_ids, [note])
    _check_padding(tokenizer.vocab_size, rows, tokenizer, input_folder)
    dropped = rows - tokenizer.vocab_size
    notes = [f"{dropped} padding rows of the input were dropped"] if dropped else []
    return Vocabulary(tokenizer.vocab_size, notes=notes)


def _check_base(tokenizer: Tokenizer, base_vocab_size: int, input_folder: Path) -> None:
    """The folder's tokenizer may have another form than the one that was extended (SentencePiece
    and Hugging Face), and a padding token behind; what decides is that rows keep their meaning."""
    base = find_tokenizer(input_folder)
    if base is None:
        return
    own, extended = base.pieces()[:base_vocab_size], tokenizer.pieces()[:base_vocab_size]
    if own != extended:
        raise UserError(
            f"{tokenizer.folder} extends another tokenizer than the one in {input_folder}; "
            f"extend that one"
        )


def _check_padding(tokens: int, rows: int, tokenizer: Tokenizer, input_folder: Path) -> None:
    padded = -(-tokens // LARGEST_PADDING) * LARGEST_PADDING
    if not tokens <= rows <= padded:
        raise UserError(
            f"tokenizer {tokenizer.name} has {tokens} tokens, but the embedding in {input_folder} "
            f"has {rows} rows; they must be equal, or more rows by padding only (up to {padded}): "
            f"give the model's own tokenizer, or one made from it by tools/extend_tokenizer.py"
        )
