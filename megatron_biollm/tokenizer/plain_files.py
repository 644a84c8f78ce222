"""Hugging Face files that need no `transformers`: its import takes seconds and 250 MB.

Where tokenizer_config.json does no more than to name special tokens, what `AutoTokenizer` loads is
tokenizer.json with these tokens added. Everything else is left to `transformers`.
"""

import json
from pathlib import Path
from typing import Any, Optional

from tokenizers import AddedToken, Tokenizer

_CLASSES = {"PreTrainedTokenizerFast", "TokenizersBackend"}
_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
# Settings that do not touch the ids of a whole text.
_HARMLESS = {
    "tokenizer_class", "backend", "is_local", "clean_up_tokenization_spaces", "model_input_names",
    "model_max_length", "padding_side", "truncation_side", "chat_template", "max_length", "stride",
    "truncation_strategy",
}  # fmt: skip
_MORE_FILES = ("special_tokens_map.json", "added_tokens.json")


def load_plain(folder: Path) -> Optional[tuple[Tokenizer, dict[str, Optional[int]]]]:
    """The tokenizer that `AutoTokenizer` would load, and the ids of its named special tokens.

    Returns:
        None where the files ask for more, or are damaged: `transformers` loads them, or says why
        it cannot.
    """
    config = _read_config(folder)
    if config is None or any((folder / name).is_file() for name in _MORE_FILES):
        return None
    names = {name: config.pop(name, None) for name in _NAMED}
    more = config.pop("additional_special_tokens", [])
    split = config.pop("split_special_tokens", False)
    tokens = [token for token in [*names.values(), *more] if token is not None]
    if config.keys() - _HARMLESS or not all(isinstance(token, str) for token in tokens):
        return None
    try:
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # the library has no class of its own for errors
        return None
    if any(backend.token_to_id(token) is None for token in tokens):
        return None
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in tokens])
    backend.encode_special_tokens = bool(split)
    ids = {name: None if t is None else backend.token_to_id(t) for name, t in names.items()}
    return backend, ids


def _read_config(folder: Path) -> Optional[dict[str, Any]]:
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    plain = isinstance(config, dict) and config.get("tokenizer_class") in _CLASSES
    return config if plain else None
