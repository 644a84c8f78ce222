"""Text to ids and back, as Megatron-LM's tokenizer of the same type does it."""

import functools
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.config import UserError, option
from megatron_biollm.tokenizer.hf_files import sentencepiece_to_hf, write_hf_files
from megatron_biollm.tokenizer.plain_files import load_plain
from megatron_biollm.tokenizer.template_source import (
    TEMPLATE_FILE,
    TRAINING_TEMPLATE_FILE,
    named_template,
)

HUGGING_FACE_TYPES = ("HuggingFaceTokenizer",)
SENTENCEPIECE_TYPES = ("SentencePieceTokenizer", "GPTSentencePieceTokenizer", "Llama2Tokenizer")
EXTENSION_FILE = "extension.json"

_COPIED_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    TEMPLATE_FILE,
    TRAINING_TEMPLATE_FILE,
    EXTENSION_FILE,
)
# Ids of this text tell tokenizers apart whose vocabularies are equal and whose treatment of
# spaces, line ends, digits, accents or document starts is not.
_PROBE = "  Two  spaces,\n\ta tab; IL-6 ≥ 12.5 µg/mL (β-catenin), naïve café — 東京 e\u0301."


@dataclass
class TokenizerConfig:
    """Which tokenizer, in Megatron-LM's names."""

    tokenizer_type: str = option(
        "HuggingFaceTokenizer",
        "HuggingFaceTokenizer, SentencePieceTokenizer, GPTSentencePieceTokenizer, Llama2Tokenizer",
    )
    tokenizer_model: Optional[str] = option(
        None, "folder with tokenizer.json (Hugging Face), or a .model file (SentencePiece)"
    )
    tokenizer_hf_no_include_special_tokens: bool = option(
        False, "leave out the BOS or EOS which a Hugging Face tokenizer's own rule adds to a text"
    )
    chat_template: Optional[str] = option(
        None,
        "form of conversations: default, llama2, a .jinja file or a folder with one; null takes "
        "the tokenizer's own, or else default",
    )

    def __post_init__(self) -> None:
        known = HUGGING_FACE_TYPES + SENTENCEPIECE_TYPES
        if self.tokenizer_type not in known:
            raise UserError(
                f"tokenizer.tokenizer_type is {self.tokenizer_type!r}, which is not supported; "
                f"give one of {', '.join(known)}"
            )


