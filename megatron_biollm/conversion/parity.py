"""Both models computed on the same tokens, layer by layer, and compared.

Each side is read from its own files and run by its own code (core's `GPTModel` and transformers'
`LlamaModel`), in fp32 on the CPU, with one layer in memory at a time, so that the cap on memory
holds for a model of any size. The two sides share nothing but the probe tokens: a wrong name, a
wrong order of rows or another RoPE shows as a difference in the first layer it touches.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.config import UserError
from megatron_biollm.conversion.names import EMBEDDING
from megatron_biollm.conversion.safetensors_stream import ShardedReader
from megatron_biollm.log import Progress
from megatron_biollm.model.config import ModelConfig

TOLERANCE = 1e-4
TOP_K = 5
_LAYERS = "decoder.layers."


class LayeredModel(Protocol):
    """A model computed one layer at a time. b batch, s sequence, h hidden, v true vocabulary."""

    def embed(self, tokens_bs: Tensor) -> Tensor:
        """Hidden states [b, s, h] of the tokens."""

    def layer(self, index: int, hidden_bsh: Tensor) -> Tensor:
        """Hidden states after layer `index`."""

    def logits(self, hidden_bsh: Tensor) -> Tensor:
        """Logits [b, s, v] of the hidden states after the last layer."""


@dataclass
class ParityReport:
    """What `parity.json` holds.

    A difference is the largest absolute one, divided by the largest absolute value of the
    reference or by 1, whichever is more, so that deep models with large activations are held to
    the precision of fp32 and not to more.

    first_departure: the first of embedding, layer 0, ..., logits above the tolerance; None if the
    logits agree. top_k_agreement: share of positions whose k most likely tokens are the same set.
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
    reference: Callable[[], AbstractContextManager[LayeredModel]],
    converted: Callable[[], AbstractContextManager[LayeredModel]],
    sizes: ModelConfig,
    weights_compared_in: torch.dtype,
    tolerance: float = TOLERANCE,
) -> ParityReport:
    """Runs one side, then the other, and compares what every layer gives.

    reference, converted: open a side; the first is closed before the second is opened. Whatever
        megatron-core needs on the CPU stays inside its own side: transformers loaded in there
        would be given uninitialised RoPE frequencies.
    weights_compared_in: dtype that both sides' weights are rounded to before fp32, for the report.
    """
    tokens = probe_tokens(sizes)
    with reference() as model:
        expected = list(_trace(model, tokens, sizes, "parity: reference"))
        del model
    differences: dict[str, float] = {}
    with converted() as model:
        found = _trace(model, tokens, sizes, "parity: converted")
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
    passed = differences["logits"] <= tolerance
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


def probe_tokens(sizes: ModelConfig, batch: int = 2, length: int = 48) -> Tensor:
    """Tokens [batch, length] drawn from the true vocabulary, always the same; first and last in."""
    generator = torch.Generator().manual_seed(1234)
    shape = (batch, min(length, sizes.max_position_embeddings))
    tokens = torch.randint(0, sizes.vocab_size, shape, generator=generator)
    tokens[0, 0], tokens[-1, -1] = 0, sizes.vocab_size - 1
    return tokens


class HuggingFaceModel:
    """transformers' LlamaModel with one layer, filled again and again from a folder.

    rounded_to: dtype that the other side was written in, where it is not the folder's.
    read: reads a weight by name, where the rows of the vocabulary are not the folder's own.

    Raises:
        UserError: transformers does not read the folder's config as a LLaMA.
    """

    def __init__(
        self,
        folder: Path,
        rounded_to: torch.dtype | None = None,
        read: Callable[[str], Tensor] | None = None,
    ):
        from transformers import AutoConfig, LlamaConfig, LlamaModel
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        self.read = read or ShardedReader(folder).read
        self.rounded_to = rounded_to
        config = AutoConfig.from_pretrained(folder)
        if not isinstance(config, LlamaConfig):
            raise UserError(f"transformers reads {folder} as {type(config).__name__}, not a LLaMA")
        config.num_hidden_layers = 1
        # Never drawn at random and never held twice: only the layer gets memory.
        with torch.device("meta"):
            self.model = LlamaModel(config).eval()
        self.norm, self.model.norm = self.model.norm, torch.nn.Identity()
        self.model.rotary_emb = LlamaRotaryEmbedding(config=config)
        self.model.layers.to_empty(device="cpu").float()

    def embed(self, tokens_bs: Tensor) -> Tensor:
        return self._read("model.embed_tokens.weight")[tokens_bs].float()

    @torch.inference_mode()
    def layer(self, index: int, hidden_bsh: Tensor) -> Tensor:
        for name, parameter in self.model.layers[0].named_parameters():
            parameter.copy_(self._read(f"model.layers.{index}.{name}"))
        return self.model(inputs_embeds=hidden_bsh, use_cache=False).last_hidden_state

    @torch.inference_mode()
    def logits(self, hidden_bsh: Tensor) -> Tensor:
        norm = self.norm.to_empty(device="cpu").float()
        norm.weight.copy_(self._read("model.norm.weight"))
        return torch.nn.functional.linear(norm(hidden_bsh), self._read("lm_head.weight").float())

    def _read(self, name: str) -> Tensor:
        tensor = self.read(name)
        return tensor if self.rounded_to is None else tensor.to(self.rounded_to)


