"""The tokenizer of `transformers` that reads rendered conversations."""

import tempfile
from pathlib import Path
from typing import Any

from megatron_biollm.tokenizer.tokenizer import Tokenizer, load_with_transformers


def rendered_chat_tokenizer(tokenizer: Tokenizer) -> Any:
    """The tokenizer as `transformers` loads it from an export, reading special tokens in text."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        loaded = load_with_transformers(Path(folder))
    backend = loaded.backend_tokenizer
    backend.encode_special_tokens = False
    backend.no_truncation()
    backend.no_padding()
    return loaded


def special_tokens(transformers_tokenizer: Any) -> dict[int, str]:
    """Ids and names of the tokens that text never becomes."""
    added = transformers_tokenizer.added_tokens_decoder.items()
    named = transformers_tokenizer.all_special_tokens
    ids = {transformers_tokenizer.convert_tokens_to_ids(token): token for token in named}
    return ids | {i: token.content for i, token in added if token.special}
