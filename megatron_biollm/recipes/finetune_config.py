"""The configuration of a fine-tuning run, and of several that follow one another."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import yaml

from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.config import UserError, load_config, option, read_layers, section
from megatron_biollm.finetune.config import FinetuneData
from megatron_biollm.finetune.preference_config import PreferenceLossConfig
from megatron_biollm.model.config import CONSTANTS, SIZES
from megatron_biollm.model.lora_config import LoraConfig
from megatron_biollm.recipes.run_config import RunConfig
from megatron_biollm.tokenizer.manifest import MANIFEST_FILE, TokenizerManifest

RECIPES = ("sft", "reward", "dpo")
# What a checkpoint to start from says about the model goes below the user's own files.
_MODEL = (
    *SIZES,
    *CONSTANTS,
    "make_vocab_size_divisible_by",
    "seq_length",
    "max_position_embeddings",
)
Layer = str | Path | dict[str, Any]


@dataclass
class FinetuneOptions(PreferenceLossConfig):
    """What is trained for; the loss and its constants are dpo's.

    Raises:
        UserError: unknown recipe, or as `PreferenceLossConfig`.
    """

    recipe: str = option("sft", f"one of {', '.join(RECIPES)}")
    reference_path: Optional[str] = option(
        None, "dpo: folder of the reference's log-probabilities; default: beside the token ids"
    )
    center_rewards_coefficient: float = option(
        0.0, "reward: weight of the squared sum of both rewards, which keeps them around 0"
    )
    use_margin: bool = option(False, "reward: keep the margin of each pair between its rewards")
    lora: LoraConfig = section(LoraConfig, "adapters in place of training the whole model")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.center_rewards_coefficient < 0:
            raise UserError(
                f"finetune.center_rewards_coefficient={self.center_rewards_coefficient} is a "
                f"weight: 0 or more"
            )
        if self.recipe not in RECIPES:
            raise UserError(
                f"finetune.recipe={self.recipe} is unknown; choose one of {', '.join(RECIPES)}"
            )


@dataclass
class FinetuneCheckpointConfig(CheckpointConfig):
    """As for pretraining, but a run starts from weights alone."""

    load_optimizer: bool = option(False, "false: a fine-tuning run begins at step 0")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.load_optimizer:
            raise UserError(
                "checkpoint.load_optimizer=true would take the step and the optimizer state of "
                "another task; leave it out (a run that was stopped goes on by itself)"
            )


@dataclass
class FinetuneConfig(RunConfig):
    """One stage. The sections of pretraining with other data.

    Raises:
        UserError: sections that contradict each other.
    """

    run_dir: str = option("runs/finetune", "folder that holds everything the run writes")
    data: FinetuneData = section(FinetuneData, "conversations or judged answers")
    checkpoint: FinetuneCheckpointConfig = section(
        FinetuneCheckpointConfig, "where to start, saving"
    )
    finetune: FinetuneOptions = section(FinetuneOptions, "the recipe")
    stages: list[dict[str, Any]] = option(
        [], "one after another in run_dir/N_NAME: each a name and what differs from this file"
    )

    def _check_packing(self) -> None:
        if self.finetune.recipe != "sft":
            return  # a sample's rows are never packed
        if self.data.packing and self.parallel.context_parallel_size > 1:
            raise UserError(
                f"data.packing=true does not go with parallel.context_parallel_size="
                f"{self.parallel.context_parallel_size}: conversations end inside the ranks' "
                f"chunks; set one of them off"
            )

    def _check_evaluation(self) -> None:
        super()._check_evaluation()
        if self.evaluation.interval and self.finetune.recipe == "reward":
            raise UserError(
                f"evaluation.interval={self.evaluation.interval} does not go with "
                f"finetune.recipe=reward, whose model writes no text; set it to 0"
            )


def load_stages(
    path: str | Path | Sequence[str | Path] | None, overrides: Iterable[str] = ()
) -> list[FinetuneConfig]:
    """The stages of a run in their order; one where the files name none.

    Below the files lies what the checkpoint to start from tells of its model and tokenizer. Each
    stage starts from the newest checkpoint of the one before. Overrides hold for every stage.

    Raises:
        UserError: unknown keys, wrong types, broken rules, stages that do not fit each other.
    """
    overrides = list(overrides)
    files = [path] if isinstance(path, str | Path) else list(path or [])
    given = read_layers(files, overrides)
    load = (given.get("checkpoint") or {}).get("load")
    base: list[Layer] = [*([what_a_start_tells(Path(load))] if load else []), *files]
    whole = load_config(FinetuneConfig, base, overrides)
    if not whole.stages:
        return [whole]
    configs: list[FinetuneConfig] = []
    for number, stage in enumerate(whole.stages, 1):
        configs.append(_stage(base, overrides, stage, number, configs))
    _check_names(whole.stages)
    _check_chain(configs)
    return configs


def _stage(
    base: list[Layer],
    overrides: list[str],
    stage: dict[str, Any],
    number: int,
    before: list[FinetuneConfig],
) -> FinetuneConfig:
    differs = {key: value for key, value in stage.items() if key != "name"}
    fixed = {"run_dir", "stages"} & differs.keys()
    if not stage.get("name") or fixed:
        raise UserError(
            f"stage {number} ({stage}) needs a name, and has no run_dir or stages of its own; "
            f"write for example {{name: qa, data: {{...}}}}"
        )
    config = load_config(FinetuneConfig, [*base, differs], overrides)
    config.run_dir = str(Path(config.run_dir) / f"{number}_{stage['name']}")
    config.stages = []
    if before:
        config.checkpoint.load = before[-1].run_dir
    return config


def _check_names(stages: list[dict[str, Any]]) -> None:
    names = [str(stage["name"]) for stage in stages]
    bad = [name for name in names if "/" in name or names.count(name) > 1]
    if bad:
        raise UserError(f"stages are named {names}: names differ, and hold no slash; change {bad}")


def _check_chain(configs: list[FinetuneConfig]) -> None:
    """Every stage's model can be loaded from the one before, which takes days to find out else."""
    for one, two in itertools.pairwise(configs):
        for name in SIZES:
            values = [getattr(config.model, name) for config in (one, two)]
            if None not in values and values[0] != values[1]:
                raise UserError(
                    f"model.{name} is {values[0]} in {one.run_dir} and {values[1]} in "
                    f"{two.run_dir}; a stage starts from the last one's weights, so all stages "
                    f"have the same model"
                )


