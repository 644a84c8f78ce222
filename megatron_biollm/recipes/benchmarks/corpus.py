"""How fast source files become documents, and documents pass each step of the curation.

One process, in turns: the reader beside bare lxml on the same bytes, and near-duplicate signatures
beside datatrove's own on the same texts (which need spaCy to find words; left out without it).
Figures are megabytes (10^6 bytes) per second of one core's processor time, the best of the repeats.
"""

import contextlib
import importlib.util
import io
import itertools
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lxml import etree

from megatron_biollm.config import UserError, load_config
from megatron_biollm.corpus.curation import CurationConfig
from megatron_biollm.corpus.dedup.config import ContainmentConfig, NearDuplicateConfig
from megatron_biollm.corpus.dedup.signatures import Signatures
from megatron_biollm.corpus.dedup.sketches import Sketches
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.open import open_streams
from megatron_biollm.corpus.processing import first_processors
from megatron_biollm.corpus.read import read_file
from megatron_biollm.corpus.readers.format import HEAD_BYTES
from megatron_biollm.corpus.readers.registry import find_format
from megatron_biollm.corpus.report import FileReport
from megatron_biollm.corpus.steps import Drop, to_datatrove

# datatrove's signatures take minutes for what ours do in a second.
_DATATROVE_BYTES = 2_000_000
_OF_ONE_SOURCE = {"patent_selection": "patents", "deidentify": "clinical_notes"}


@dataclass
class CorpusBenchmark:
    """What to measure.

    input: a source file. megabytes: of its unpacked bytes, and then of its documents' text,
    repeated where the file is smaller. repeats: of each measurement.
    """

    input: str
    megabytes: int = 100
    repeats: int = 3

    def __post_init__(self) -> None:
        if not Path(self.input).is_file():
            raise UserError(f"--input {self.input} is no file; give one source file")
        if self.megabytes < 1 or self.repeats < 1:
            raise UserError("--megabytes and --repeats are 1 or more")


def benchmark_corpus(options: CorpusBenchmark) -> dict[str, Any]:
    """Measures every step.

    Returns:
        A row for each, and what they were measured on.
    """
    path = Path(options.input)
    rows = [_row("read", *_reading(path, options))]
    documents = list(_repeated(path, options.megabytes * 1_000_000))
    size = sum(len(document.text.encode()) for document in documents)
    for processor in _at_work(documents):
        seconds = _times(lambda p=processor: _apply(p, documents), options.repeats)
        rows.append(_row(processor.name, size, seconds))
    for name, step in _signing():
        seconds = _times(lambda s=step: _drain(s, documents), options.repeats)
        rows.append(_row(name, size, seconds))
    rows += _peers(path, documents, options)
    return {
        "rows": rows,
        "options": {**asdict(options), "input": path.name},
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }


def table(report: dict[str, Any]) -> str:
    """The rows for people."""
    lines = [f"{'step':<44} {'MB/s':>8} {'median':>8} {'MB':>8}"]
    for row in report["rows"]:
        speed = f"{row['mb_per_s']:>8.1f} {row['median_mb_per_s']:>8.1f}"
        lines.append(f"{row['step']:<44} {speed} {row['megabytes']:>8.1f}")
    return "\n".join(lines)


def _row(step: str, size: int, seconds: list[float]) -> dict[str, Any]:
    return {
        "step": step,
        "megabytes": size / 1e6,
        "mb_per_s": size / 1e6 / min(seconds),
        "median_mb_per_s": size / 1e6 / statistics.median(seconds),
    }


def _times(work: Callable[[], Any], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return seconds


def _reading(path: Path, options: CorpusBenchmark) -> tuple[int, list[float]]:
    data, form = _unpacked(path)
    times = max(1, options.megabytes * 1_000_000 // len(data))

    def read() -> None:
        for _ in range(times):
            for _ in form.read(io.BufferedReader(io.BytesIO(data)), path.name, FileReport("")):
                pass

    return times * len(data), _times(read, options.repeats)


def _unpacked(path: Path) -> tuple[bytes, Any]:
    with contextlib.closing(open_streams(path, FileReport(str(path)))) as streams:
        name, stream = next(streams)
        data = stream.read()
    form = find_format(data[:HEAD_BYTES], name)
    if form is None:
        raise UserError(f"--input {path} is of no format that is read; give a source file")
    return data, form


def _repeated(path: Path, size: int) -> Iterator[Document]:
    """The file's documents, over and over up to a size; each time they bear other ids."""
    documents = list(read_file(path, FileReport(str(path))))
    if not documents:
        raise UserError(f"--input {path} holds no documents; give a source file with text")
    for turn in itertools.count():
        for document in documents:
            if size <= 0:
                return
            size -= len(document.text.encode())
            yield Document.from_json({**document.to_record(), "id": f"{document.id}-{turn}"})


def _at_work(documents: list[Document]) -> list[Any]:
    """The processors that do more with these documents than to pass them on."""
    sources = {document.source for document in documents}
    idle = {name for name, own in _OF_ONE_SOURCE.items() if own not in sources}
    return [p for p in first_processors(load_config(CurationConfig)) if p.name not in idle]


def _apply(processor: Callable[[Document], Document | Drop], documents: list[Document]) -> None:
    for document in documents:
        processor(document)


def _signing() -> list[tuple[str, Callable[[Path], Any]]]:
    return [
        ("near-duplicate signatures", lambda to: Signatures(NearDuplicateConfig(), to)),
        ("containment sketches", lambda to: Sketches(ContainmentConfig(), to)),
    ]


def _drain(make: Callable[[Path], Any], documents: Iterable[Document]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = make(Path(folder)).run((to_datatrove(d) for d in documents), 0, 1)
        for _ in result or ():
            pass


def _peers(
    path: Path, documents: list[Document], options: CorpusBenchmark
) -> Iterator[dict[str, Any]]:
    data, _ = _unpacked(path)
    if data[:HEAD_BYTES].lstrip().startswith(b"<"):
        seconds = _times(lambda: _bare_lxml(data), options.repeats)
        yield _row("bare lxml, the same XML", len(data), seconds)
    if importlib.util.find_spec("spacy") is not None:
        some = _first(documents, _DATATROVE_BYTES)
        size = sum(len(document.text.encode()) for document in some)
        yield _row("datatrove's signatures, the same text", size, _times(lambda: _theirs(some), 1))


def _bare_lxml(data: bytes) -> None:
    for _, element in etree.iterparse(io.BytesIO(data), tag="PubmedArticle"):
        element.clear()


def _first(documents: list[Document], size: int) -> list[Document]:
    """As many documents as hold `size` bytes of text."""
    held = itertools.accumulate(len(document.text.encode()) for document in documents)
    return [document for document, so_far in zip(documents, held, strict=True) if so_far <= size]


def _theirs(documents: list[Document]) -> None:
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    _drain(lambda to: MinhashDedupSignature(str(to), MinhashConfig()), documents)
