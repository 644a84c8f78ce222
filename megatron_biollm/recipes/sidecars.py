"""What lies beside a checkpoint's tensors: config, layout, tokenizer, versions."""

import contextlib
import json
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from megatron_biollm.config import UserError, dump_config
from megatron_biollm.log import get_logger
from megatron_biollm.model.config import CONSTANTS, SIZES, ModelConfig
from megatron_biollm.recipes.run_config import RunConfig
from megatron_biollm.tokenizer.manifest import MANIFEST_FILE, TokenizerManifest, save_tokenizer
from megatron_biollm.tokenizer.tokenizer import Tokenizer

PACKAGES = (
    "megatron_biollm",
    "megatron-core",
    "torch",
    "transformers",
    "transformer-engine",
    "flash-attn",
    "apex",
)
logger = get_logger(__name__)


def write_sidecars(config: RunConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes what a checkpoint must tell about itself: config, layout, tokenizer, versions."""
    (folder / "config.yaml").write_text(dump_config(config))
    layout = asdict(config.parallel) | {"world_size": torch.distributed.get_world_size()}
    (folder / "layout.json").write_text(json.dumps(layout, indent=1) + "\n")
    (folder / "versions.json").write_text(json.dumps(versions(), indent=1) + "\n")
    save_tokenizer(tokenizer, folder / "tokenizer", config.model.make_vocab_size_divisible_by)


def check_sidecars(config: RunConfig, manifest: TokenizerManifest, folder: Path) -> None:
    """Checks that a checkpoint is of this run's tokenizer and of a model of the same sizes.

    Raises:
        UserError: naming both values and both places.
    """
    path = folder / "tokenizer" / MANIFEST_FILE
    if path.is_file():
        stored = TokenizerManifest.read(path)
        stored.check_same(manifest, str(folder), "this run", padded=True)
    check_same_model(config.model, folder)


def check_same_model(model: ModelConfig, folder: Path) -> None:
    """Checks the sizes that a checkpoint's config.yaml names; other constants may differ.

    Raises:
        UserError: naming every size that differs, in both.
    """
    stored = _stored_model(folder)
    different = [name for name in SIZES if stored.get(name) not in (None, getattr(model, name))]
    if different:
        values = "; ".join(
            f"model.{name} is {stored[name]} in {folder} and {getattr(model, name)} in this run"
            for name in different
        )
        raise UserError(
            f"{values}. A checkpoint loads into a model of its own sizes only; set them as in "
            f"{folder / 'config.yaml'}, or give another run_dir (or checkpoint.load)"
        )
    for name in CONSTANTS:
        if stored.get(name) not in (None, getattr(model, name)):
            logger.warning(
                "model.%s is %s in %s and %s in this run, which changes what the weights mean",
                name,
                stored[name],
                folder,
                getattr(model, name),
            )


def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _stored_model(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")).get("model", {})
    except (yaml.YAMLError, AttributeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a run's YAML ({error}); use another checkpoint") from error