def what_a_start_tells(load: Path) -> dict[str, Any]:
    """The model's sizes and the tokenizer of a checkpoint, as a layer of configuration.

    Args:
        load: folder of one step, or of many, or of the run, of which the newest is taken.

    Raises:
        UserError: there is no such folder, or no checkpoint in it.
    """
    folder = _newest(load)
    if folder is None:
        raise UserError(
            f"checkpoint.load={load} holds no checkpoint; give a run, its checkpoints, or one "
            f"step_XXXXXXXX"
        )
    layer: dict[str, Any] = {}
    if (folder / "config.yaml").is_file():
        model = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["model"]
        layer["model"] = {name: model[name] for name in _MODEL if model.get(name) is not None}
    if (folder / "tokenizer" / MANIFEST_FILE).is_file():
        manifest = TokenizerManifest.read(folder / "tokenizer" / MANIFEST_FILE)
        layer["tokenizer"] = {
            "tokenizer_type": manifest.tokenizer_type,
            "tokenizer_model": str(folder / "tokenizer"),
            "tokenizer_hf_no_include_special_tokens": not manifest.include_special_tokens,
        }
    return layer


def _newest(load: Path) -> Optional[Path]:
    from megatron_biollm.checkpoint import verify  # seconds of imports, not for --help

    if load.is_dir() and verify.is_checkpoint(load):
        return load
    for directory in (load, load / "checkpoints"):
        for folder in verify.step_folders(directory):
            if (folder / verify.MARKER).is_file():
                return folder
    return None
