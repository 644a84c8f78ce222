"""Pretraining: causal language modelling on indexed corpora, in any layout, on CPU or CUDA."""

from typing import Optional

import torch

from megatron_biollm.data.layout import read_layout
from megatron_biollm.data.planned import ensure_index
from megatron_biollm.data.sidecar import check_tokenizer, check_vocabulary
from megatron_biollm.data.stream import Datasets, build_datasets
from megatron_biollm.recipes.incidents import jumped_samples, read_incidents
from megatron_biollm.recipes.run import Run
from megatron_biollm.recipes.run_config import RunConfig
from megatron_biollm.recipes.run_task import run_task
from megatron_biollm.recipes.task import Task, check_start
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.tokenizer import Tokenizer, build_tokenizer
from megatron_biollm.training.signals import StopSignals
from megatron_biollm.training.state import TrainState


def pretrain(config: RunConfig, signals: Optional[StopSignals] = None) -> TrainState:
    """Trains, from the newest good checkpoint of `run_dir` if there is one (`run_task`)."""
    return run_task(config, Pretraining(), signals)


class Pretraining(Task):
    """Causal language modelling on corpora that `tools/preprocess_data.py` made."""

    def check_inputs(self, config: RunConfig) -> None:
        check_inputs(config)

    def load_tokenizer(self, config: RunConfig) -> tuple[Tokenizer, TokenizerManifest]:
        return load_run_tokenizer(config)

    def open_data(self, run: Run) -> Datasets:
        return open_data(run)

    def packed(self, config: RunConfig) -> bool:
        return config.data.reset_attention_mask


def check_inputs(config: RunConfig) -> None:
    """Looks at what the run will read, before anything is written or any rank is waited for.

    Raises:
        UserError: no corpus, one is missing or torn, or there is no checkpoint to load.
    """
    config.data.check_given()
    for prefix in config.data.prefixes():
        read_layout(prefix)
    check_start(config)


def load_run_tokenizer(config: RunConfig) -> tuple[Tokenizer, TokenizerManifest]:
    """The run's tokenizer; the model takes its vocabulary size, the data must have been made by it.

    Raises:
        UserError: no tokenizer, or one that does not match the model or the data.
    """
    tokenizer = build_tokenizer(config.tokenizer)
    config.set_vocab_size(tokenizer.vocab_size, f"the tokenizer {tokenizer.name}")
    multiple = config.model.make_vocab_size_divisible_by
    manifest = TokenizerManifest.from_tokenizer(tokenizer, multiple)
    check_tokenizer(config.data.prefixes(), manifest)
    return tokenizer, manifest


def open_data(run: Run) -> Datasets:
    """Opens the corpora; rank 0 checks their ids, and builds the sample index if
    `tools/build_index.py` has not.

    Raises:
        UserError: a corpus is missing, damaged, too short, or holds ids beyond the vocabulary.
    """
    config = run.config
    data, sizes, seed = config.data, config.model, config.training.seed
    jumped = jumped_samples(read_incidents(config.run_path))
    samples = config.training.train_iters * config.training.global_batch_size
    samples += sum(end - first for first, end in jumped)
    with run.watch.phases("data", slow=True):
        if torch.distributed.get_rank() == 0:
            # A corpus without a sidecar is read through for its largest id.
            check_vocabulary(data.prefixes(), run.tokenizer.vocab_size)
            with run.watch.interrupt.cut_short() as between:
                ensure_index(data, sizes.seq_length, seed, samples, progress=between)
        run.watch.interrupt.poll()
    return build_datasets(data, sizes.seq_length, seed, run.tokenizer.eod)
