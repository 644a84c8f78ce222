"""One survivor for every record that comes in several versions or under several names.

A document *claims* keys: the PMID it bears, the application number of its patent, the digest of
its text. Of all claims to a key the highest one wins, in whatever order the files were read:
the newest version of a PMID, the full text over the abstract, the grant over the application.
Claims are dealt to buckets by their key, so that each bucket is resolved by itself in bounded
memory, as MinHash does it with its bands. datatrove's exact deduplication knows neither versions
nor withdrawals, so this is our own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from megatron_biollm.atomic import remove_leftovers, temporary_name, whole_file
from megatron_biollm.corpus.document import Document

# What a claim is about; the value is stored, so never renumber.
KINDS = {"pubmed": 1, "pmc": 2, "clinical_trials": 3, "patents": 4, "text": 5}

# Document numbers that stand for no document of the shard.
GHOST = 0xFFFFFFFF  # dropped later, but its verdict on older versions stands
WITHDRAWAL = 0xFFFFFFFE

# Fields in the order in which they decide; `tie` makes the outcome independent of file order.
CLAIM = np.dtype(
    [
        ("key", "<u8"),
        ("key2", "<u8"),
        ("kind", "u1"),
        ("standing", "u1"),
        ("version", "<u2"),
        ("sequence", "<u4"),
        ("revised", "<u4"),
        ("size", "<u4"),
        ("tie", "<u8"),
        ("shard", "<u4"),
        ("document", "<u4"),
    ]
)

LOSS = np.dtype(
    [
        ("shard", "<u4"),
        ("document", "<u4"),
        ("reason", "u1"),
        ("winner_shard", "<u4"),
        ("winner_document", "<u4"),
    ]
)

REASONS = {
    1: "superseded_version",
    2: "withdrawn",
    3: "in_full_text",
    4: "patent_family",
    5: "exact_duplicate",
    6: "duplicate_record",
}

# Sources whose copy of a text is kept before others', the last one first.
_PREFERENCE = ("text", "patents", "clinical_trials", "pubmed", "clinical_notes", "pmc")
_FULL_TEXT = 1
# A megabyte of Python objects, whatever the size of a shard.
_ROWS_AT_ONCE = 4096


def identity_claims(document: Document, file: str) -> list[tuple]:
    """The claims of a document to its names, as rows of `CLAIM` without shard and document.

    file: name of the file it came from, whose number orders PubMed's baseline and updates.
    """
    about = document.metadata
    common = (
        min(int(about.get("version") or 1), 0xFFFF),
        file_sequence(file),
        _as_number(about.get("revised") or document.date),
        min(len(document.text), 0xFFFFFFFF),
        _digest(document.text)[0],
    )
    rows = []
    if document.source == "pubmed" and about.get("pmid"):
        rows.append((*_digest(f"pmid {about['pmid']}"), KINDS["pubmed"], 0, *common))
    if document.source == "pmc":
        if about.get("pmcid"):
            rows.append((*_digest(f"pmcid {about['pmcid']}"), KINDS["pmc"], 0, *common))
        if about.get("pmid"):
            # Beats the abstract of the same article, and never loses to another full text.
            rows.append((*_digest(f"pmid {about['pmid']}"), KINDS["pubmed"], _FULL_TEXT, *common))
    if document.source == "clinical_trials" and about.get("nct_id"):
        rows.append((*_digest(f"nct {about['nct_id']}"), KINDS["clinical_trials"], 0, *common))
    if document.source == "patents" and about.get("family"):
        granted = int(about.get("kind") == "grant")
        rows.append((*_digest(f"patent {about['family']}"), KINDS["patents"], granted, *common))
    return rows


def withdrawal_claim(pmid: str, file: str) -> tuple:
    """The claim of a `DeleteCitation` in a file: it ends every record of the PMID read so far."""
    return (*_digest(f"pmid {pmid}"), KINDS["pubmed"], 0, 0, file_sequence(file), 0, 0, 0)


def text_claim(document: Document) -> tuple:
    """The claim to a text as such, whatever its case and white space."""
    standing = _PREFERENCE.index(document.source) if document.source in _PREFERENCE else 0
    key = _digest(" ".join(document.text.casefold().split()))
    revised = _as_number(document.metadata.get("revised") or document.date)
    tie = _digest(f"{document.source} {document.id}")[0]
    return (*key, KINDS["text"], standing, 0, 0, revised, len(document.text), tie)


def file_sequence(file: str) -> int:
    """The number by which NLM orders its files (pubmed26n1234 is 261234); 0 for other names."""
    match = re.match(r"(?:pubmed|medline)(\d{2})n(\d{4,5})\b", Path(file).name)
    return int(match[1]) * 100_000 + int(match[2]) if match else 0


class ClaimFiles:
    """A shard's claims, dealt to the buckets' folders as they come: FOLDER/BUCKET/SHARD.claims.

    The files have their names after `commit`. For use in a `with`.
    """

    def __init__(self, folder: Path, shard: int, buckets: int):
        self.shard, self.rows = shard, []
        paths = [folder / f"{b:04d}" / f"{shard:05d}.claims" for b in range(buckets)]
        self.files = [(temporary_name(path), path) for path in paths]
        for temporary, path in self.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path)
            temporary.touch()

    def add(self, claim: tuple, document: int) -> None:
        """claim: a row of `CLAIM` without its last two fields, which are put here."""
        self.rows.append((*claim, self.shard, document))
        if len(self.rows) >= _ROWS_AT_ONCE:
            self._flush()

    def commit(self) -> None:
        self._flush()
        for temporary, path in self.files:
            temporary.replace(path)

    def _flush(self) -> None:
        claims = np.array(self.rows, dtype=CLAIM)
        self.rows = []
        bucket = claims["key"] % len(self.files)
        for number in np.unique(bucket):
            with self.files[number][0].open("ab") as file:
                file.write(claims[bucket == number].tobytes())

    def __enter__(self) -> ClaimFiles:
        return self

    def __exit__(self, *_: object) -> None:
        for temporary, _ in self.files:
            temporary.unlink(missing_ok=True)


def read_claims(folder: Path, bucket: int) -> np.ndarray:
    """All shards' claims of a bucket: [claims] of `CLAIM`."""
    files = sorted((folder / f"{bucket:04d}").glob("*.claims"))
    return np.concatenate([np.empty(0, CLAIM), *(np.fromfile(file, CLAIM) for file in files)])


