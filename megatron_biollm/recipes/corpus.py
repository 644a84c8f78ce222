"""A corpus for training, from source files to a blend: curation, vocabulary, encoding, report.

`curation` (the corpus room) leaves clean shards; then come three more stages on the same executor:

    vocabulary  one task: pieces learnt from the clean text of some sources, where a base is given
    encode      one task per shard: PREFIX.bin and .idx for every source
    blend       one task: blend.yaml for the training run, report.html with the tokens of it all

Without a tokenizer the corpus ends with its shards and the report.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import yaml
from datatrove.pipeline.base import PipelineStep

from megatron_biollm.atomic import whole_file, write_json
from megatron_biollm.config import UserError, option, section
from megatron_biollm.corpus.budget import blend, token_shares
from megatron_biollm.corpus.config import SourcesConfig
from megatron_biollm.corpus.curation import CurationConfig, curation_stages, digest, prepare
from megatron_biollm.corpus.executor import Stage, run_stages
from megatron_biollm.corpus.html_report import write_report
from megatron_biollm.corpus.seal import MANIFEST, read_manifest
from megatron_biollm.corpus.shards import read_shard, shard_path
from megatron_biollm.data.encode import EncodeOptions
from megatron_biollm.data.encode_step import EncodeStep
from megatron_biollm.tokenizer.learn_extension import learn_extension
from megatron_biollm.tokenizer.learn_pieces import PieceRules
from megatron_biollm.tokenizer.mergeable import open_vocabulary
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer


@dataclass
class VocabularyConfig:
    """New pieces for the tokenizer of a base model."""

    base: Optional[str] = option(None, "tokenizer to extend: .model file or folder; none: no stage")
    add: int = option(2000, "pieces to add, exactly")
    sources: list[str] = option(["pubmed"], "sources whose clean text is learnt from")
    min_frequency: int = option(10, "tokens a piece must save to be added")
    held_out: float = option(0.05, "share of the documents to measure on, not learn from")


@dataclass
class EncodingConfig:
    """Clean text to ids."""

    tokenizer_model: Optional[str] = option(
        None, "tokenizer, where vocabulary.base is not given; none: the corpus stays text"
    )
    tokenizer_type: str = option("HuggingFaceTokenizer", "its type, as in tools/preprocess_data.py")
    append_eod: bool = option(True, "end each document with the end-of-document id")


@dataclass
class CorpusConfig(CurationConfig):
    """A corpus, from source files to a blend for training."""

    train_tokens: Optional[float] = option(
        None, "tokens of the training run, 4e12 for example; none: what the sources give"
    )
    vocabulary: VocabularyConfig = section(VocabularyConfig, "the extended tokenizer")
    encode: EncodingConfig = section(EncodingConfig, "indexed binaries for training")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocabulary.base and self.encode.tokenizer_model:
            raise UserError(
                f"vocabulary.base {self.vocabulary.base} makes the tokenizer, so "
                f"encode.tokenizer_model {self.encode.tokenizer_model} would never be used; give "
                "one of the two"
            )


def build_corpus(config: CorpusConfig, wait_for_jobs: bool = True) -> dict[str, Any] | None:
    """Runs what is missing of all stages.

    Returns:
        The manifest; None if SLURM jobs were submitted and not waited for.

    Raises:
        UserError: as `corpus.curation.curate`.
    """
    output, plan = prepare(config)
    stages = curation_stages(config, plan, output)
    stages += encoding_stages(config, len(plan.tasks), stages[-1].folder.name, output)
    if not run_stages(stages, config.executor, wait_for_jobs):
        return None
    return read_manifest(output)


def encoding_stages(config: CorpusConfig, tasks: int, sealed: str, output: Path) -> list[Stage]:
    """The stages behind curation; `sealed` names the state of the shards."""
    folder, stages = output / "stages", []
    tokenizer = _tokenizer(config, output)
    settings = dataclasses.asdict(config.vocabulary), dataclasses.asdict(config.encode)
    key = digest(sealed, *settings, _given_sha256(config))
    if config.vocabulary.base:
        learning = LearnVocabulary(config.vocabulary, output)
        stages.append(Stage("vocabulary", 1, [learning], folder / f"10-vocabulary-{key}"))
    if tokenizer:
        encoding = EncodeShards(output, tokenizer, config.encode.append_eod)
        stages.append(Stage("encode", tasks, [encoding], folder / f"11-encode-{key}"))
    last = digest(key, dataclasses.asdict(config.sources), config.train_tokens)
    blending = WriteBlend(output, tokenizer, config.sources, config.train_tokens)
    return [*stages, Stage("blend", 1, [blending], folder / f"12-blend-{last}")]


class LearnVocabulary(PipelineStep):
    """Extends the base tokenizer by the clean text of some sources; `output/tokenizer` has it."""

    type, name = "recipe", "learn vocabulary"

    def __init__(self, config: VocabularyConfig, output: Path):
        super().__init__()
        self.config, self.output = config, output

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator:
        folder, made = self.output / "tokenizer", self.output / ".tokenizer.new"
        shutil.rmtree(made, ignore_errors=True)
        report = learn_extension(
            self.config.base,
            self._documents(),
            made,
            self.config.add,
            PieceRules(min_frequency=self.config.min_frequency),
            self.config.held_out,
        )
        write_json(made / "extension_report.json", report)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
        yield from ()

    def _documents(self) -> Iterator[tuple[str, str]]:
        for source in self.config.sources:
            for shard in sorted((self.output / "documents" / source).glob("*.zst")):
                yield from ((document.source, document.text) for document in read_shard(shard))


class EncodeShards(EncodeStep):
    """Encodes the shards of the task's number: `output/encoded/SOURCE/NNNNN_text_document`."""

    type, name = "recipe", "encode shards"

    def __init__(self, output: Path, tokenizer: TokenizerConfig, append_eod: bool):
        documents, encoded = output / "documents", output / "encoded"
        super().__init__(
            EncodeOptions(str(documents), str(encoded), append_eod=append_eod), tokenizer
        )
        self.documents, self.encoded = documents, encoded

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        for old in self.encoded.glob(f"*/{rank:05d}_*"):
            old.unlink()
        return super().run(data, rank, world_size)

    def corpora(self, rank: int, world_size: int) -> Iterator[tuple[list[str], str]]:
        for source in sorted(self.documents.iterdir()):
            shard = shard_path(source, rank)
            if shard.exists():
                yield [str(shard)], str(self.encoded / source.name / f"{rank:05d}")


