"""A Hugging Face LLaMA folder into a torch_dist checkpoint, one weight at a time."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from megatron_biollm.checkpoint.stream import Piece, write_weights
from megatron_biollm.config import UserError
from megatron_biollm.conversion.memory import check_finite
from megatron_biollm.conversion.names import (
    Weight,
    extra_state_keys,
    join_groups,
    megatron_shape,
    part_shapes,
    row_ranges,
    stacked,
    weights,
)
from megatron_biollm.conversion.safetensors_stream import ShardedReader
from megatron_biollm.log import Progress
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.tokenizer.extend import mean_of_subtokens

VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


class HuggingFaceWeights:
    """The weights of a LLaMA folder as the table names them.

    sizes: of the model to be made, with the true vocabulary.
    sub_ids: for each token added behind the folder's own, the ids that spelt it before; its rows
        start as the mean of theirs (`tokenizer/extend.py`). Rows of the folder that no token uses
        are dropped.
    tied: the folder has no output weight of its own; the embedding serves for both.

    Raises:
        UserError: weights missing, unknown, of another shape, or of mixed dtypes.
    """

    def __init__(
        self,
        source: ShardedReader,
        sizes: ModelConfig,
        tied: bool = False,
        sub_ids: Sequence[Sequence[int]] = (),
    ):
        self.source, self.sizes, self.sub_ids = source, sizes, sub_ids
        self.base_rows = sizes.vocab_size - len(sub_ids)
        self.replaced = {"lm_head.weight": "model.embed_tokens.weight"} if tied else {}
        self.dtype = self._check()

    def read(self, name: str) -> torch.Tensor:
        """A weight of the folder, finite, with the true vocabulary's rows."""
        tensor = check_finite(name, self.source.read(self.replaced.get(name, name)))
        if name not in VOCABULARY:
            return tensor
        base = tensor[: self.base_rows]
        if not self.sub_ids:
            return base
        return torch.cat([base, mean_of_subtokens(base, self.sub_ids)])

    def _check(self) -> torch.dtype:
        expected = {
            name: shape
            for weight in weights(self.sizes.num_layers)
            for name, shape in zip(
                weight.parts, part_shapes(weight.mapping, self.sizes), strict=True
            )
        }
        sources = {self.replaced.get(name, name) for name in expected}
        # Older exports carry RoPE's frequencies; they follow from the config.
        unknown = {n for n in self.source.names - sources if not n.endswith("rotary_emb.inv_freq")}
        missing = sources - self.source.names
        if missing or unknown - set(self.replaced):
            raise UserError(
                f"{self.source.folder} lacks {_some(missing)} and has in addition "
                f"{_some(unknown)}; only a whole {len(sources)}-tensor LlamaForCausalLM without "
                f"biases or adapters can be converted"
            )
        return self._check_tensors(expected)

    def _check_tensors(self, expected: dict[str, tuple[int, ...]]) -> torch.dtype:
        dtypes = set()
        for name, shape in expected.items():
            spec = self.source.info(self.replaced.get(name, name))
            dtypes.add(spec.dtype)
            if name in VOCABULARY:
                shape = (max(spec.shape[0], self.base_rows), *shape[1:])
            if spec.shape != shape:
                raise UserError(
                    f"{name} in {self.source.folder} has shape {list(spec.shape)}, but config.json "
                    f"says {list(shape)}; config and weights belong to different models"
                )
        if len(dtypes) > 1:
            raise UserError(
                f"{self.source.folder} mixes {_some({str(d) for d in dtypes})}; save it in one "
                f"dtype, a checkpoint's layers are stacked and share theirs"
            )
        return dtypes.pop()


def write_checkpoint(
    source: HuggingFaceWeights, folder: Path, dtype: torch.dtype | None = None
) -> None:
    """Writes core's files of the checkpoint into `folder` (weights alone, not committed)."""
    sizes = source.sizes
    pieces = [p for weight in weights(sizes.num_layers) for p in _pieces(source, weight, dtype)]
    with Progress(len(pieces), "weights", unit="piece") as progress:
        write_weights(
            folder, pieces, extra_state_keys(sizes.num_layers), lambda piece: progress.update()
        )


def _pieces(
    source: HuggingFaceWeights, weight: Weight, dtype: torch.dtype | None
) -> Iterator[Piece]:
    """One piece per Hugging Face weight; q, k and v together; the vocabulary's padding alone."""
    mapping, sizes = weight.mapping, source.sizes
    shape = megatron_shape(mapping, sizes)

    def piece(start: int, rows: int, produce: Callable[[], torch.Tensor]) -> Piece:
        layers = () if weight.layer is None else (sizes.num_layers,)
        return Piece(
            key=stacked(mapping.megatron),
            global_shape=(*layers, *shape),
            offsets=(*(() if weight.layer is None else (weight.layer,)), start)
            + (0,) * (len(shape) - 1),
            sizes=(*(1 for _ in layers), rows, *shape[1:]),
            dtype=dtype or source.dtype,
            produce=produce,
        )

    if mapping.by_group:
        names = weight.parts
        yield piece(0, shape[0], lambda: join_groups([source.read(n) for n in names], sizes))
        return
    stop = 0
    for name, (start, stop) in zip(weight.parts, row_ranges(mapping, sizes), strict=True):
        yield piece(start, stop - start, lambda name=name: source.read(name))
    if stop < shape[0]:
        padding = (shape[0] - stop, *shape[1:])
        yield piece(stop, shape[0] - stop, lambda: torch.zeros(padding))


def _some(names: set[str], limit: int = 3) -> str:
    listed = ", ".join(sorted(names)[:limit]) or "nothing"
    return listed if len(names) <= limit else f"{listed} and {len(names) - limit} more"
