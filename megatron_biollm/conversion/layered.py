"""The two models of the parity check, run one layer at a time with weights left on the disk.

transformers' `LlamaModel` and core's `GPTModel` run their own code for norms, RoPE, attention and
SwiGLU, in fp32 on the CPU. Only their matrix products are exchanged for one that reads a few rows
of its weight at a time, so that a layer of any width fits into the cap on memory.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.config import UserError
from megatron_biollm.conversion.names import EMBEDDING, numbered
from megatron_biollm.conversion.safetensors_stream import ShardedReader, TensorSpec
from megatron_biollm.conversion.streamed import Blockwise, StoredMatrix, StreamedLinear
from megatron_biollm.model.config import ModelConfig

_LAYERS = "decoder.layers."


class WeightSource(Protocol):
    """Weights by Hugging Face's names: a folder's (ShardedReader), or those that are made of it."""

    def info(self, name: str) -> TensorSpec:
        """Shape and dtype."""

    def read_rows(self, name: str, target: Tensor, start: int = 0) -> None:
        """Fills `target` with rows `start` and following."""


class HuggingFaceModel:
    """transformers' LlamaModel with one layer, which stands for each layer of a folder in turn.

    source: the weights, where they are not the folder's own (an added vocabulary).
    rounded_to: dtype that the other side was written in, where it is not the folder's.
    arrive: called with the name of each weight before it is read.

    Raises:
        UserError: transformers does not read the folder's config as a LLaMA.
    """

    def __init__(
        self,
        folder: Path,
        rounded_to: torch.dtype | None = None,
        source: WeightSource | None = None,
        blocks: Blockwise | None = None,
        arrive: Callable[[str], None] = lambda name: None,
    ):
        from transformers import AutoConfig, LlamaConfig, LlamaModel
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        self.source, self.rounded_to = source or ShardedReader(folder), rounded_to
        self.blocks, self.index, self.arrive = blocks or Blockwise(), 0, arrive
        config = AutoConfig.from_pretrained(folder)
        if not isinstance(config, LlamaConfig):
            raise UserError(f"transformers reads {folder} as {type(config).__name__}, not a LLaMA")
        config.num_hidden_layers = 1
        # Never drawn at random and never held: only the norms get memory.
        with torch.device("meta"):
            self.model = LlamaModel(config).eval()
        self.norm, self.model.norm = self.model.norm, torch.nn.Identity()
        self.model.rotary_emb = LlamaRotaryEmbedding(config=config)
        self._stream(self.model.layers[0])

    def embed(self, tokens_bs: Tensor) -> Tensor:
        return self._matrix("model.embed_tokens.weight").pick(tokens_bs)

    def embed_all(self, weights_v: Tensor) -> Tensor:
        return self._matrix("model.embed_tokens.weight").weighted_sum(weights_v)

    @torch.inference_mode()
    def layer(self, index: int, hidden_bsh: Tensor) -> Tensor:
        self.index = index
        for name, parameter in self.model.layers[0].named_parameters():
            parameter.copy_(self._vector(f"model.layers.{index}.{name}"))
        return self.model(inputs_embeds=hidden_bsh, use_cache=False).last_hidden_state

    @torch.inference_mode()
    def logits(self, hidden_bsh: Tensor) -> Tensor:
        norm = self.norm.to_empty(device="cpu").float()
        norm.weight.copy_(self._vector("model.norm.weight"))
        return self._matrix("lm_head.weight").times(norm(hidden_bsh))

    def _stream(self, layer: torch.nn.Module) -> None:
        for name, module in list(layer.named_modules()):
            if isinstance(module, torch.nn.Linear):

                def matrix(name: str = name) -> StoredMatrix:
                    return self._matrix(f"model.layers.{self.index}.{name}.weight")

                layer.set_submodule(name, StreamedLinear(matrix, in_pair=False))
        layer.to_empty(device="cpu").float()

    def _matrix(self, name: str) -> StoredMatrix:
        def read(target: Tensor, start: int) -> None:
            self.source.read_rows(name, target, start)

        self.arrive(name)
        spec = self.source.info(name)
        return StoredMatrix(read, spec.shape, spec.dtype, self.rounded_to, self.blocks)

    def _vector(self, name: str) -> Tensor:
        return self._matrix(name).rows(0, self.source.info(name).shape[0])


class MegatronModel:
    """Core's GPTModel with one layer, which stands for each layer of a checkpoint in turn.

    build: makes core's model of one layer, without embedding; its argument says whether with the
    final norm and the output layer. Core itself names the checkpoint key of each parameter.
    rounded_to: dtype that the other side was written in, where it is not the checkpoint's.
    arrive: called with the name of each weight, its layer's number in it, before it is read.
    """

    def __init__(
        self,
        reader: CheckpointReader,
        sizes: ModelConfig,
        build: Callable[[bool], torch.nn.Module],
        rounded_to: torch.dtype | None = None,
        blocks: Blockwise | None = None,
        arrive: Callable[[str], None] = lambda name: None,
    ):
        self.reader, self.sizes, self.rounded_to = reader, sizes, rounded_to
        self.build, self.blocks, self.index = build, blocks or Blockwise(), 0
        self.arrive = arrive
        self.model = build(False).eval()
        self.vectors = self._stream(self.model)

    def embed(self, tokens_bs: Tensor) -> Tensor:
        return self._matrix(EMBEDDING, None, self.sizes.vocab_size).pick(tokens_bs)

    def embed_all(self, weights_v: Tensor) -> Tensor:
        return self._matrix(EMBEDDING, None, self.sizes.vocab_size).weighted_sum(weights_v)

    @torch.inference_mode()
    def layer(self, index: int, hidden_bsh: Tensor) -> Tensor:
        self.index = index
        self._fill(self.vectors)
        self.model.set_input_tensor(hidden_bsh.transpose(0, 1).contiguous())
        hidden_sbh = self.model(input_ids=None, position_ids=None, attention_mask=None)
        return hidden_sbh.transpose(0, 1)

    @torch.inference_mode()
    def logits(self, hidden_bsh: Tensor) -> Tensor:
        self.model = None
        tail = self.build(True).eval()
        self._fill({k: v for k, v in self._stream(tail).items() if not k.startswith(_LAYERS)})
        normed_sbh = tail.decoder.final_layernorm(hidden_bsh.transpose(0, 1).contiguous())
        logits_sbv, _ = tail.output_layer(normed_sbh)
        return logits_sbv.transpose(0, 1)

    def _stream(self, model: torch.nn.Module) -> dict[str, Tensor]:
        """Exchanges the matrices' layers; returns the other parameters by their checkpoint key."""
        vectors = {}
        for name, piece in model.sharded_state_dict().items():
            parameter = getattr(piece, "data", None)
            if not isinstance(parameter, Tensor):
                continue
            if parameter.dim() < 2:
                vectors[_any_layer(piece.key)] = parameter
                continue

            def matrix(key: str = _any_layer(piece.key)) -> StoredMatrix:
                in_layer = key.startswith(_LAYERS)
                # Behind the true vocabulary there is padding, which the other side lacks.
                rows = None if in_layer else self.sizes.vocab_size
                return self._matrix(key, self.index if in_layer else None, rows)

            owner = name.rpartition(".")[0]
            model.set_submodule(owner, StreamedLinear(matrix, in_pair=True))
        return vectors

    def _fill(self, vectors: dict[str, Tensor]) -> None:
        for key, parameter in vectors.items():
            layer = self.index if key.startswith(_LAYERS) else None
            self.arrive(numbered(key, layer))
            stored = self.reader.read(key, layer)
            parameter.copy_(stored.to(self.rounded_to or stored.dtype).view_as(parameter))

    def _matrix(self, key: str, layer: int | None, rows: int | None) -> StoredMatrix:
        def read(target: Tensor, start: int) -> None:
            self.reader.read_rows(target, key, layer, start)

        self.arrive(numbered(key, layer))
        info = self.reader.info(key, layer)
        shape = (rows or info.shape[0], info.shape[1])
        return StoredMatrix(read, shape, info.dtype, self.rounded_to, self.blocks)


def _any_layer(key: str) -> str:
    """The checkpoint key with `*` for the layer; the model that was built has layer 0 alone."""
    if not key.startswith(_LAYERS):
        return key
    return f"{_LAYERS}*.{key.removeprefix(_LAYERS).removeprefix('0.')}"
