"""What `tools/inspect_data.py` does with its arguments."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.data import inspect, inspect_lines
from megatron_biollm.data.inspect import Corpus
from megatron_biollm.data.inspect_text import as_text
from megatron_biollm.data.lengths import Lengths, plot_lengths
from megatron_biollm.data.verify import verify_prefix
from megatron_biollm.log import Progress, get_logger, setup_logging
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.tokenizer import Tokenizer, TokenizerConfig, build_tokenizer

_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
# In a folder such files may be anything; named, they are what the user says they are.
_MORE_LINES = (*_LINES, ".json", ".json.gz", ".json.zst")


def inspect_tool(args: argparse.Namespace) -> int:
    """Inspects what the arguments name and prints it; 1 if --verify found damage.

    Raises:
        UserError: nothing to inspect, damaged files, or a tokenizer that did not make them.
    """
    setup_logging()
    indexed, lines = find_inputs(args.input)
    corpora = [Corpus.open(label, prefixes) for label, prefixes in indexed.items()]
    found = [inspect_corpus(corpus, args) for corpus in corpora]
    for label, files in lines.items():
        found += inspect_files(label, files, args)
    _tell_apart(found)
    lengths = [entry.pop("_lengths") for entry in found]
    if args.plot:
        _plot(found, lengths, args.plot)
    if args.json:
        print(json.dumps({"inputs": found}, indent=1, ensure_ascii=False))
    else:
        print(as_text(found, lengths))
    return 1 if any(entry.get("problems") for entry in found) else 0


def find_inputs(names: list[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Prefixes of indexed corpora, and files of JSON lines or Parquet, by label.

    A prefix (also with .bin or .idx) and a file stand for themselves. In a folder all that lies
    directly in it is one input, and so is every folder below it.

    Raises:
        UserError: a name that is none of these, or a folder without any.
    """
    indexed: dict[str, list[str]] = {}
    lines: dict[str, list[str]] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            before = len(indexed) + len(lines)
            for folder in [path, *sorted(p for p in path.rglob("*") if p.is_dir())]:
                label = folder.resolve().name if folder != path else name.rstrip("/")
                _extend(indexed, label, [str(f)[:-4] for f in sorted(folder.glob("*.idx"))])
                _extend(
                    lines,
                    label,
                    [str(f) for f in sorted(folder.iterdir()) if f.name.endswith(_LINES)],
                )
            if len(indexed) + len(lines) == before:
                raise UserError(
                    f"{name} holds neither indexed corpora (.idx) nor files ending in "
                    f"{', '.join(_LINES)}; give the folder that does"
                )
        elif name.endswith(_MORE_LINES):
            if not path.is_file():
                raise UserError(f"{name} does not exist; give a file, a prefix or a folder")
            _extend(lines, name, [name])
        else:
            prefix = name[:-4] if name.endswith((".bin", ".idx")) else name
            _extend(indexed, prefix, [prefix])
    return indexed, lines


def find_tokenizer(
    model: Optional[str], tokenizer_type: Optional[str], corpus: Optional[Corpus] = None
) -> Optional[Tokenizer]:
    """The tokenizer that was named, or one beside the corpus that made it.

    A corpus knows its tokenizer's digest; the folders that bear the tokenizer's name, or
    `tokenizer`, beside the corpus and up to two levels above it are looked into.

    Raises:
        UserError: the named tokenizer cannot be loaded or did not make the corpus.
    """
    manifest = corpus.manifest if corpus else None
    if model is not None:
        tokenizer = build_tokenizer(_config(Path(model), tokenizer_type, manifest))
        if manifest is not None:
            own = TokenizerManifest.from_tokenizer(tokenizer)
            own.check_same(manifest, f"--tokenizer-model {model}", f"the corpus {corpus.label}")
        return tokenizer
    if manifest is None:
        return None
    home = Path(corpus.layouts[0].prefix).resolve().parent
    for folder in (home, *home.parents[:2]):
        for path in (folder / manifest.name, folder / "tokenizer"):
            if path.exists():
                tokenizer = _matching(path, manifest)
                if tokenizer is not None:
                    return tokenizer
    return None


