"""What new pieces do to text they were not learnt from, and whether the base's promises hold."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.extend import Extension
from megatron_biollm.tokenizer.mergeable import MergeableVocabulary, open_vocabulary
from megatron_biollm.tokenizer.tokenizer import Tokenizer, TokenizerConfig, build_tokenizer

_DOCUMENTS_AT_A_TIME = 64
_CONTROL = "<s> {}</s> <unk>\n</s>x<s>"


@dataclass
class HeldOut:
    """Documents kept from learning, chosen by the hash of their text alone.

    fraction: of all documents. limit_bytes: of text that is kept for measuring; what is held out
        beyond is counted in `left_out`.
    """

    fraction: float
    limit_bytes: int = 16 * 2**20
    documents: list[tuple[str, str]] = field(default_factory=list)
    left_out: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1:
            raise UserError(
                f"a fraction of {self.fraction} cannot be held out; give 0 or more, less than 1"
            )

    def takes(self, source: str, text: str) -> bool:
        """Whether the document is held out; it is kept with its source then."""
        data = text.encode(errors="surrogatepass")
        digest = hashlib.sha256(data).digest()
        if int.from_bytes(digest[:8], "big") >= self.fraction * 2**64:
            return False
        self.limit_bytes -= len(data)
        if self.limit_bytes < 0:
            self.left_out += 1
        else:
            self.documents.append((source, text))
        return True


@dataclass
class SourceCount:
    """Words (between white space) and tokens of one source's held-out documents."""

    source: str
    documents: int = 0
    words: int = 0
    tokens_before: int = 0
    tokens_after: int = 0

    def to_dict(self) -> dict[str, Any]:
        words, before = max(self.words, 1), max(self.tokens_before, 1)
        return asdict(self) | {
            "tokens_per_word_before": round(self.tokens_before / words, 4),
            "tokens_per_word_after": round(self.tokens_after / words, 4),
            "percent_saved": round(100 * (1 - self.tokens_after / before), 2),
        }


class ExtensionReport:
    """Compares a base and its extension, document by document.

    folder: of the extended tokenizer.
    """

    def __init__(self, base: MergeableVocabulary, extension: Extension, folder: str | Path):
        self.base, self.extension = base, extension
        self.extended = open_vocabulary(folder)
        self.forms = _other_forms(self.extended.tokenizer, Path(folder))
        self.sources: dict[str, SourceCount] = {}
        self.used: Counter[int] = Counter()
        self.compared = 0
        self.differing: defaultdict[str, int] = defaultdict(int)
        self.longer = self.changed_text = 0

    def measure(self, documents: Iterable[tuple[str, str]]) -> None:
        """Adds documents (source, text) to the counts and compares all forms on them."""
        for batch in _batches(documents):
            texts = [text for _, text in batch]
            before = self.base.tokenizer.encode_batch(texts)
            after = self.extended.tokenizer.encode_batch(texts)
            for (source, text), old, new in zip(batch, before, after, strict=True):
                self._count(source, text, old, new)
            self._compare(texts)

    def compare(self, documents: Iterable[tuple[str, str]]) -> None:
        """Compares all forms on documents (source, text) without counting their tokens."""
        for batch in _batches(documents):
            self._compare([text for _, text in batch])

    def _compare(self, texts: list[str]) -> None:
        """Each text as it is, and once more among the characters of control tokens."""
        texts = [*texts, *(_CONTROL.format(text) for text in texts)]
        expected = self.extended.tokenizer.encode_batch(texts)
        self.compared += len(texts)
        for name, encode in self.forms.items():
            found = encode(texts)
            self.differing[name] += sum(a != b for a, b in zip(found, expected, strict=True))

    def _count(self, source: str, text: str, old: list[int], new: list[int]) -> None:
        row = self.sources.setdefault(source, SourceCount(source))
        row.documents += 1
        row.words += len(text.split())
        row.tokens_before += len(old)
        row.tokens_after += len(new)
        self.longer += len(new) > len(old)
        self.changed_text += self.extended.tokenizer.decode(new) != self.base.tokenizer.decode(old)
        self.used.update(i for i in new if i >= self.extension.base_vocab_size)

    def checks(self) -> dict[str, int]:
        """How often a promise is broken; all zero where the tokenizer is as it should be."""
        return {
            "base pieces with another id": self._moved(),
            "base words made longer": self._longer_words(),
            "documents made longer": self.longer,
            "documents that decode to another text": self.changed_text,
            "new word pieces that are not one token": self._not_themselves(),
            **{f"documents with other ids in {name}": n for name, n in self.differing.items()},
        }

    def pieces(self) -> list[dict[str, Any]]:
        """New pieces, those that saved most tokens in the held-out documents first."""
        names = self.extended.tokenizer.pieces()
        first = self.extension.base_vocab_size
        rows = [
            {
                "id": first + i,
                "piece": names[first + i],
                "before": [names[part] for part in parts],
                "held_out_uses": self.used[first + i],
                "tokens_saved": self.used[first + i] * (len(parts) - 1),
            }
            for i, parts in enumerate(self.extension.sub_ids)
        ]
        return sorted(rows, key=lambda row: (-row["tokens_saved"], row["id"]))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = sorted(self.sources.values(), key=lambda row: row.source)
        total = SourceCount("all")
        for row in rows:
            for name in ("documents", "words", "tokens_before", "tokens_after"):
                setattr(total, name, getattr(total, name) + getattr(row, name))
        return {
            "held_out": [row.to_dict() for row in (*rows, total)],
            "texts_compared": self.compared,
            "forms_compared": sorted(self.forms),
            "checks": self.checks(),
            "pieces": self.pieces(),
        }

    def _moved(self) -> int:
        old = self.base.tokenizer.pieces()
        return sum(a != b for a, b in zip(old, self.extended.tokenizer.pieces(), strict=False))

    def _longer_words(self) -> int:
        """The base's own words are general words; each must keep its ids."""
        words = {self.base.text(p).strip() for p in self.base.pieces}
        texts = [self.base.space_before + word for word in sorted(words) if word.isalpha()]
        before = self.base.tokenizer.encode_batch(texts)
        after = self.extended.tokenizer.encode_batch(texts)
        return sum(len(b) > len(a) for a, b in zip(before, after, strict=True))

    def _not_themselves(self) -> int:
        first, names = self.extension.base_vocab_size, self.extended.tokenizer.pieces()
        texts = [(i, self.extended.text(names[i])) for i in range(first, len(names))]
        words = [(i, text[1:]) for i, text in texts if text.startswith(" ")]
        encode = self.extended.tokenizer.encode
        return sum(encode(self.extended.space_before + word)[-1:] != [i] for i, word in words)


