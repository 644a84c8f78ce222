"""Blended corpora as Megatron-LM opens them: megatron-core's own builder and datasets.

What its `pretrain_gpt.py` does with --data-path, --split, --seed and --data-cache-path: one
GPTDataset for every corpus and split, each with a document, a sample and a shuffle index, and for
every split a BlendedDataset with the source of every sample. All are kept in the cache's folder.
"""

import json
from pathlib import Path
from typing import Any

import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

_AFFIX = "-description.txt"


class _TokenizerIds:
    """What core's datasets ask of a tokenizer."""

    eod, pad, vocab_size = 0, -1, 34_000

    @property
    def unique_identifiers(self) -> dict[str, int]:
        return {"eod": self.eod}


def open_as_core(
    prefixes: list[str],
    weights: list[float],
    split: str,
    samples: list[int],
    seq_length: int,
    seed: int,
    cache: str,
) -> list[Any]:
    """Datasets of train, valid and test; None where a split has no share.

    samples: of train, valid and test, for which core plans as many epochs as that takes.
    """
    _join_world_of_one()
    config = GPTDatasetConfig(
        random_seed=seed,
        sequence_length=seq_length,
        blend=(prefixes, weights),
        split=split,
        path_to_cache=cache,
        tokenizer=_TokenizerIds(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    return BlendedMegatronDatasetBuilder(GPTDataset, samples, lambda: True, config).build()


def core_indices(cache: Path) -> dict[tuple[str, str], list[Path]]:
    """By corpus and split: the files of core's document, sample and shuffle index."""
    found = {}
    for path in cache.glob(f"*-GPTDataset-*{_AFFIX}"):
        described = json.loads(path.read_text(encoding="utf-8"))
        key = (described["dataset_path"], described["index_split"].lower())
        names = ("document_index", "sample_index", "shuffle_index")
        base = str(path).removesuffix(_AFFIX)
        found[key] = [Path(f"{base}-{name}.npy") for name in names]
    return found


def _join_world_of_one() -> None:
    # The blend's cache asks for this process's rank.
    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
