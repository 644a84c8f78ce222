"""PREFIX.manifest.json: which tokenizer made a corpus, and the digests of its files.

Megatron's two files stay byte for byte as they are; what they cannot say stands beside them.
Corpora made by Megatron-LM have no sidecar and are accepted with a warning.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.atomic import write_json
from megatron_biollm.config import UserError
from megatron_biollm.data.layout import REMEDY, Layout, read_layout
from megatron_biollm.log import get_logger
from megatron_biollm.tokenizer.manifest import TokenizerManifest

_CHUNK_IDS = 1 << 24


def sidecar_path(prefix: str) -> Path:
    return Path(f"{prefix}.manifest.json")


def read_sidecar(prefix: str) -> Optional[dict[str, Any]]:
    """The sidecar's contents, or None where the corpus has none.

    Raises:
        UserError: the file is there but is not a JSON object.
    """
    path = sidecar_path(prefix)
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it or {REMEDY}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object; delete it or {REMEDY}")
    return value


def write_sidecar(prefix: str, contents: Optional[dict[str, Any]]) -> None:
    """Writes the sidecar in one step; None removes an older corpus's one."""
    if contents is None:
        sidecar_path(prefix).unlink(missing_ok=True)
    else:
        write_json(sidecar_path(prefix), contents)


def file_digests(prefix: str) -> dict[str, str]:
    """sha256 of PREFIX.bin and PREFIX.idx, in hex."""
    digests = {}
    for suffix in ("bin", "idx"):
        with Path(f"{prefix}.{suffix}").open("rb") as file:
            digests[suffix] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def max_token_id(layout: Layout) -> int:
    """The largest id of the corpus, -1 for none; reads all of PREFIX.bin, a piece at a time."""
    ids, largest = layout.token_ids(), -1
    for start in range(0, len(ids), _CHUNK_IDS):
        largest = max(largest, int(ids[start : start + _CHUNK_IDS].max()))
    return largest


def check_tokenizer(prefixes: Iterable[str], manifest: TokenizerManifest) -> None:
    """Every corpus must have been encoded with the run's tokenizer.

    Raises:
        UserError: naming both tokenizers, where a sidecar tells of another one.
    """
    for prefix in prefixes:
        sidecar = read_sidecar(prefix)
        if sidecar is None or sidecar.get("tokenizer") is None:
            get_logger(__name__).warning(
                "%s does not exist, so nothing tells which tokenizer made %s (Megatron-LM writes "
                "no sidecar); make sure it was %s",
                sidecar_path(prefix),
                prefix,
                manifest.name,
            )
            continue
        made_with = TokenizerManifest.from_json(sidecar["tokenizer"])
        manifest.check_same(made_with, "this run", str(sidecar_path(prefix)))


def check_vocabulary(prefixes: Iterable[str], vocab_size: int) -> None:
    """Every token id must have a row in the model's embedding.

    Takes the largest id from the sidecar; a corpus without one is read through.
    vocab_size: the true vocabulary size, without padding.

    Raises:
        UserError: naming the corpus and its largest id.
    """
    for prefix in prefixes:
        layout, sidecar = read_layout(prefix), read_sidecar(prefix) or {}
        largest = sidecar.get("max_token_id")
        if largest is None:
            largest = max_token_id(layout)
        if largest >= vocab_size:
            raise UserError(
                f"{prefix} holds the token id {largest}, but the vocabulary has {vocab_size} "
                "entries (ids from 0); encode the corpus with the run's tokenizer, or give the "
                "tokenizer it was made with"
            )