def resolve(claims: np.ndarray) -> np.ndarray:
    """Who loses: [losses] of `LOSS`, in order of shard and document.

    claims: [claims] of `CLAIM`, every claim to each of its keys among them.
    """
    if not len(claims):
        return np.empty(0, LOSS)
    claims = claims[np.lexsort([claims[name] for name in reversed(CLAIM.names)])]
    changes = [claims[name][1:] != claims[name][:-1] for name in ("key", "key2", "kind")]
    starts = np.flatnonzero(np.concatenate([[True], np.logical_or.reduce(changes)]))
    group = np.repeat(np.arange(len(starts)), np.diff([*starts, len(claims)]))
    withdrawn = _withdrawn(claims, group, len(starts))
    # Claims are in order, so of the living ones of a group the last is the highest.
    living = np.flatnonzero(~withdrawn & (claims["document"] != WITHDRAWAL))
    winner = np.full(len(starts), -1)
    winner[group[living]] = living
    best = winner[group]
    beaten = (best >= 0) & (best != np.arange(len(claims))) & (claims["document"] != WITHDRAWAL)
    beaten &= ~((claims["kind"] == KINDS["pubmed"]) & (claims["standing"] == _FULL_TEXT))
    lost = (beaten | withdrawn) & (claims["document"] < WITHDRAWAL)
    return np.sort(_losses(claims, lost, best, withdrawn), order=("shard", "document"))


def save(path: Path, array: np.ndarray) -> None:
    """Writes an array, complete or not at all."""
    remove_leftovers(path)
    with whole_file(path) as file:
        np.save(file, array)


def losses_of(folder: Path, shard: int) -> dict[int, np.void]:
    """The losses of a shard's documents in all buckets, by document; one of several reasons."""
    return {int(loss["document"]): loss for loss in _own_losses(folder, shard)}


def _own_losses(folder: Path, shard: int) -> Iterator[np.void]:
    for file in sorted(folder.glob("*.npy")):
        losses = np.load(file, mmap_mode="r")
        first, last = np.searchsorted(losses["shard"], [shard, shard + 1])
        yield from np.array(losses[first:last])


def _withdrawn(claims: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Claims of abstracts that a later file withdraws."""
    ended = claims["document"] == WITHDRAWAL
    last = np.full(groups, -1, np.int64)
    np.maximum.at(last, group[ended], claims["sequence"][ended].astype(np.int64))
    full_text = claims["standing"] == _FULL_TEXT
    return (claims["sequence"] <= last[group]) & ~ended & ~full_text


def _losses(
    claims: np.ndarray, lost: np.ndarray, best: np.ndarray, withdrawn: np.ndarray
) -> np.ndarray:
    winner = claims[np.maximum(best, 0)]
    order = ("version", "sequence", "revised")
    equal = np.logical_and.reduce([claims[name] == winner[name] for name in order])
    reason = np.where(equal, 6, 1)
    reason[claims["kind"] == KINDS["patents"]] = 4
    reason[claims["kind"] == KINDS["text"]] = 5
    reason[(claims["kind"] == KINDS["pubmed"]) & (winner["standing"] == _FULL_TEXT)] = 3
    reason[withdrawn] = 2
    losses = np.empty(int(lost.sum()), LOSS)
    losses["shard"], losses["document"] = claims["shard"][lost], claims["document"][lost]
    losses["reason"] = reason[lost]
    losses["winner_shard"] = winner["shard"][lost]
    losses["winner_document"] = winner["document"][lost]
    return losses


def _digest(text: str) -> tuple[int, int]:
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _as_number(date: str | None) -> int:
    """2020-01-05 to 20200105, 2020 to 20200000: later dates are larger."""
    parts = [*(date or "").split("-"), "", ""][:3]
    digits = [part if part.isdecimal() else "" for part in parts]
    return min(int(digits[0].rjust(4, "0") + digits[1].zfill(2) + digits[2].zfill(2)), 0xFFFFFFFF)
