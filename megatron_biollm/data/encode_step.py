"""Encoding as a datatrove step: each task encodes its share of the files to a corpus of its own.

A pipeline of this step alone runs on datatrove's local, SLURM and Ray executors; a task that is
run again goes on where it was cut off. The corpora make a blend, or one with `indexed.merge`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from megatron_biollm.data.encode import EncodeOptions
from megatron_biollm.data.lines import find_inputs
from megatron_biollm.data.preprocess import preprocess
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer

_COUNTED = ("documents", "empty_documents", "tokens", "bad_lines", "false_document_ends")


class EncodeStep(PipelineStep):
    """Task r of n encodes the files r, r + n, r + 2n, ... of `options.input`, sorted by name.

    options: `output_prefix` gets the task's number: PREFIX_00003_text_document.bin. `workers`
    above 1 need an executor that lets a task start processes (SLURM's, not the local one).
    tokenizer: loaded by each task.
    """

    name = "encode"
    type = "megatron_biollm"

    def __init__(self, options: EncodeOptions, tokenizer: TokenizerConfig):
        super().__init__()
        self.options, self.tokenizer = options, tokenizer

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        """A task without files writes nothing. Raises what `preprocess` raises."""
        corpora = list(self.corpora(rank, world_size))
        if corpora:
            with self.track_time():
                self._encode(corpora)
        return data

    def corpora(self, rank: int, world_size: int) -> Iterator[tuple[list[str], str]]:
        """Files and `--output-prefix` of each corpus that the task makes."""
        files = find_inputs(self.options.input)[rank::world_size]
        if files:
            yield files, self.prefix(rank)

    def _encode(self, corpora: list[tuple[list[str], str]]) -> None:
        tokenizer = build_tokenizer(self.tokenizer)
        manifest: dict[str, Any] = TokenizerManifest.from_tokenizer(tokenizer).to_json()
        for files, prefix in corpora:
            options = dataclasses.replace(self.options, output_prefix=prefix)
            for report in preprocess(options, tokenizer, manifest, files=files):
                for name in _COUNTED:
                    self.stat_update(name, value=getattr(report, name))

    def prefix(self, rank: int) -> str:
        """`--output-prefix` of a task."""
        return f"{self.options.output_prefix}_{rank:05d}"
