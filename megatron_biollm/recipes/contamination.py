"""Training data searched for the items of benchmarks, shard by shard and resumably."""

import hashlib
import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np

from megatron_biollm.atomic import disk_errors, whole_file
from megatron_biollm.config import UserError
from megatron_biollm.corpus.dedup.shingles import hash_words, shingle
from megatron_biollm.data.sidecar import check_tokenizer
from megatron_biollm.data.workers import ordered_map
from megatron_biollm.evaluation.benchmark import Benchmark
from megatron_biollm.evaluation.contamination import NGRAM, Findings, passages, write_findings
from megatron_biollm.evaluation.items import AnyItem
from megatron_biollm.evaluation.overlap import Found, GramIndex
from megatron_biollm.log import Progress
from megatron_biollm.recipes.contamination_scan import FEWEST_WORDS, Scanner, Unit, plan_units
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer


@dataclass(frozen=True)
class Search:
    """What is looked for, and where.

    Attributes:
        benchmarks: in the order of the file. data: folder with theirs.
        output: the file to write; beside it `OUTPUT.scan/` keeps what is done.
        prefixes: indexed corpora, made with `tokenizer`. jsonl: files or patterns of documents.
        key: of the text in JSON lines.
        splits, conventions, files, skip_missing: as in `Plan`.
        ngram: words of an n-gram. workers: processes.
    """

    benchmarks: Sequence[Benchmark]
    data: Path
    output: Path
    prefixes: Sequence[str] = ()
    jsonl: Sequence[str] = ()
    tokenizer: Optional[TokenizerConfig] = None
    key: str = "text"
    splits: Mapping[str, str] = field(default_factory=dict)
    skip_missing: bool = False
    conventions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ngram: int = NGRAM
    workers: int = 1

    def __post_init__(self) -> None:
        if not self.prefixes and not self.jsonl:
            raise UserError("no training data to search; give --data-prefix or --jsonl")
        if self.prefixes and self.tokenizer is None:
            raise UserError(
                "an indexed corpus holds ids, not words; give --tokenizer-model, the tokenizer it "
                "was made with"
            )
        if not FEWEST_WORDS <= self.ngram <= 50:
            raise UserError(f"--ngram {self.ngram} is not from {FEWEST_WORDS} to 50 words")
        if self.workers < 1:
            raise UserError(f"--workers {self.workers} must be at least 1")


@dataclass(frozen=True)
class Asked:
    """A benchmark whose items are looked for."""

    benchmark: Benchmark
    split: str
    conventions: Mapping[str, str]
    items: Sequence[AnyItem]


def search(wanted: Search) -> Findings:
    """Searches all of the training data and writes the file; goes on where it was stopped.

    Raises:
        UserError: files that are missing or damaged, or a corpus of another tokenizer.
    """
    asked = list(_read_benchmarks(wanted))
    grams = [one for each in asked for one in item_grams(each.items, wanted.ngram)]
    index = GramIndex.build(grams)
    if wanted.prefixes:
        manifest = TokenizerManifest.from_tokenizer(build_tokenizer(wanted.tokenizer))
        check_tokenizer(wanted.prefixes, manifest)
    folder = wanted.output.with_name(f"{wanted.output.name}.scan")
    with disk_errors(folder, "free some disk space; what is done is kept", kept="part was kept"):
        _store_index(folder / "index.npz", index)
        places = _search_all(wanted, index, folder)
    findings = _findings(wanted, asked, index, *places)
    write_findings(wanted.output, findings)
    shutil.rmtree(folder)
    return findings


def item_grams(items: Sequence[AnyItem], ngram: int) -> list[np.ndarray]:
    """Hashes of each item's n-grams; of a text with fewer words than that one hash of them all."""
    texts = passages(items, ngram)
    words = hash_words([text for own in texts for text in own])
    hashes, offsets = shingle(words, ngram)
    long_enough = np.diff(words.offsets) >= FEWEST_WORDS
    hashes = hashes[np.repeat(long_enough, np.diff(offsets))]
    kept = np.concatenate([[0], np.cumsum(np.diff(offsets) * long_enough)])
    edges = kept[np.concatenate([[0], np.cumsum([len(own) for own in texts], dtype=np.int64)])]
    return [hashes[start:end] for start, end in itertools.pairwise(edges)]


