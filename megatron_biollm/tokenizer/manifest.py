"""The contract between tokenizer, data, checkpoint and export."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.extend import load_extension
from megatron_biollm.tokenizer.tokenizer import Tokenizer, TokenizerConfig, build_tokenizer

MANIFEST_FILE = "manifest.json"

_IDENTITY = ("sha256", "vocab_size", "bos_id", "eod_id", "pad_id")


@dataclass(frozen=True)
class TokenizerManifest:
    """Which tokenizer made ids, written beside everything that holds them.

    name, tokenizer_type: for people and for loading it again; not compared.
    sha256: `Tokenizer.sha256`. vocab_size: true size. padded_vocab_size: embedding rows, the
        next multiple of make_vocab_size_divisible_by, equal for every tensor-parallel size.
    bos_id, eod_id, pad_id: None where the tokenizer has no such token.
    base_vocab_size: size before it was extended. added_tokens: how many tokens that added.
    include_special_tokens: False where BOS or EOS of a Hugging Face tokenizer's rule is left out.
    """

    name: str
    tokenizer_type: str
    sha256: str
    vocab_size: int
    padded_vocab_size: int
    bos_id: int | None
    eod_id: int
    pad_id: int | None
    base_vocab_size: int
    added_tokens: int
    include_special_tokens: bool = True

    @classmethod
    def from_tokenizer(
        cls, tokenizer: Tokenizer, make_vocab_size_divisible_by: int = 1024
    ) -> TokenizerManifest:
        extension = load_extension(tokenizer.folder)
        base_size = extension.base_vocab_size if extension else tokenizer.vocab_size
        multiple = make_vocab_size_divisible_by
        return cls(
            name=tokenizer.name,
            tokenizer_type=tokenizer.tokenizer_type,
            sha256=tokenizer.sha256,
            vocab_size=tokenizer.vocab_size,
            padded_vocab_size=-(-tokenizer.vocab_size // multiple) * multiple,
            bos_id=tokenizer.bos,
            eod_id=tokenizer.eod,
            pad_id=tokenizer.pad,
            base_vocab_size=base_size,
            added_tokens=tokenizer.vocab_size - base_size,
            include_special_tokens=not getattr(tokenizer, "no_include_special_tokens", False),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TokenizerManifest:
        """Raises UserError where fields are missing or unknown."""
        required = {f.name for f in fields(cls)} - {"include_special_tokens"}
        if not isinstance(values, dict) or not required <= values.keys():
            raise UserError(
                f"{values!r} is not a tokenizer manifest: it needs {', '.join(sorted(required))}; "
                "make it again from the tokenizer"
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"not a tokenizer manifest: {error}; make it again") from error

    def write(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> TokenizerManifest:
        """Raises UserError where the file is missing or not a manifest."""
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(
                f"tokenizer manifest {path} cannot be read ({error}); make it again from the "
                "tokenizer"
            ) from error

    def check_same(
        self,
        other: TokenizerManifest,
        where_self: str,
        where_other: str,
        padded: bool = False,
    ) -> None:
        """Raises UserError unless both describe the same ids.

        Args:
            where_self, where_other: what each manifest belongs to, for the message.
            padded: the number of embedding rows must be equal too (checkpoint and run).
        """
        names = _IDENTITY + (("padded_vocab_size",) if padded else ())
        different = [n for n in names if getattr(self, n) != getattr(other, n)]
        if not different:
            return
        values = "; ".join(
            f"{name} is {getattr(self, name)} in {where_self} and {getattr(other, name)} in "
            f"{where_other}"
            for name in different
        )
        raise UserError(f"{_rule(different, self, other, where_self, where_other)}: {values}")


def save_tokenizer(
    tokenizer: Tokenizer, folder: str | Path, make_vocab_size_divisible_by: int = 1024
) -> TokenizerManifest:
    """Writes a tokenizer's files and its manifest.json into a folder."""
    tokenizer.save_pretrained(folder)
    manifest = TokenizerManifest.from_tokenizer(tokenizer, make_vocab_size_divisible_by)
    manifest.write(Path(folder) / MANIFEST_FILE)
    return manifest


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer that `save_tokenizer` wrote, of the same type and settings.

    Raises:
        UserError: no manifest, or the files are not those it was written with.
    """
    manifest = TokenizerManifest.read(Path(folder) / MANIFEST_FILE)
    tokenizer = build_tokenizer(
        TokenizerConfig(
            tokenizer_type=manifest.tokenizer_type,
            tokenizer_model=str(folder),
            tokenizer_hf_no_include_special_tokens=not manifest.include_special_tokens,
        )
    )
    found = TokenizerManifest.from_tokenizer(tokenizer)
    found.check_same(manifest, f"the files of {folder}", f"its {MANIFEST_FILE}")
    return tokenizer


def _rule(
    different: list[str],
    one: TokenizerManifest,
    other: TokenizerManifest,
    where_one: str,
    where_other: str,
) -> str:
    if different == ["padded_vocab_size"]:
        return (
            "embedding rows differ and must be equal; set model.make_vocab_size_divisible_by to "
            "the value the checkpoint was made with"
        )
    return (
        f"tokenizer {one.name!r} of {where_one} and {other.name!r} of {where_other} give "
        "different ids, and must be the same; name the right tokenizer, or make the data again "
        "with this one"
    )
