"""Whole fine-tuning runs on a few conversations, on the worker processes."""

import json
import random
from pathlib import Path

from tests.integration.recipe import MODEL

WORDS = ["heart", "liver", "kidney", "the", "of", "patients", "drug", "dose", "daily", "pain"]


def write_inputs(folder: Path) -> list[str]:
    """Two files of conversations and a tokenizer; gives the overrides of a run on the first."""
    from megatron_biollm.tokenizer.train import train_tokenizer

    dice = random.Random(0)
    texts = [" ".join(dice.choices(WORDS, k=40)) for _ in range(50)]
    train_tokenizer(texts, 600, folder / "tokenizer")
    for name, count in (("a", 40), ("b", 25)):
        write_conversations(folder / f"{name}.jsonl", dice, count)
    return [
        f"data.train_data_path=[{folder / 'a.jsonl'}]",
        f"tokenizer.tokenizer_model={folder / 'tokenizer'}",
        "optimizer.lr=5e-3",
        "training.global_batch_size=4",
        "training.device=cpu",
        "logging.tensorboard=false",
        *(f"model.{name}={value}" for name, value in MODEL.items()),
    ]


def write_conversations(path: Path, dice: random.Random, count: int) -> None:
    """Questions of a few words, which the assistant says backwards."""
    with path.open("w") as file:
        for _ in range(count):
            words = dice.choices(WORDS, k=dice.randint(2, 9))
            question = {"role": "user", "content": " ".join(words)}
            answer = {"role": "assistant", "content": " ".join(reversed(words))}
            file.write(json.dumps({"messages": [question, answer]}) + "\n")


def finetune_here(overrides: list[str], file: str | None = None) -> int | str:
    """Runs the recipe as this rank of the world; gives its last step, or why it was refused."""
    from megatron_biollm.config import UserError
    from megatron_biollm.recipes.finetune import finetune
    from megatron_biollm.recipes.finetune_config import load_stages

    try:
        state = finetune(load_stages(file, overrides))
    except UserError as error:
        return str(error)
    return 0 if state is None else state.step