def _read_benchmarks(wanted: Search) -> Iterator[Asked]:
    from megatron_biollm.evaluation.plan import Plan, prepare

    plan = Plan(
        wanted.benchmarks,
        wanted.data,
        splits=wanted.splits,
        conventions=wanted.conventions,
        files=wanted.files,
        skip_missing=wanted.skip_missing,
    )
    for one in prepare(plan):
        yield Asked(one.benchmark, one.split, one.conventions, one.items)


def _store_index(path: Path, index: GramIndex) -> None:
    with whole_file(path) as file:
        np.savez(file, **asdict(index))


def _search_all(
    wanted: Search, index: GramIndex, folder: Path
) -> tuple[Found, dict[str, dict[str, int]]]:
    """What all units hold together, and of each file what was read.

    Documents are counted through all files in order.
    """
    planned = partial(plan_units, wanted.prefixes, wanted.jsonl, wanted.workers)
    units = [unit for unit, _ in planned()]
    base = hashlib.sha256(index.hashes.tobytes() + wanted.key.encode()).hexdigest()
    paths = {unit: folder / f"{_digest(unit, base)}.npz" for unit in units}
    waiting = [unit for unit in units if not paths[unit].is_file()]
    make = partial(Scanner, folder / "index.npz", wanted.tokenizer, wanted.key, wanted.ngram)
    tasks = (
        task
        for task in plan_units(wanted.prefixes, wanted.jsonl, wanted.workers)
        if task[0] in set(waiting)
    )
    start, words = time.perf_counter(), 0
    with Progress(len(units), "search", "parts", initial=len(units) - len(waiting)) as progress:
        for unit, done in zip(waiting, ordered_map(make, tasks, wanted.workers), strict=True):
            _store(paths[unit], *done)
            words += done[2]
            progress.update(1, words_per_s=f"{words / (time.perf_counter() - start):,.0f}")
    return _together(index, units, paths)


def _together(
    index: GramIndex, units: Sequence[Unit], paths: Mapping[Unit, Path]
) -> tuple[Found, dict[str, dict[str, int]]]:
    found, before, read = Found.nothing(index), 0, {}
    for unit in units:
        part, documents, words = _load(paths[unit], index)
        found.add(part, before)
        before += documents
        counts = read.setdefault(unit.name, Counter())
        counts.update(documents=documents, words=words)
    return found, {name: dict(counts) for name, counts in read.items()}


def _store(path: Path, found: Found, documents: int, words: int) -> None:
    with whole_file(path) as file:
        np.savez(
            file,
            grams=np.packbits(found.grams),
            most=found.most,
            where=found.where,
            read=np.array([documents, words]),
        )


def _load(path: Path, index: GramIndex) -> tuple[Found, int, int]:
    with np.load(path) as stored:
        grams = np.unpackbits(stored["grams"], count=len(index.hashes)).astype(bool)
        documents, words = stored["read"].tolist()
        return Found(grams, stored["most"], stored["where"]), documents, words


def _findings(
    wanted: Search,
    asked: Sequence[Asked],
    index: GramIndex,
    found: Found,
    read: Mapping[str, Mapping[str, int]],
) -> Findings:
    shares, first, benchmarks = found.shares(index), 0, {}
    starts = np.cumsum([0, *(counts["documents"] for counts in read.values())])
    for one in asked:
        numbers = range(first, first + len(one.items))
        first += len(one.items)
        rows = [
            {
                "id": item.id,
                "share": round(float(shares[number]), 4),
                "in_one_document": round(float(found.most[number] / index.totals[number]), 4),
                **_where(int(found.where[number]), list(read), starts),
            }
            for number, item in zip(numbers, one.items, strict=True)
            if shares[number] > 0
        ]
        benchmarks[one.benchmark.name] = {
            "split": one.split,
            "conventions": dict(one.conventions),
            "items": len(one.items),
            "too_short": int((index.totals[numbers.start : numbers.stop] == 0).sum()),
            "found": sorted(rows, key=lambda row: -row["share"]),
        }
    return Findings(wanted.ngram, tuple(read), benchmarks)


def _where(document: int, names: Sequence[str], starts: np.ndarray) -> dict[str, Any]:
    """The file and the number in it, from 0, of a document counted through all files."""
    file = int(np.searchsorted(starts, document, "right")) - 1
    return {"file": names[file], "document": document - int(starts[file])}


def _digest(unit: Unit, base: str) -> str:
    return hashlib.sha256(f"{base} {json.dumps(asdict(unit), sort_keys=True)}".encode()).hexdigest()
