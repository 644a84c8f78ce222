"""Both models computed on the same tokens, layer by layer, and compared.

What agreement proves: every weight of every layer, of the final norm and of the output layer is
part of the logits, and each side reads its own files under its own names and runs its own code
(`layered.py`), so a wrong name, a wrong order of rows, parts of ranks in the wrong order or
another RoPE shows as a difference in the first layer it touches. The rows of the embedding that
no probe token picks are compared by a weighted sum of all of them. What it does not prove: single
values that are wrong by less than the tolerance shows (the bytes are copied, not computed), rows of
padding, which neither side reads, and the means that added tokens start from, which both sides of
an import take from the same function.

Few tokens suffice: after the embedding every vector is dense, so one token meets every column of
every matrix; the others are there for attention and for RoPE, which needs distances.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from megatron_biollm.config import UserError
from megatron_biollm.conversion.convoy import Convoy
from megatron_biollm.model.config import ModelConfig

TOLERANCE = 1e-4
TOP_K = 5
EVERY_ROW = "embedding, every row"
HUGGING_FACE, MEGATRON = "Hugging Face's logits", "Megatron's logits"


class LayeredModel(Protocol):
    """A model computed one layer at a time. b batch, s sequence, h hidden, v true vocabulary."""

    def embed(self, tokens_bs: Tensor) -> Tensor:
        """Hidden states [b, s, h] of the tokens."""

    def embed_all(self, weights_v: Tensor) -> Tensor:
        """The sum [h] of all rows of the embedding, each by its weight."""

    def layer(self, index: int, hidden_bsh: Tensor) -> Tensor:
        """Hidden states after layer `index`."""

    def logits(self, hidden_bsh: Tensor) -> Tensor:
        """Logits [b, s, v] of the hidden states after the last layer."""


@dataclass
class ParityReport:
    """What `parity.json` holds.

    A difference is the largest absolute one, divided by the largest absolute value of
    transformers' model or by 1, whichever is more, so that deep models with large activations are
    held to the precision of fp32 and not to more.

    first_departure: the first of embedding, layer 0, ..., logits above the tolerance; None if the
    logits and all rows of the embedding agree. top_k_agreement: share of positions whose k most
    likely tokens are the same set.
    """

    passed: bool
    tolerance: float
    probe_shape: list[int]
    max_abs_diff_logits: float
    max_abs_logit: float
    top_1_agreement: float
    top_k_agreement: float
    first_departure: str | None
    differences: dict[str, float]
    weights_compared_in: str
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict:
        """Plain values."""
        return asdict(self)

    def require(self) -> "ParityReport":
        """Returns itself.

        Raises:
            UserError: the two sides differ; names where they depart first.
        """
        if self.passed:
            return self
        raise UserError(
            f"no parity: logits differ by {self.max_abs_diff_logits:.3g} (largest logit "
            f"{self.max_abs_logit:.3g}, relative tolerance {self.tolerance:g}), top-1 agreement "
            f"{self.top_1_agreement:.1%}, top-{TOP_K} {self.top_k_agreement:.1%}; the two sides "
            f"depart at {self.first_departure}, where the difference is "
            f"{self.differences[self.first_departure]:.3g}. Nothing was kept; if both inputs are "
            f"whole, report this as a bug with the differences below\n{self._table()}"
        )

    def _table(self) -> str:
        return "\n".join(f"  {name}: {diff:.3g}" for name, diff in self.differences.items())


def compare_models(
    huggingface: Callable[[], AbstractContextManager[LayeredModel]],
    megatron: Callable[[], AbstractContextManager[LayeredModel]],
    sizes: ModelConfig,
    weights_compared_in: torch.dtype,
    tolerance: float = TOLERANCE,
    convoy: Convoy | None = None,
) -> ParityReport:
    """Runs both sides beside each other and compares what every layer gives.

    huggingface, megatron: open a side, in this order: transformers loaded inside of what
        megatron-core needs on the CPU would be given uninitialised RoPE frequencies.
    convoy: has the followers HUGGING_FACE and MEGATRON; weights are read once they are converted.
    weights_compared_in: dtype that both sides' weights are rounded to before fp32, for the report.
    """
    tokens = probe_tokens(sizes)

    def trace(name: str, model: LayeredModel) -> list[tuple[str, Tensor]]:
        with convoy.follower(name) if convoy else nullcontext():
            return list(_trace(model, tokens, sizes))

    threads = ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,))
    with huggingface() as one, megatron() as other, threads:
        expected, found = threads.map(trace, (HUGGING_FACE, MEGATRON), (one, other))
    differences: dict[str, float] = {}
    for (name, want), (_, got) in zip(expected, found, strict=True):
        differences[name] = _difference(want, got)
    return _report(differences, want, got, tokens, weights_compared_in, tolerance)


def _report(
    differences: dict[str, float],
    want: Tensor,
    got: Tensor,
    tokens: Tensor,
    weights_compared_in: torch.dtype,
    tolerance: float,
) -> ParityReport:
    # A NaN is no agreement, and no comparison with it is true.
    passed = all(differences[name] <= tolerance for name in (EVERY_ROW, "logits"))
    departed = [name for name, diff in differences.items() if not diff <= tolerance]
    return ParityReport(
        passed=passed,
        tolerance=tolerance,
        probe_shape=list(tokens.shape),
        max_abs_diff_logits=float((want - got).abs().max()),
        max_abs_logit=float(want.abs().max()),
        top_1_agreement=_top_agreement(want, got, 1),
        top_k_agreement=_top_agreement(want, got, TOP_K),
        first_departure=None if passed else departed[0],
        differences=differences,
        weights_compared_in=str(weights_compared_in).removeprefix("torch."),
    )


def probe_tokens(sizes: ModelConfig, batch: int = 2, length: int = 8) -> Tensor:
    """Tokens [batch, length] drawn from the true vocabulary, always the same; first and last in."""
    generator = torch.Generator().manual_seed(1234)
    shape = (batch, min(length, sizes.max_position_embeddings))
    tokens = torch.randint(0, sizes.vocab_size, shape, generator=generator)
    tokens[0, 0], tokens[-1, -1] = 0, sizes.vocab_size - 1
    return tokens


def _trace(
    model: LayeredModel, tokens_bs: Tensor, sizes: ModelConfig
) -> Iterator[tuple[str, Tensor]]:
    """Embedding, hidden states after each layer, and logits, by name."""
    hidden = model.embed(tokens_bs)
    yield "embedding", hidden
    generator = torch.Generator().manual_seed(4321)
    yield EVERY_ROW, model.embed_all(torch.randn(sizes.vocab_size, generator=generator))
    for index in range(sizes.num_layers):
        hidden = model.layer(index, hidden)
        yield f"layer {index}", hidden
    yield "logits", model.logits(hidden)


def _difference(want: Tensor, got: Tensor) -> float:
    if want.shape != got.shape:
        return float("inf")
    return float((want - got).abs().max() / want.abs().max().clamp(min=1.0))


def _top_agreement(want: Tensor, got: Tensor, k: int) -> float:
    k = min(k, want.shape[-1])
    want_ids, got_ids = (x.topk(k, dim=-1).indices.sort(dim=-1).values for x in (want, got))
    return float((want_ids == got_ids).all(dim=-1).float().mean())
