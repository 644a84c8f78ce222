"""Finds a layout by a short description such as `tp=8 pp=2 recompute=full`."""

from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.planner.candidate import Candidate
from megatron_biollm.planner.search import RECOMPUTATIONS, Layout, Refused, Search

NUMBERS = ("tp", "pp", "vpp", "cp", "dp", "mbs")
WORDS = {"recompute": tuple(RECOMPUTATIONS), "sharding": ("optimizer", "none")}


def parse_description(text: str) -> dict[str, Any]:
    """`tp=8 pp=2 recompute=full` as a mapping.

    Raises:
        UserError: an unknown key or value.
    """
    wanted: dict[str, Any] = {}
    for part in text.replace(",", " ").split():
        key, _, value = part.lower().partition("=")
        if key in NUMBERS and value.isdigit():
            wanted[key] = int(value)
        elif key in WORDS and value in WORDS[key]:
            wanted[key] = value
        else:
            choices = [f"{name}=N" for name in NUMBERS]
            choices += [f"{name}={'|'.join(words)}" for name, words in WORDS.items()]
            raise UserError(f"cannot read {part!r} in {text!r}; choose from {', '.join(choices)}")
    if not wanted:
        raise UserError("an empty description; write for example tp=8 pp=2")
    return wanted


def find_layout(found: Search, wanted: dict[str, Any]) -> Layout | Refused:
    """The fastest layout of the description that fits, else the smallest that does not, else a
    refused one.

    Raises:
        UserError: no layout of these GPUs has it.
    """
    for layout in found.fitting:
        if _has(traits(layout.candidate), wanted):
            return layout
    large = [one for one in found.too_large if _has(traits(one.candidate), wanted)]
    if large:
        return min(large, key=lambda layout: layout.peak.total)
    for refused in found.refused:
        known = refused_traits(refused)
        if _has(known, {key: value for key, value in wanted.items() if key in known}):
            return refused
    raise UserError(
        f"no layout has {' '.join(f'{key}={value}' for key, value in wanted.items())}: TP x PP x "
        f"CP must divide the GPUs, and VPP the layers of a pipeline rank"
    )


def traits(candidate: Candidate) -> dict[str, Any]:
    """A layout in the words of the description."""
    return degrees(candidate.parallel) | {
        "dp": candidate.data_parallel_size,
        "mbs": candidate.micro_batch_size,
        "recompute": recomputation(candidate.parallel),
        "sharding": candidate.sharding,
    }


def refused_traits(refused: Refused) -> dict[str, Any]:
    """What a refused set of layouts has in common."""
    known = degrees(refused.parallel)
    if refused.micro_batch_size is not None:
        known["mbs"] = refused.micro_batch_size
    elif known["vpp"] == 1:
        known.pop("vpp")
    return known


def recomputation(parallel: ParallelConfig) -> str:
    """Short name: none, full (with its method and number where they are not plain), or the parts
    of a layer that are recomputed."""
    if parallel.recompute_granularity is None:
        return "none"
    if parallel.recompute_granularity == "selective":
        return "+".join(parallel.recompute_modules)
    if (parallel.recompute_method, parallel.recompute_num_layers) == ("uniform", 1):
        return "full"
    return f"full {parallel.recompute_method} {parallel.recompute_num_layers}"


def degrees(parallel: ParallelConfig) -> dict[str, Any]:
    return {
        "tp": parallel.tensor_model_parallel_size,
        "pp": parallel.pipeline_model_parallel_size,
        "vpp": parallel.virtual_pipeline_model_parallel_size or 1,
        "cp": parallel.context_parallel_size,
    }


def _has(known: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(known.get(key) == value for key, value in wanted.items())
