"""The checkpoint that is converted: which step, whether it is whole, its sizes."""

import dataclasses
from pathlib import Path

import yaml

from megatron_biollm.checkpoint import verify
from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig


def verify_small_files(step: Path) -> None:
    """All but the tensors' files, which whoever converts them verifies.

    Raises:
        UserError: the step is not committed, or a file is damaged.
    """
    names = verify.read_digests(step)
    verify.verify_files(step, [name for name in names if not name.endswith(".distcp")])


def one_step(path: Path) -> Path:
    """A step's folder: `path` itself, or the newest committed one of a run or its checkpoints."""
    for directory in (path, path / "checkpoints"):
        steps = verify.committed_steps(directory)
        if steps:
            return verify.step_folder(directory, steps[-1])
    return path


def stored_sizes(step: Path, vocab_size: int | None) -> ModelConfig:
    """Sizes in the checkpoint's config.yaml; the tokenizer's vocabulary where it has none.

    Raises:
        UserError: there is no config.yaml, no size of the vocabulary, or the tokenizer has another.
    """
    path = step / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path} is missing, so the model's sizes are unknown; copy it there")
    model = yaml.safe_load(path.read_text(encoding="utf-8")).get("model", {})
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    sizes = ModelConfig(**{name: value for name, value in model.items() if name in known})
    sizes.vocab_size = sizes.vocab_size or vocab_size
    if sizes.vocab_size is None:
        raise UserError(f"{path} has no model.vocab_size and {step} no tokenizer; give --tokenizer")
    if vocab_size is not None and vocab_size != sizes.vocab_size:
        raise UserError(
            f"{path} says model.vocab_size={sizes.vocab_size}, but the tokenizer has {vocab_size} "
            f"tokens; they must be equal, give the tokenizer that the model was trained with"
        )
    return sizes
