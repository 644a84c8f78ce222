"""Instruction tuning: the loss of the assistant's words, over conversations that share rows."""

from dataclasses import asdict
from pathlib import Path
from typing import Optional

import torch

from megatron_biollm.atomic import write_json
from megatron_biollm.checkpoint.adapters import write_lora
from megatron_biollm.checkpoint.ranks import Ranks
from megatron_biollm.config import UserError
from megatron_biollm.data.stream import Datasets, SampleStream
from megatron_biollm.finetune.sft_dataset import RowSettings, open_blend
from megatron_biollm.finetune.token_cache import TokenCache, ensure_tokens
from megatron_biollm.log import get_logger
from megatron_biollm.model.lora_config import LoraConfig
from megatron_biollm.recipes.finetune_config import FinetuneConfig
from megatron_biollm.recipes.run import Run
from megatron_biollm.recipes.sidecars import check_sidecars
from megatron_biollm.recipes.task import Task, check_start
from megatron_biollm.tokenizer.chat_template import ChatTemplate, load_chat_template
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.template_source import folder_template
from megatron_biollm.tokenizer.tokenizer import Tokenizer, build_tokenizer

DATA_FILE = "data.json"
logger = get_logger(__name__)


class InstructionTuning(Task):
    """Supervised fine-tuning on conversations."""

    def check_inputs(self, config: FinetuneConfig) -> None:
        check_files(config)
        check_start(config)

    def load_tokenizer(self, config: FinetuneConfig) -> tuple[Tokenizer, TokenizerManifest]:
        return load_chat_tokenizer(config)

    def open_data(self, run: Run) -> Datasets:
        return open_conversations(run)

    def packed(self, config: FinetuneConfig) -> bool:
        return config.data.packing

    def lora(self, config: FinetuneConfig) -> Optional[LoraConfig]:
        chosen = config.finetune.lora
        return chosen if chosen.rank else None

    def write_sidecars(self, run: Run, folder: Path) -> None:
        super().write_sidecars(run, folder)
        write_lora(self.lora(run.config), folder)

    def check_sidecars(self, run: Run, folder: Path) -> None:
        check_sidecars(run.config, run.manifest, folder)
        check_template(run, folder)


def check_files(config: FinetuneConfig) -> None:
    """Looks whether the files of a run are there.

    Raises:
        UserError: none is given, or one is absent or empty.
    """
    config.data.check_given()
    for file in config.data.files():
        if not Path(file).is_file() or not Path(file).stat().st_size:
            raise UserError(
                f"{file} is absent or empty; data.train_data_path and data.valid_data_path take "
                f"JSONL files (tools/prepare_conversations.py makes them from other forms)"
            )


def load_chat_tokenizer(config: FinetuneConfig) -> tuple[Tokenizer, TokenizerManifest]:
    """The run's tokenizer, which carries the run's template from then on.

    Raises:
        UserError: no tokenizer, or no template that can be trained with.
    """
    tokenizer = build_tokenizer(config.tokenizer)
    config.set_vocab_size(tokenizer.vocab_size, f"the tokenizer {tokenizer.name}")
    load_chat_template(tokenizer)
    multiple = config.model.make_vocab_size_divisible_by
    return tokenizer, TokenizerManifest.from_tokenizer(tokenizer, multiple)


def check_template(run: Run, folder: Path) -> None:
    """A run goes on with the template it began with; one that starts from another may change it.

    Raises:
        UserError: a checkpoint of this run has another one.
    """
    own = folder.parent.resolve() == run.config.checkpoints.resolve()
    stored = folder_template(folder / "tokenizer")
    if own and stored is not None and stored != run.tokenizer.chat_template:
        raise UserError(
            f"{folder} was trained with another chat template than tokenizer.chat_template="
            f"{run.config.tokenizer.chat_template}; go on with that of {folder / 'tokenizer'}, or "
            f"give another run_dir"
        )


def open_conversations(run: Run) -> Datasets:
    """Opens the conversations; rank 0 turns them into ids where nobody has yet.

    Raises:
        UserError: a conversation that cannot be learnt from, or none that fits a row.
    """
    template = load_chat_template(run.tokenizer)
    config, pad = run.config, run.tokenizer.pad
    rows = RowSettings(
        config.model.seq_length,
        run.tokenizer.eod if pad is None else pad,
        config.training.seed,
        config.data.packing,
    )
    caches = open_tokens(run, template)
    data = config.data
    train = open_blend(data.train_data_path, caches, rows, endless=True)
    valid = open_blend(data.valid_data_path, caches, rows, endless=False)
    if torch.distributed.get_rank() == 0:
        _describe(run, caches, train, valid)
    return Datasets(train, valid, None)


def open_tokens(run: Run, template: ChatTemplate) -> dict[str, TokenCache]:
    """The ids of every file of the run, on every rank at once.

    Raises:
        UserError: as `ensure_tokens`, or a rank does not see what rank 0 has written.
    """
    with run.watch.phases("data", slow=True):
        caches = Ranks(run.control).on_first(_make_tokens, run, template)
        run.watch.interrupt.poll()
    for cache in caches.values():
        if not cache.is_there:
            raise UserError(
                f"{cache.path} is not seen by rank {torch.distributed.get_rank()}; set "
                f"data.data_cache_path to a folder that all machines share"
            )
    return caches


def _make_tokens(run: Run, template: ChatTemplate) -> dict[str, TokenCache]:
    """Every file as ids, unless the run is asked to stop meanwhile."""
    data, caches = run.config.data, {}
    key = (template, run.tokenizer.sha256, run.config.model.seq_length, data.data_cache_path)
    with run.watch.interrupt.cut_short() as between:
        for file in data.files():
            caches[file] = ensure_tokens(file, *key, progress=between)
    return caches


def _describe(
    run: Run, caches: dict[str, TokenCache], train: SampleStream, valid: Optional[SampleStream]
) -> None:
    """Tells the log and run_dir/data.json what is trained on, and what was left out."""
    training, seq_length = run.config.training, run.config.model.seq_length
    epoch = train.samples_per_epoch
    tokens = sum(source.cache.counts.tokens for source in train.sources)
    filled = tokens / (epoch * seq_length)
    epochs = training.train_iters * training.global_batch_size / epoch
    logger.info(
        "%d rows an epoch, %.1f %% of whose places are taken; the run goes through %.2f epochs",
        epoch,
        100 * filled,
        epochs,
    )
    summary = {
        "files": {file: asdict(cache.counts) for file, cache in caches.items()},
        "rows_per_epoch": epoch,
        "validation_rows": valid.samples_per_epoch if valid else 0,
        "places_taken": round(filled, 4),
        "epochs": round(epochs, 4),
    }
    write_json(run.config.run_path / DATA_FILE, summary)