class WriteBlend(PipelineStep):
    """Weights of the encoded corpora for the training run, and the page on everything.

    blend.yaml: the `data` and `tokenizer` sections of a run; manifest.json: gets "tokens".
    """

    type, name = "recipe", "blend"

    def __init__(
        self,
        output: Path,
        tokenizer: TokenizerConfig | None,
        sources: SourcesConfig,
        train_tokens: float | None,
    ):
        super().__init__()
        self.output, self.tokenizer = output, tokenizer
        self.sources, self.train_tokens = sources.by_name(), train_tokens

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator:
        manifest = read_manifest(self.output)
        corpora = self._corpora(manifest) if self.tokenizer else {}
        tokens = {source: sum(own.values()) for source, own in corpora.items()}
        if any(tokens.values()):
            shares = token_shares(tokens, self.sources, self.train_tokens)
            with whole_file(self.output / "blend.yaml") as file:
                sections = self._run_sections(blend(shares, corpora))
                file.write(yaml.safe_dump(sections, sort_keys=False).encode())
            manifest |= {"tokens": tokens, "shares": [dataclasses.asdict(s) for s in shares]}
            write_json(self.output / MANIFEST, manifest)
        more = {"train_tokens": self.train_tokens} if self.train_tokens else {}
        write_report(self.output, self.sources, **more)
        yield from ()

    def _corpora(self, manifest: dict[str, Any]) -> dict[str, dict[str, int]]:
        """Tokens of each prefix, by source; corpora of shards that are no more are removed."""
        wanted = {shard["path"].removesuffix(".jsonl.zst") for shard in manifest["shards"]}
        found: dict[str, dict[str, int]] = {}
        for sidecar in sorted((self.output / "encoded").glob("*/*_text_document.manifest.json")):
            prefix = sidecar.with_name(sidecar.name.removesuffix(".manifest.json"))
            source = sidecar.parent.name
            if f"documents/{source}/{prefix.name[:5]}" not in wanted:
                for file in sidecar.parent.glob(f"{prefix.name}.*"):
                    file.unlink()
                continue
            tokens = json.loads(sidecar.read_text(encoding="utf-8"))["tokens"]
            found.setdefault(source, {})[str(prefix)] = tokens
        return found

    def _run_sections(self, data_path: list[str]) -> dict[str, Any]:
        return {"data": {"data_path": data_path}, "tokenizer": dataclasses.asdict(self.tokenizer)}


def _given_sha256(config: CorpusConfig) -> str | None:
    """Of the tokenizer that is given: by the next run its path may hold another one."""
    if config.vocabulary.base:
        return open_vocabulary(config.vocabulary.base).tokenizer.sha256
    given = _tokenizer(config, Path())
    return build_tokenizer(given).sha256 if given else None


def _tokenizer(config: CorpusConfig, output: Path) -> TokenizerConfig | None:
    if config.vocabulary.base:
        return TokenizerConfig(tokenizer_model=str(output / "tokenizer"))
    if config.encode.tokenizer_model:
        model = str(Path(config.encode.tokenizer_model).resolve())
        return TokenizerConfig(config.encode.tokenizer_type, model)
    return None