class Tokenizer:
    """What every tokenizer offers; made by `build_tokenizer`.

    name: last part of its path. tokenizer_type: Megatron's name of its type.
    folder: where its files are. vocab_size: largest id + 1, added tokens included, no padding.
    eod: id written after each document. bos, pad: ids, or None where the tokenizer has none.
    sha256: digest of what decides ids: vocabulary, merges, special tokens and the ids of a fixed
        probe text. The same for every copy, wherever it lies and whoever saved it.
    chat_template: Jinja source that is saved beside the files; None keeps the folder's own.
    """

    name: str
    tokenizer_type: str
    folder: Path
    vocab_size: int
    eod: int
    bos: Optional[int]
    pad: Optional[int]
    chat_template: Optional[str] = None

    def encode(self, text: str) -> list[int]:
        """The ids Megatron-LM's preprocess_data writes for this text, before its EOD.

        SentencePiece adds nothing. A Hugging Face tokenizer whose own rule adds BOS (LLaMA-2's
        does) adds it here too, unless `tokenizer_hf_no_include_special_tokens` is set.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text."""
        raise NotImplementedError

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens and ids of vocabulary padding give nothing."""
        raise NotImplementedError

    def decode_batch(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """`decode` of each text's ids."""
        return [self.decode(own) for own in ids]

    def pieces(self) -> list[str | None]:
        """What each id stands for, None where there is no token; equal pieces, equal rows."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes files that this room and `transformers.AutoTokenizer` load to the same ids."""
        folder = Path(folder)
        self._save_files(folder)
        if self.chat_template is not None:
            (folder / TRAINING_TEMPLATE_FILE).unlink(missing_ok=True)
            (folder / TEMPLATE_FILE).write_text(self.chat_template, encoding="utf-8")

    def _save_files(self, folder: Path) -> None:
        raise NotImplementedError

    def _content(self) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def sha256(self) -> str:
        content = self._content() | {
            "special_ids": [self.bos, self.eod, self.pad],
            "probe": self.encode(_PROBE),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def build_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """Loads the tokenizer a config names; nothing is downloaded.

    Raises:
        UserError: no path, a path that does not exist, or files that are no tokenizer.
    """
    if not config.tokenizer_model:
        raise UserError(
            "tokenizer.tokenizer_model is not set; give a folder with tokenizer.json or a "
            "SentencePiece .model file (tools/train_tokenizer.py makes one)"
        )
    path = Path(config.tokenizer_model)
    if not path.exists():
        raise UserError(
            f"tokenizer.tokenizer_model {path} does not exist; give a local path (a tokenizer of "
            "the Hugging Face hub must be downloaded first)"
        )
    tokenizer: Tokenizer
    if config.tokenizer_type in SENTENCEPIECE_TYPES:
        tokenizer = SentencePieceTokenizer(path, config.tokenizer_type)
    else:
        tokenizer = HuggingFaceTokenizer(path, config.tokenizer_hf_no_include_special_tokens)
    if config.chat_template is not None:
        tokenizer.chat_template = named_template(config.chat_template)
    return tokenizer


class HuggingFaceTokenizer(Tokenizer):
    """A fast tokenizer of `transformers`, from a folder with its files."""

    tokenizer_type = "HuggingFaceTokenizer"

    def __init__(self, folder: Path, no_include_special_tokens: bool = False):
        self.folder, self.name = folder, folder.resolve().name
        self.no_include_special_tokens = no_include_special_tokens
        self._backend, ids = load_plain(folder) or self._with_transformers()
        # Documents are encoded whole, whatever length limit or padding the files ask for.
        self._backend.no_truncation()
        self._backend.no_padding()
        self.vocab_size = max(self._backend.get_vocab(with_added_tokens=True).values()) + 1
        self.bos, self.pad = ids["bos_token"], ids["pad_token"]
        self.eod = _required_eod(ids["eos_token"], folder)

    @functools.cached_property
    def transformers_tokenizer(self) -> Any:
        """The tokenizer as `transformers` loads it; taken only by who needs more than ids."""
        return load_with_transformers(self.folder)

    @property
    def backend(self) -> Any:
        """The tokenizer of the `tokenizers` library."""
        return self._backend

    def _with_transformers(self) -> tuple[Any, dict[str, Optional[int]]]:
        loaded = self.transformers_tokenizer
        names = ("bos_token", "eos_token", "pad_token")
        return loaded.backend_tokenizer, {name: getattr(loaded, f"{name}_id") for name in names}

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._backend.encode_batch_fast(
            list(texts), add_special_tokens=not self.no_include_special_tokens
        )
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def decode_batch(self, ids: Sequence[Sequence[int]]) -> list[str]:
        return self._backend.decode_batch(ids, skip_special_tokens=True)

    def pieces(self) -> list[str | None]:
        by_id = {i: piece for piece, i in self._backend.get_vocab(with_added_tokens=True).items()}
        return [by_id.get(i) for i in range(self.vocab_size)]

    def _save_files(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # The files as they are, where they say by themselves what class loads them: what
        # transformers writes anew is not always readable by its older versions.
        if _names_its_class(self.folder):
            _copy_files(self.folder, folder)
        else:
            self.transformers_tokenizer.save_pretrained(folder)

    def _content(self) -> dict[str, Any]:
        state = json.loads(self._backend.to_str())
        model = state["model"]
        merges = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges", [])]
        return {
            "vocab": self._backend.get_vocab(with_added_tokens=True),
            "merges": merges,
            "scores": model["vocab"] if isinstance(model["vocab"], list) else [],
            "added": [[t["id"], t["content"], t["special"]] for t in state["added_tokens"]],
        }


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece .model file; the three Megatron type names give the same ids."""

    def __init__(self, path: Path, tokenizer_type: str = "SentencePieceTokenizer"):
        self.path = _sentencepiece_file(path)
        self.folder, self.name = self.path.parent, path.resolve().name
        self.tokenizer_type = tokenizer_type
        self._processor = _load_sentencepiece(self.path)
        self.vocab_size = self._processor.get_piece_size()
        self.bos = _id_or_none(self._processor.bos_id())
        self.pad = _id_or_none(self._processor.pad_id())
        self.eod = _required_eod(_id_or_none(self._processor.eos_id()), self.path)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        # One thread: whoever encodes much runs one process per core already.
        return self._processor.encode(list(texts), num_threads=1)

    def decode(self, ids: Sequence[int]) -> str:
        return self._processor.decode([int(i) for i in ids if i < self.vocab_size])

    def pieces(self) -> list[str | None]:
        return [self._processor.id_to_piece(i) for i in range(self.vocab_size)]

    def _save_files(self, folder: Path) -> None:
        backend, special_tokens = sentencepiece_to_hf(self.path)
        write_hf_files(backend, folder, **special_tokens)
        shutil.copyfile(self.path, folder / "tokenizer.model")
        for name in (EXTENSION_FILE, TEMPLATE_FILE, TRAINING_TEMPLATE_FILE):
            if (self.folder / name).is_file() and self.folder.resolve() != folder.resolve():
                shutil.copyfile(self.folder / name, folder / name)

    def _content(self) -> dict[str, Any]:
        pieces = range(self.vocab_size)
        return {
            "vocab": {self._processor.id_to_piece(i): i for i in pieces},
            "scores": [self._processor.get_score(i) for i in pieces],
        }


def load_with_transformers(folder: Path) -> Any:
    """The fast tokenizer that `transformers.AutoTokenizer` loads from a folder.

    Raises:
        UserError: no folder, no tokenizer in it, or one without a fast form.
    """
    if not folder.is_dir():
        raise UserError(
            f"tokenizer.tokenizer_model {folder} is a file, and HuggingFaceTokenizer needs the "
            "folder with tokenizer.json; give the folder, or for a SentencePiece .model file set "
            "tokenizer.tokenizer_type=SentencePieceTokenizer"
        )
    from transformers import AutoTokenizer  # takes seconds, so not before it is needed

    try:
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers and tokenizers share no base class for errors
        raise UserError(
            f"{folder} does not hold a Hugging Face tokenizer that can be loaded: {error}; it "
            "needs tokenizer.json and tokenizer_config.json"
        ) from error
    if not loaded.is_fast:
        raise UserError(
            f"{folder} holds a {type(loaded).__name__} without a fast form (tokenizer.json), "
            "which is needed; save it in that form with transformers first"
        )
    return loaded


def _names_its_class(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    return config.is_file() and "tokenizer_class" in json.loads(config.read_text(encoding="utf-8"))


def _copy_files(source: Path, target: Path) -> None:
    for name in _COPIED_FILES:
        if (source / name).is_file() and source.resolve() != target.resolve():
            shutil.copyfile(source / name, target / name)


def _sentencepiece_file(path: Path) -> Path:
    file = path / "tokenizer.model" if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"{path} holds no tokenizer.model; give a SentencePiece .model file, or for a folder "
            "with tokenizer.json set tokenizer.tokenizer_type=HuggingFaceTokenizer"
        )
    return file


def _load_sentencepiece(file: Path) -> Any:
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{file} is not a SentencePiece model ({error}); give a .model file, or set "
            "tokenizer.tokenizer_type=HuggingFaceTokenizer for a folder with tokenizer.json"
        ) from error


def _required_eod(eos_id: Optional[int], where: Path) -> int:
    if eos_id is None:
        raise UserError(
            f"the tokenizer {where} has no end-of-sequence token, and documents must end with "
            "one; name it as eos_token in its tokenizer_config.json"
        )
    return eos_id


def _id_or_none(identifier: int) -> Optional[int]:
    return None if identifier < 0 else identifier