def format_report(report: dict[str, Any], shown: int = 30) -> str:
    """Tables for people: sources, promises, the `shown` most useful pieces."""
    lines = [f"{'source':<24}{'documents':>10}{'words':>11}{'tokens/word':>22}{'saved':>9}"]
    for row in report["held_out"]:
        before, after = row["tokens_per_word_before"], row["tokens_per_word_after"]
        lines.append(
            f"{row['source']:<24}{row['documents']:>10}{row['words']:>11}"
            f"{before:>12.3f} -> {after:.3f}{row['percent_saved']:>8.2f}%"
        )
    forms = ", ".join(report["forms_compared"]) or "no other form"
    lines.append(f"\n{report['texts_compared']} texts compared with {forms}")
    lines += [f"{count:>8} {name}" for name, count in report["checks"].items()]
    lines.append(f"\n{'tokens saved':>12}  {'new piece':<18}before")
    for row in report["pieces"][:shown]:
        lines.append(f"{row['tokens_saved']:>12}  {row['piece']:<18}{' '.join(row['before'])}")
    return "\n".join(lines)


def _other_forms(tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    """The other ways to encode with the same files, by name."""
    forms: dict[str, Any] = {}
    if tokenizer.tokenizer_type != "HuggingFaceTokenizer":
        forms["transformers"] = build_tokenizer(
            TokenizerConfig(tokenizer_model=str(folder))
        ).encode_batch
    try:
        from gigatoken import Tokenizer as Fast

        fast = Fast(folder / "tokenizer.json")
    except (ImportError, RuntimeError, ValueError):  # not installed, or not of the kinds it knows
        return forms
    forms["gigatoken"] = lambda texts: fast.encode_batch_list(list(texts), parallel=False)
    return forms


def _batches(documents: Iterable[tuple[str, str]]):
    batch: list[tuple[str, str]] = []
    for document in documents:
        batch.append(document)
        if len(batch) == _DOCUMENTS_AT_A_TIME:
            yield batch
            batch = []
    if batch:
        yield batch