class MegatronModel:
    """Core's GPTModel with one layer, filled again and again from a checkpoint.

    build: makes core's model of one layer, without embedding; its argument says whether with the
    final norm and the output layer. Core itself names the checkpoint key of each parameter.
    rounded_to: dtype that the other side was written in, where it is not the checkpoint's.
    """

    def __init__(
        self,
        reader: CheckpointReader,
        sizes: ModelConfig,
        build: Callable[[bool], torch.nn.Module],
        rounded_to: torch.dtype | None = None,
    ):
        self.reader, self.sizes, self.rounded_to = reader, sizes, rounded_to
        self.build, self.model = build, build(False).eval()

    def embed(self, tokens_bs: Tensor) -> Tensor:
        return self._read(EMBEDDING)[tokens_bs].float()

    @torch.inference_mode()
    def layer(self, index: int, hidden_bsh: Tensor) -> Tensor:
        self._fill(self.model, index)
        self.model.set_input_tensor(hidden_bsh.transpose(0, 1).contiguous())
        hidden_sbh = self.model(input_ids=None, position_ids=None, attention_mask=None)
        return hidden_sbh.transpose(0, 1)

    @torch.inference_mode()
    def logits(self, hidden_bsh: Tensor) -> Tensor:
        self.model = None
        tail = self.build(True).eval()
        self._fill(tail, None)
        normed_sbh = tail.decoder.final_layernorm(hidden_bsh.transpose(0, 1).contiguous())
        logits_sbv, _ = tail.output_layer(normed_sbh)
        return logits_sbv.transpose(0, 1)[..., : self.sizes.vocab_size]

    def _fill(self, model: torch.nn.Module, layer: int | None) -> None:
        """Reads the layer, or without a number what is outside the layers, into `model`."""
        for piece in model.sharded_state_dict().values():
            parameter = getattr(piece, "data", None)
            in_layer = piece.key.startswith(_LAYERS)
            if isinstance(parameter, Tensor) and in_layer == (layer is not None):
                name = piece.key.removeprefix(_LAYERS).removeprefix("0.")
                key = f"{_LAYERS}*.{name}" if in_layer else piece.key
                parameter.copy_(self._read(key, layer).view_as(parameter))

    def _read(self, key: str, layer: int | None = None) -> Tensor:
        tensor = self.reader.read(key, layer)
        return tensor if self.rounded_to is None else tensor.to(self.rounded_to)


def _trace(
    model: LayeredModel, tokens_bs: Tensor, sizes: ModelConfig, description: str
) -> Iterator[tuple[str, Tensor]]:
    """Embedding, hidden states after each layer, and logits, by name."""
    with Progress(sizes.num_layers, description, unit="layer") as progress:
        hidden = model.embed(tokens_bs)
        yield "embedding", hidden
        for index in range(sizes.num_layers):
            hidden = model.layer(index, hidden)
            yield f"layer {index}", hidden
            progress.update()
        yield "logits", model.logits(hidden)


def _difference(want: Tensor, got: Tensor) -> float:
    if want.shape != got.shape:
        return float("inf")
    return float((want - got).abs().max() / want.abs().max().clamp(min=1.0))


def _top_agreement(want: Tensor, got: Tensor, k: int) -> float:
    k = min(k, want.shape[-1])
    want_ids, got_ids = (x.topk(k, dim=-1).indices.sort(dim=-1).values for x in (want, got))
    return float((want_ids == got_ids).all(dim=-1).float().mean())
