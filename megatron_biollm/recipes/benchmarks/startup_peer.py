"""The naive side of the benchmark of start-up: a plain training script on megatron-core.

    python -m megatron_biollm.recipes.benchmarks.startup_peer RUN.json

Made of the parts that megatron-core's own example and Megatron-LM's training script take, as they
take them: everything imported at the top, the tokenizer of transformers, core's `GPTDataset` with
its builder, core's initialisation, wrapper, schedule and optimizer, a TensorBoard writer
(https://github.com/NVIDIA/Megatron-LM/blob/main/examples/run_simple_mcore_train_loop.py and
pretrain_gpt.py). It makes one step. On the CPU, which core does not know, its calls of CUDA are
answered as ours are.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel.schedules import get_forward_backward_func
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from transformers import AutoTokenizer

from megatron_biollm.device.runtime import Device, select_device
from megatron_biollm.recipes.startup import Startup


class PlainTokenizer:
    """What core's dataset wants of a tokenizer, around that of transformers."""

    def __init__(self, folder: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.vocab_size = len(self.tokenizer)
        self.eod = self.pad = self.tokenizer.eos_token_id
        self.unique_identifiers = {"class": "PlainTokenizer", "name": folder}


def main() -> None:
    options = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    startup = Startup(Path(options["run_dir"]))
    device = select_device(options["device"])
    with device.core_context():
        tokenizer = PlainTokenizer(options["tokenizer_model"])
        startup.done("tokenizer")
        join_world(options, device)
        startup.done("process group")
        batches = open_data(options, tokenizer)
        startup.done("data")
        model = wrap(build_model(options).to(device.torch_device))
        startup.done("model")
        config = OptimizerConfig(optimizer="adam", lr=1e-4, weight_decay=0.1, clip_grad=1.0)
        # Without process groups of gloo: core makes them by the name of a back end.
        optimizer = get_megatron_optimizer(config, [model], use_gloo_process_groups=False)
        startup.done("optimizer")
        writer = SummaryWriter(options["run_dir"]) if rank() == 0 else None
        startup.done("checkpoint and logs")
        loss = step(options, model, optimizer, batches, device.torch_device)
        if writer is not None:
            writer.add_scalar("loss", loss, 1)
        startup(None, {})
        torch.distributed.destroy_process_group()


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def join_world(options: dict[str, Any], device: Device) -> None:
    """Torch's process group and core's, as the example makes them."""
    alone = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}
    for name, value in alone.items():
        os.environ.setdefault(name, value)
    if device.kind == "cuda":
        torch.accelerator.set_device_index(int(os.environ.get("LOCAL_RANK", 0)))
    torch.distributed.init_process_group(device.backend)
    parallel_state.initialize_model_parallel(
        options["tensor_model_parallel_size"],
        options["pipeline_model_parallel_size"],
        create_gloo_process_groups=False,
    )
    model_parallel_cuda_manual_seed(1234)


def open_data(options: dict[str, Any], tokenizer: PlainTokenizer) -> Any:
    """Core's datasets; their index is built by rank 0 and kept beside the corpus."""
    config = GPTDatasetConfig(
        random_seed=1234,
        sequence_length=options["seq_length"],
        blend=(options["data_path"], None),
        split="95,5,0",
        tokenizer=tokenizer,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        path_to_cache=options["cache"],
    )
    samples = options["train_iters"] * options["global_batch_size"]
    built = BlendedMegatronDatasetBuilder(GPTDataset, [samples, 0, 0], lambda: True, config).build()
    return iter(DataLoader(built[0], batch_size=options["micro_batch_size"]))


def build_model(options: dict[str, Any]) -> GPTModel:
    """Core's model of the same sizes; all else as core sets it, but for Megatron-LM's fusions."""
    sizes = ("num_layers", "hidden_size", "num_attention_heads", "num_query_groups")
    config = TransformerConfig(
        **{name: options[name] for name in (*sizes, "ffn_hidden_size")},
        tensor_model_parallel_size=options["tensor_model_parallel_size"],
        pipeline_model_parallel_size=options["pipeline_model_parallel_size"],
        sequence_parallel=False,
        normalization="RMSNorm",
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bias_activation_fusion=options["fusions"],
        bias_dropout_fusion=options["fusions"],
        use_cpu_initialization=True,
        pipeline_dtype=torch.float32,
    )
    return GPTModel(
        config=config,
        transformer_layer_spec=get_gpt_layer_local_spec(normalization="RMSNorm"),
        vocab_size=options["padded_vocab_size"],
        max_sequence_length=options["seq_length"],
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        share_embeddings_and_output_weights=False,
        position_embedding_type="rope",
    )


def wrap(model: GPTModel) -> DistributedDataParallel:
    ddp = DistributedDataParallelConfig(grad_reduce_in_fp32=True, use_distributed_optimizer=False)
    return DistributedDataParallel(config=model.config, ddp_config=ddp, module=model)


def step(
    options: dict[str, Any], model: Any, optimizer: Any, batches: Any, device: torch.device
) -> float:
    """One training step; the loss of the last micro-batch on the last stage, else 0."""
    model.config.finalize_model_grads_func = finalize_model_grads
    model.zero_grad_buffer()
    optimizer.zero_grad()
    replicas = parallel_state.get_data_parallel_world_size()
    size = options["micro_batch_size"]
    losses = get_forward_backward_func()(
        forward_step_func=partial(forward_step, device),
        data_iterator=batches,
        model=model,
        num_microbatches=options["global_batch_size"] // size // replicas,
        seq_length=options["seq_length"],
        micro_batch_size=size,
        forward_only=False,
    )
    optimizer.step()
    return float(losses[-1]["loss"]) if losses else 0.0


def forward_step(device: torch.device, batches: Any, model: Any) -> tuple[torch.Tensor, Any]:
    """Core's forward step: the output of this stage, and what makes a loss of it."""
    batch = {name: part.to(device) for name, part in next(batches).items()}
    length = batch["tokens"].shape[1]
    causal = torch.ones(1, 1, length, length, dtype=torch.bool, device=device).triu(1)
    output = model(batch["tokens"], batch["position_ids"], causal, labels=batch["labels"])
    return output, partial(mean_loss, batch["loss_mask"])


def mean_loss(mask: torch.Tensor, losses: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
    loss = (losses.float().view(-1) * mask.view(-1)).sum() / mask.sum()
    return loss, {"loss": loss.detach()}


if __name__ == "__main__":
    main()
