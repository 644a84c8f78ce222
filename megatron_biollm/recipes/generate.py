"""Text from a training checkpoint, in any tensor- and pipeline-parallel layout."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.loading import load_weights
from megatron_biollm.checkpoint.store import problem_on_any_rank
from megatron_biollm.config import UserError, load_config, section
from megatron_biollm.device.runtime import Device, select_device
from megatron_biollm.generation.generator import Continuation, Generator
from megatron_biollm.generation.sampling import SamplingOptions
from megatron_biollm.log import close_logging, get_logger, setup_logging
from megatron_biollm.model.gpt import Head
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import ParallelModel, parallelize
from megatron_biollm.parallel.process_groups import (
    control_group,
    create_process_groups,
    destroy_process_groups,
)
from megatron_biollm.recipes.run_config import RunConfig, load_model_config, recipe_of
from megatron_biollm.tokenizer.chat_template import load_chat_template, own_template
from megatron_biollm.tokenizer.manifest import load_tokenizer
from megatron_biollm.tokenizer.tokenizer import Tokenizer

# A text to continue, or the messages of a conversation to answer.
Prompt = str | list[dict[str, str]]
Group = torch.distributed.ProcessGroup
logger = get_logger(__name__)


@dataclass
class GenerateConfig:
    """What may be overridden; the rest of the configuration is the checkpoint's own."""

    parallel: ParallelConfig = section(ParallelConfig, "how the model lies on ranks")


def generate(
    checkpoint: Path,
    prompts: Sequence[Prompt],
    options: SamplingOptions,
    num_samples: int = 1,
    device_name: str = "auto",
    overrides: Sequence[str] = (),
    on_text: Optional[Callable[[int, str], None]] = None,
    batch_size: int = 0,
) -> list[Continuation]:
    """Continues each prompt `num_samples` times; every rank returns the same rows.

    Args:
        checkpoint: folder of a step; or of a run or its `checkpoints`, for the newest good one.
        prompts: texts to continue, or conversations to answer, which are written by the
            checkpoint's chat template and end at its stop token; those of rank 0 count.
        options: how continuations are chosen.
        num_samples: continuations of each prompt, which follow each other.
        device_name: cpu, cuda or auto.
        overrides: `parallel.field=value`; see `choose_layout`.
        on_text: rank 0 calls it with a row and its new text, as it comes.
        batch_size: rows at once; 0 for all.

    Raises:
        UserError: anything in the checkpoint, the prompts or the layout that a user can mend.
    """
    asked = load_config(GenerateConfig, None, overrides).parallel if overrides else None
    folders = candidates(checkpoint)
    device = select_device(device_name)
    with device.core_context(), joined_world(device) as control:
        folder = newest_good(folders, control)
        config = load_model_config(folder)
        refuse_reward_model(folder)
        layout = choose_layout(asked, config.parallel, control.size())
        generator = build_generator(folder, config, layout, device)
        ids, options = encode_prompts(generator, of_rank_0(list(prompts), control), options)
        rows = [prompt for prompt in ids for _ in range(num_samples)]
        tell, start = on_text if control.rank() == 0 else None, time.perf_counter()
        written = generator.generate(rows, options, tell, batch_size)
        tokens, seconds = sum(len(row.tokens) for row in written), time.perf_counter() - start
        logger.info("%d tokens in %.1f s, %.1f tokens/s", tokens, seconds, tokens / seconds)
        return written


def encode_prompts(
    generator: Generator, prompts: Sequence[Prompt], options: SamplingOptions
) -> tuple[list[list[int]], SamplingOptions]:
    """The ids of texts and conversations, and the options with the stop token of the latter.

    Raises:
        UserError: a conversation that cannot be answered, or a prompt that fills the context.
    """
    if all(isinstance(prompt, str) for prompt in prompts):
        return [generator.encode(prompt) for prompt in prompts], options
    tokenizer = generator.tokenizer
    if own_template(tokenizer) is None:
        logger.warning(
            "the checkpoint has no chat template, so it was hardly trained on conversations; the "
            "built-in default writes them"
        )
    template = load_chat_template(tokenizer)
    ids = [
        generator.encode(prompt) if isinstance(prompt, str) else template.encode_prompt(prompt)
        for prompt in prompts
    ]
    stops = (*options.stop_ids, template.stop_id)
    return ids, dataclasses.replace(options, stop_ids=stops)


def candidates(path: Path) -> list[Path]:
    """Checkpoint folders to try in turn: `path` itself, or those of a run, newest first.

    Raises:
        UserError: nothing there.
    """
    for directory in (path, path / "checkpoints"):
        steps = verify.committed_steps(directory)
        if steps:
            return [verify.step_folder(directory, step) for step in reversed(steps)]
    if not path.is_dir() or (path / "checkpoints").is_dir():
        found = "holds no committed checkpoint" if path.is_dir() else "does not exist"
        raise UserError(
            f"{path} {found}; give the folder of a run, of its checkpoints, or of one step_XXXXXXXX"
        )
    return [path]