def inspect_corpus(corpus: Corpus, args: argparse.Namespace) -> dict[str, Any]:
    """All that is told of an indexed corpus, as plain values but for "_lengths"."""
    tokenizer = find_tokenizer(args.tokenizer_model, args.tokenizer_type, corpus)
    manifest, eod = corpus.manifest, args.eod_id
    if eod is None:
        eod = tokenizer.eod if tokenizer else manifest.eod_id if manifest else None
    with Progress(corpus.tokens, corpus.label, unit="tokens") as progress:
        survey = inspect.survey(corpus, eod, progress.update)
    found = {
        "label": corpus.label,
        "input": corpus.label,
        "unit": "tokens",
        "files": [layout.prefix for layout in corpus.layouts],
        "tokenizer": manifest.name if manifest else tokenizer.name if tokenizer else None,
        "tokens": corpus.tokens,
        "lengths": survey.lengths.summary(),
        "eod": survey.eod_summary,
        "ids": inspect.describe_ids(survey.counts, tokenizer, args.top),
        "_lengths": survey.lengths,
    }
    numbers = _numbers(args, corpus.documents)
    if tokenizer is not None:
        found["ratios"] = inspect.ratios(corpus, tokenizer, args.ratio_documents, args.seed)
        found["documents"] = list(inspect.decode(corpus, tokenizer, numbers))
    elif numbers:
        raise UserError(
            f"to decode documents of {corpus.label} its tokenizer is needed"
            f"{f' ({manifest.name}, {manifest.tokenizer_type})' if manifest else ''}; give it with "
            "--tokenizer-model"
        )
    if args.verify:
        found["problems"] = list(_problems(corpus, found))
    return found


def inspect_files(label: str, files: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """The same of JSON lines or Parquet, an entry for each source that the records name."""
    tokenizer = find_tokenizer(args.tokenizer_model, args.tokenizer_type)
    size = max(args.sample, args.ratio_documents if tokenizer else 0)
    wanted = frozenset(args.documents)
    with Progress(None, label, unit="documents") as progress:
        surveys, texts = inspect_lines.survey_lines(
            files, label, args.key, size, args.seed, wanted, progress.update
        )
    missing = wanted - texts.keys()
    if missing:
        raise UserError(f"{label} has no document {min(missing)} with a text under {args.key!r}")
    found = []
    for source, own in sorted(surveys.items()):
        summary = own.lengths.summary()
        entry = {
            "label": source,
            "input": label,
            "unit": "characters",
            "files": files,
            "characters": summary["total"],
            "words": own.words,
            "bad_lines": own.bad,
            "lengths": summary,
            "documents": [{"document": n, "text": t} for n, t in sorted(own.sample[: args.sample])],
            "_lengths": own.lengths,
        }
        if tokenizer is not None:
            entry["ratios"] = inspect_lines.ratios(own, tokenizer)
        found.append(entry)
    if found:
        found[0]["documents"] += [{"document": n, "text": t} for n, t in sorted(texts.items())]
    return found


def _problems(corpus: Corpus, found: dict[str, Any]) -> Iterator[str]:
    """Damage of files, and documents without their end where the sidecar promises one."""
    for layout in corpus.layouts:
        report = verify_prefix(layout.prefix)
        yield from report.problems
        for note in report.notes:
            get_logger(__name__).info("%s: %s", layout.prefix, note)
    eod = found["eod"]
    if eod and eod["not_ended"]:
        yield (
            f"{corpus.label}: {eod['not_ended']} documents do not end with the id {eod['id']}; "
            "encode them with --append-eod, or give the right --eod-id"
        )


def _numbers(args: argparse.Namespace, documents: int) -> list[int]:
    sample = inspect.sample_numbers(documents, args.sample, args.seed)
    return sorted({*args.documents, *sample})


def _extend(inputs: dict[str, list[str]], label: str, more: list[str]) -> None:
    if more:
        inputs.setdefault(label, []).extend(more)


def _config(
    path: Path, tokenizer_type: Optional[str], manifest: Optional[TokenizerManifest]
) -> TokenizerConfig:
    if tokenizer_type is None and manifest is not None:
        tokenizer_type = manifest.tokenizer_type
    if tokenizer_type is None:
        folder = (path / "tokenizer.json").exists() or not path.is_file()
        tokenizer_type = "HuggingFaceTokenizer" if folder else "SentencePieceTokenizer"
    leave_out = manifest is not None and not manifest.include_special_tokens
    return TokenizerConfig(tokenizer_type, str(path), leave_out)


def _matching(path: Path, manifest: TokenizerManifest) -> Optional[Tokenizer]:
    try:
        tokenizer = build_tokenizer(_config(path, None, manifest))
    except UserError:
        return None
    return tokenizer if tokenizer.sha256 == manifest.sha256 else None


def _tell_apart(found: list[dict[str, Any]]) -> None:
    """Entries of one label get the name of their input before it."""
    labels = Counter(entry["label"] for entry in found)
    for entry in found:
        name = entry.pop("input")
        if labels[entry["label"]] > 1 and name != entry["label"]:
            entry["label"] = f"{name}: {entry['label']}"


def _plot(found: list[dict[str, Any]], lengths: list[Lengths], output: str) -> None:
    units = {entry["unit"] for entry in found}
    if len(units) != 1:
        raise UserError(
            "--plot has one axis, in tokens for indexed corpora and in characters for text; "
            "inspect the two kinds one after the other"
        )
    labels = [entry["label"] for entry in found]
    plot_lengths(dict(zip(labels, lengths, strict=True)), units.pop(), output)
    get_logger(__name__).info("wrote %s", output)
