"""Drives torchtitan's own `Trainer.train_step` and times it; run by `torchtitan_side`.

A request comes on stdin as JSON (`model`: sizes, `rows` and `count`: of the micro-batches of a
step, `repeats`, `recompute`: selective checkpointing), and the last line on stdout is the outcome.
Whatever fails ends the process.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from megatron_biollm.model.config import ModelConfig

# The first step compiles, the next ones capture the CUDA graph.
UNTIMED = 3


def main() -> None:
    """Times steps as asked for on stdin."""
    request = json.load(sys.stdin)
    if request["repeats"] < 1:
        print(json.dumps({"seconds": [], "peak_memory_bytes": None}))
        return
    model = ModelConfig(**request["model"])
    with tempfile.TemporaryDirectory() as folder:
        config = trainer_config(
            model, request["rows"], request["count"], request["recompute"], folder
        )
        trainer = config.build()
        outcome = _timed_steps(trainer, _batches(model, request["rows"]), request["repeats"])
        trainer.close()
    print(json.dumps(outcome))


def _timed_steps(trainer: Any, batches: Iterator, repeats: int) -> dict[str, Any]:
    seconds, device = [], trainer.device
    module = torch.get_device_module(device)
    for step in range(repeats + UNTIMED):
        timed = step >= UNTIMED
        if step == UNTIMED:
            module.reset_peak_memory_stats()
        # It logs its first step, which takes time.
        trainer.step = step + 2
        module.synchronize()
        start = time.perf_counter()
        trainer.train_step(batches)
        module.synchronize()
        seconds += [time.perf_counter() - start] if timed else []
    return {"seconds": seconds, "peak_memory_bytes": module.max_memory_allocated()}


def _batches(model: ModelConfig, rows: int) -> Iterator[tuple[dict[str, torch.Tensor], Any]]:
    """Random rows for ever, one document each, as torchtitan's data loaders give them."""
    positions = torch.arange(model.seq_length).repeat(rows, 1)
    while True:
        tokens = torch.randint(model.vocab_size, (rows, model.seq_length + 1))
        inputs = {"input": tokens[:, :-1].contiguous(), "positions": positions.clone()}
        yield inputs, tokens[:, 1:].contiguous()


def trainer_config(model: ModelConfig, rows: int, count: int, recompute: bool, folder: str) -> Any:
    """torchtitan's configuration of the same training: sizes, batch, AdamW, compilation."""
    from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
    from torchtitan.components.metrics import MetricsProcessor
    from torchtitan.components.optimizer import default_adamw
    from torchtitan.config import CompileConfig, TrainingConfig
    from torchtitan.distributed.activation_checkpoint import SelectiveAC
    from torchtitan.protocols.model_spec import ModelSpec
    from torchtitan.trainer import Trainer

    loader, tokenizer = _no_data()
    spec = ModelSpec(
        name="llama3",
        flavor="benchmark",
        model=_network(model),
        parallelize_fn=_parallelize(),
        pipelining_fn=None,
        post_optimizer_build_fn=None,
        state_dict_adapter=None,
    )
    vocabulary = model.padded_vocab_size
    return Trainer.Config(
        model_spec=spec,
        dump_folder=folder,
        loss=ChunkedLossWrapper.Config(
            loss_fn=CrossEntropyLoss.Config(global_vocab_size=vocabulary)
        ),
        optimizer=default_adamw(lr=1e-4),
        training=TrainingConfig(
            local_batch_size=rows,
            global_batch_size=rows * count,
            seq_len=model.seq_length,
            steps=1_000_000,
        ),
        compile=CompileConfig(enable=True),
        activation_checkpoint=SelectiveAC.Config() if recompute else None,
        metrics=MetricsProcessor.Config(log_freq=10_000_000),
        dataloader=loader.Config(),
        tokenizer=tokenizer.Config(),
    )


def _network(model: ModelConfig) -> Any:
    """Its Llama 3 with our widths; the parts and their initialisation are those of its own 8B."""
    from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
    from torchtitan.models.llama3 import Llama3Model, _build_llama3_layers

    width, rows = model.hidden_size, model.padded_vocab_size
    draw = {"weight": torch.nn.init.normal_}
    ones = {"weight": torch.nn.init.ones_}
    return Llama3Model.Config(
        dim=width,
        vocab_size=rows,
        tok_embeddings=Embedding.Config(num_embeddings=rows, embedding_dim=width, param_init=draw),
        norm=RMSNorm.Config(normalized_shape=width, param_init=ones),
        lm_head=Linear.Config(
            in_features=width,
            out_features=rows,
            param_init={"weight": partial(torch.nn.init.normal_, std=width**-0.5)},
        ),
        layers=_build_llama3_layers(
            n_layers=model.num_layers,
            dim=width,
            n_heads=model.num_attention_heads,
            n_kv_heads=model.num_query_groups,
            hidden_dim=model.ffn_hidden_size,
            rope=ComplexRoPE.Config(
                dim=model.kv_channels, max_seq_len=model.seq_length, theta=model.rotary_base
            ),
            attn_backend="flex",
        ),
    )


def _parallelize() -> Any:
    from torchtitan.models.llama3 import parallelize_llama

    return parallelize_llama


def _no_data() -> tuple[Any, Any]:
    """A data loader and a tokenizer that are there and give nothing: batches come by hand."""
    from dataclasses import dataclass

    from torchtitan.components.dataloader import BaseDataLoader
    from torchtitan.components.tokenizer import BaseTokenizer

    class NoLoader(BaseDataLoader):
        @dataclass(kw_only=True, slots=True)
        class Config(BaseDataLoader.Config):
            pass

        def __init__(self, config: Any, **kwargs: Any) -> None:
            pass

        def __iter__(self) -> Iterator:
            return iter(())

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            pass

    class NoTokenizer(BaseTokenizer):
        @dataclass(kw_only=True, slots=True)
        class Config(BaseTokenizer.Config):
            pass

        def __init__(self, config: Any, **kwargs: Any) -> None:
            super().__init__()

        def encode(self, *args: Any, **kwargs: Any) -> list[int]:
            return []

        def decode(self, *args: Any, **kwargs: Any) -> str:
            return ""

        def get_vocab_size(self) -> int:
            return 0

    return NoLoader, NoTokenizer


if __name__ == "__main__":
    main()