def newest_good(folders: Sequence[Path], control: Group) -> Path:
    """The first of `folders` whose files are those that were saved; others are named.

    Raises:
        UserError: none is good.
    """
    for folder in folders:
        problem = problem_on_any_rank(folder, control)
        if problem is None:
            return folder
        if folder == folders[-1]:
            raise UserError(problem)
        logger.warning("refused: %s", problem)
    raise UserError("no checkpoint given")


def choose_layout(
    asked: Optional[ParallelConfig],
    trained: ParallelConfig,
    world_size: int,
    replicas: bool = False,
) -> ParallelConfig:
    """The layout to generate in: the degrees asked for, else those of training, else one process.

    Only tensor and pipeline parallelism matter. Interleaved stages become plain ones and sequence
    parallelism goes, since neither is in the weights.

    Raises:
        UserError: context parallelism is asked for, or the degrees do not fill the world.
    """
    if asked is not None and asked.context_parallel_size > 1:
        raise UserError(
            f"parallel.context_parallel_size={asked.context_parallel_size} cuts sequences into "
            f"pieces, and generation adds one token at a time; leave it out, the checkpoint loads "
            f"without it"
        )
    degrees = asked or trained
    tp, pp = degrees.tensor_model_parallel_size, degrees.pipeline_model_parallel_size
    if replicas:
        if asked is None and world_size % (tp * pp):
            tp = pp = 1
        layout = ParallelConfig(tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp)
        layout.data_parallel_size(world_size)
        return layout
    if asked is None and tp * pp != world_size:
        tp = pp = 1
    if tp * pp != world_size:
        raise UserError(
            f"{world_size} processes and TP{tp} x PP{pp} = {tp * pp}: one copy of the model must "
            f"fill them; start {tp * pp} (torchrun --nproc_per_node {tp * pp}), or set "
            f"parallel.tensor_model_parallel_size and parallel.pipeline_model_parallel_size so "
            f"that their product is {world_size}"
        )
    return ParallelConfig(tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp)


def build_generator(
    folder: Path, config: RunConfig, layout: ParallelConfig, device: Device
) -> Generator:
    """The model and the tokenizer of a checkpoint, on this rank.

    Raises:
        UserError: as `load_frozen`.
    """
    model, tokenizer = load_frozen(folder, config, layout, device)
    logger.info(
        "%s; device %s (%s); layers %s; %s", folder, device.kind, device.reason,
        model.transformer_impl[0], layout.describe(),
    )  # fmt: skip
    return Generator(model, tokenizer, config.model.max_position_embeddings)


def load_frozen(
    folder: Path,
    config: RunConfig,
    layout: ParallelConfig,
    device: Device,
    head: Optional[Head] = None,
) -> tuple[ParallelModel, Tokenizer]:
    """A checkpoint's model for running forward, on this rank, and its tokenizer.

    Args:
        config: of the checkpoint; takes the vocabulary size.
        head: that the model was trained with in place of its output layer.

    Raises:
        UserError: no tokenizer in it, or sizes that do not fit tokenizer, weights or layout.
    """
    if not (folder / "tokenizer").is_dir():
        raise UserError(
            f"{folder} holds no tokenizer/, and the model is of no use without the one that it was "
            f"trained with; save it there (tools/convert_checkpoint.py from-hf takes --tokenizer)"
        )
    tokenizer = load_tokenizer(folder / "tokenizer")
    config.set_vocab_size(tokenizer.vocab_size, f"the tokenizer of {folder}")
    model = parallelize(
        # The layers that suit this machine: both kinds hold the same weights.
        dataclasses.replace(config.model, transformer_impl="auto"),
        layout,
        device,
        create_process_groups(layout),
        bf16=config.training.bf16,
        seed=0,
        trainable=False,
        draw_weights=False,
        head=head,
    )
    load_weights(folder, model)
    return model, tokenizer


def refuse_reward_model(folder: Path) -> None:
    """Checks that a checkpoint is of a language model.

    Raises:
        UserError: it is not.
    """
    if recipe_of(folder) == "reward":
        raise UserError(
            f"{folder} is a reward model, which scores answers and writes none (tools/score.py); "
            f"give the checkpoint of a language model"
        )


@contextlib.contextmanager
def joined_world(device: Device) -> Iterator[Group]:
    """Joins the ranks and lets rank 0 speak; leaves at the end."""
    minutes = ParallelConfig().distributed_timeout_minutes
    device.init_distributed(minutes)
    setup_logging(torch.distributed.get_rank(), torch.distributed.get_world_size())
    try:
        yield control_group(minutes)
    finally:
        destroy_process_groups()
        close_logging()


def of_rank_0(value: Any, control: Group) -> Any:
    holder = [value]
    torch.distributed.broadcast_object_list(holder, src=0, group=control)
    return holder[0]
