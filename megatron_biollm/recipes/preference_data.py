"""What every recipe on judged answers does with its files: ids, streams, reference numbers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

from megatron_biollm.atomic import write_json
from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.ranks import Ranks
from megatron_biollm.checkpoint.sharded import Checkpointer
from megatron_biollm.config import UserError
from megatron_biollm.data.sampler import micro_batches
from megatron_biollm.data.stream import Datasets
from megatron_biollm.finetune.encoded_preferences import (
    EncodedPreferences,
    EncodingKey,
    encode_preferences,
    encoding_key,
    open_encoded,
)
from megatron_biollm.finetune.preference_dataset import (
    PreferenceSource,
    RowSettings,
    open_blend,
)
from megatron_biollm.finetune.preference_objective import AnswerLogps
from megatron_biollm.finetune.reference_logps import ReferenceFile, ReferenceKey, reference_path
from megatron_biollm.log import get_logger
from megatron_biollm.recipes.run import Run
from megatron_biollm.recipes.sft import DATA_FILE
from megatron_biollm.tokenizer.chat_template import ChatTemplate, load_chat_template
from megatron_biollm.training.step import Trainer

REFERENCE = "reference.json"
# Samples of a data-parallel rank between two appends to the file.
_AT_ONCE = 256
logger = get_logger(__name__)


def open_preferences(run: Run, labelled: bool) -> Datasets:
    """The streams of the run; rank 0 turns files into ids where nobody has yet.

    labelled: samples are labelled answers (KTO), not pairs.

    Raises:
        UserError: what is wrong with a line, with file and line; or nothing fits.
    """
    template, data = load_chat_template(run.tokenizer), run.config.data
    pad = run.tokenizer.eod if run.tokenizer.pad is None else run.tokenizer.pad
    rows = RowSettings(run.config.model.seq_length, pad, run.config.training.seed)
    with run.watch.phases("data", slow=True):
        places = Ranks(run.control).on_first(_make_ids, run, template, labelled)
        run.watch.interrupt.poll()
    sources = {
        file: PreferenceSource(_open_ids(file, *place), rows) for file, place in places.items()
    }
    train = open_blend(data.train_data_path, sources, endless=True)
    valid = open_blend(data.valid_data_path, sources, endless=False)
    if torch.distributed.get_rank() == 0:
        _describe(run, sources, train)
    return Datasets(train, valid, None)


def ensure_reference(
    run: Run, trainer: Trainer, checkpointer: Checkpointer, datasets: Datasets
) -> bool:
    """Has the reference log-probabilities of every sample, computed now where they are missing.

    The reference is the checkpoint that the run starts from, whatever became of that folder since:
    run_dir/reference.json keeps its digest.

    Returns:
        Whether the model has the reference's weights by now.

    Raises:
        UserError: no checkpoint to start from, or numbers of another checkpoint, tokenizer or
            template.
    """
    ranks = checkpointer.store.ranks
    folder, digest = _reference_checkpoint(run, checkpointer)
    template = load_chat_template(run.tokenizer)
    key = ReferenceKey(digest, run.tokenizer.sha256, template.sha256)
    loaded = False
    for source in _sources(datasets):
        path = reference_path(source.data, key, run.config.finetune.reference_path)
        file = ReferenceFile(path, key, source.data)
        known = ranks.on_first(file.read)
        missing = np.flatnonzero(np.isnan(known).any(1))
        if len(missing) and not loaded:
            _load(folder, digest, checkpointer)
            loaded = True
        if len(missing):
            logger.info("reference log p of %d samples of %s", len(missing), source.prefix)
            _compute(run, trainer, ranks, source, missing, file)
            known = ranks.on_first(file.read)
        source.reference = known
    return loaded


def _make_ids(
    run: Run, template: ChatTemplate, labelled: bool
) -> dict[str, tuple[Path, EncodingKey]]:
    """Every file of the run as ids, where nobody has made them yet: their folder and its key."""
    data, seq_length = run.config.data, run.config.model.seq_length
    cache = Path(data.data_cache_path) if data.data_cache_path else None
    places = {}
    for file in data.files():
        key = encoding_key(
            file, template, run.tokenizer.sha256, labelled, seq_length, data.too_long
        )
        made = encode_preferences(file, key, template, cache)
        _tell(made)
        places[file] = made.folder, key
    return places


def _open_ids(file: str, folder: Path, key: EncodingKey) -> EncodedPreferences:
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not seen by rank {torch.distributed.get_rank()}; set "
            f"data.data_cache_path to a folder that all machines share"
        )
    return open_encoded(file, folder, key)


def _sources(datasets: Datasets) -> list[PreferenceSource]:
    """Every file once; a file may be in both streams."""
    streams = (datasets.train, datasets.valid)
    found = [source for stream in streams if stream is not None for source in stream.sources]
    return list({id(source): source for source in found}.values())


def _reference_checkpoint(run: Run, checkpointer: Checkpointer) -> tuple[Optional[Path], str]:
    """The folder that the run starts from, if it is still there, and its digest."""
    kept, load = run.config.run_path / REFERENCE, run.config.checkpoint.load
    ranks = checkpointer.store.ranks
    recorded = ranks.on_first(_read, kept)
    if load is None:
        raise UserError(
            "checkpoint.load is not given, and this recipe tunes a model against the one that it "
            "starts from; give the run of an instruction-tuned model, or one of its checkpoints"
        )
    if recorded is not None:
        folder = Path(recorded["folder"])
        there = ranks.on_first(_digest_of, folder) == recorded["checkpoint"]
        return (folder if there else None), recorded["checkpoint"]
    folder = checkpointer.find(Path(load), with_optimizer=False)
    digest = ranks.on_first(_digest_of, folder)
    ranks.on_first(write_json, kept, {"folder": str(folder), "checkpoint": digest})
    return folder, digest


def _load(folder: Optional[Path], digest: str, checkpointer: Checkpointer) -> None:
    if folder is None:
        raise UserError(
            f"reference log-probabilities are missing, and the checkpoint that the run started "
            f"from (digest {digest[:16]}) is gone or was changed; put it back where {REFERENCE} of "
            f"the run says, or give another run_dir"
        )
    checkpointer.take_weights(folder)


def _compute(
    run: Run,
    trainer: Trainer,
    ranks: Ranks,
    source: PreferenceSource,
    missing: np.ndarray,
    file: ReferenceFile,
) -> None:
    groups, size = trainer.model.groups, trainer.micro_batch_size
    width, stages = size * groups.dp.size(), groups.pp.size()
    step = replace(trainer, objective=AnswerLogps())
    at_once = -(-_AT_ONCE // (size * stages)) * stages  # the interleaved schedule's rule
    for start in range(0, len(missing), at_once * width):
        run.watch.interrupt.poll()
        numbers = missing[start : start + at_once * width]
        rounds = -(-len(numbers) // (width * stages)) * stages
        numbers = np.resize(numbers, rounds * width)  # the last ones twice, to fill it
        batches = micro_batches(
            _Chosen(source, numbers), 0, size, groups.dp.rank(), groups.dp.size()
        )
        found = [one["logps"].cpu() for one in step.outputs(batches, rounds)]
        mine = None
        if found and groups.tp.rank() == 0 and groups.cp.rank() == 0:
            rank = groups.dp.rank()
            places = numbers.reshape(rounds, groups.dp.size(), size)[:, rank].reshape(-1)
            mine = places, torch.cat(found).numpy()
        parts = [part for part in ranks.gather(mine) if part is not None]
        samples, first = np.unique(np.concatenate([part[0] for part in parts]), return_index=True)
        logps = np.concatenate([part[1] for part in parts])[first]
        ranks.on_first(file.append, samples.tolist(), logps)


class _Chosen:
    """Some samples of a source, in an order of their own."""

    def __init__(self, source: PreferenceSource, numbers: np.ndarray) -> None:
        self.source, self.numbers = source, numbers

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        # The sampler reads ahead of what is asked for by no more than its own batch.
        return self.source[int(self.numbers[index])]


def _read(path: Path) -> Optional[dict[str, str]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _digest_of(folder: Path) -> Optional[str]:
    marker = folder / verify.MARKER
    return marker.read_text().strip() if marker.is_file() else None


def _tell(data: EncodedPreferences) -> None:
    dropped = ", ".join(f"{count} {reason}" for reason, count in data.dropped.items())
    logger.info(
        "%s: %d samples of %d tokens; left out: %s; ids in %s",
        data.prefix,
        len(data),
        len(data.tokens),
        dropped or "none",
        data.folder,
    )


def _describe(run: Run, sources: dict[str, PreferenceSource], train: Any) -> None:
    """Tells run_dir/data.json what is trained on, and what was left out."""
    training = run.config.training
    summary = {
        "files": {
            file: {
                "samples": len(source.data),
                "tokens": len(source.data.tokens),
                "answer_tokens": int(source.data.answer.sum()),
                "left_out": source.data.dropped,
            }
            for file, source in sources.items()
        },
        "samples_per_epoch": train.samples_per_epoch,
        "epochs": training.train_iters * training.global_batch_size / train.samples_per_epoch,
    }
    write_json(run.config.run_path / DATA_FILE, summary)
