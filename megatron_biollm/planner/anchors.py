"""Published training rates (anchors.yaml) as work, layout and tokens per second."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.flops import token_flops
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.hardware import Gpu, load_gpu
from megatron_biollm.planner.software import Software
from megatron_biollm.planner.timing import flops_by_convention

ANCHORS = Path(__file__).parent / "anchors.yaml"
FURTHER = Path(__file__).parent / "anchors_further.yaml"
DEGREES = {
    "tp": "tensor_model_parallel_size",
    "pp": "pipeline_model_parallel_size",
    "vpp": "virtual_pipeline_model_parallel_size",
    "cp": "context_parallel_size",
}

# Of the layout, what a row may say for itself.
OWN_FIELDS = (
    "sequence_parallel",
    "recompute_granularity",
    "recompute_method",
    "recompute_num_layers",
)


@dataclass(frozen=True)
class Anchor:
    """One published rate.

    Attributes:
        name: model, GPUs, layout.
        family: framework and precision; its rows calibrate and are held out in turns.
        calibrated: whether the constants were fitted to it.
        tokens: published tokens per second and GPU, converted if need be.
        source: URL or repository and path.
        assumed: what the source leaves open and what was taken instead; often nothing.
    """

    name: str
    family: str
    calibrated: bool
    work: Work
    candidate: Candidate
    gpu: Gpu
    software: Software
    tokens: float
    source: str
    assumed: str


def load_anchors() -> list[Anchor]:
    """All rows that can be modelled, in the order in which they were collected."""
    data = read_anchors()
    turns = calibrating([row["family"] for row in data["rows"]])
    return [_anchor(row, data, turn) for row, turn in zip(data["rows"], turns, strict=True)]


def load_bad_layouts() -> list[Anchor]:
    """Layouts that people measured as bad; some leave too much open to be rows."""
    data, rows = read_anchors(), {row.name: row for row in load_anchors()}
    return [
        rows[entry["row"]] if "row" in entry else _anchor(entry["open"], data, False)
        for entry in data["bad_layouts"]
    ]


def load_further() -> list[Anchor]:
    """Rows of anchors_further.yaml, none of which calibrates."""
    data, more = read_anchors(), yaml.safe_load(FURTHER.read_text(encoding="utf-8"))
    data["models"] |= more["models"]
    return [_anchor(row | {"family": "further"}, data, False) for row in more["rows"]]


def read_anchors() -> dict[str, Any]:
    """The file as it is."""
    return yaml.safe_load(ANCHORS.read_text(encoding="utf-8"))


def calibrating(families: list[str]) -> list[bool]:
    """Which rows calibrate: the first, third, ... of each family that has more than one."""
    turns = []
    for index, family in enumerate(families):
        before = families[:index].count(family)
        turns.append(before % 2 == 0 and families.count(family) > 1)
    return turns


def _anchor(row: dict[str, Any], data: dict[str, Any], calibrated: bool) -> Anchor:
    model = ModelConfig(
        **data["models"][row["model"]],
        seq_length=row["seq_length"],
        make_vocab_size_divisible_by=1,
    )
    program = data["programs"][row["program"]]
    gpu = load_gpu(row["gpu"])
    if "network_bandwidth" in row:
        gpu = replace(gpu, network_bandwidth=row["network_bandwidth"])
    return Anchor(
        name=row["name"],
        family=row["family"],
        calibrated=calibrated,
        work=Work(model, row["global_batch_size"], row.get("precision", "bf16")),
        candidate=_candidate(row, program),
        gpu=gpu,
        software=Software(**program.get("software", {})),
        tokens=published_tokens(row["published"], model, gpu),
        source=row["source"],
        assumed=row.get("assumed", ""),
    )


def _candidate(row: dict[str, Any], program: dict[str, Any]) -> Candidate:
    fields = dict(program.get("parallel", {}))
    layout = row["layout"]
    fields |= {DEGREES[name]: size for name, size in layout.items() if name in DEGREES}
    fields |= {name: row[name] for name in OWN_FIELDS if name in row}
    if layout.get("tp", 1) == 1:
        fields["sequence_parallel"] = False
    # Every framework here that interleaves overlaps its sends, and none else does.
    fields["overlap_p2p_comm"] = "vpp" in layout
    return Candidate(
        parallel=ParallelConfig(**fields),
        micro_batch_size=row["micro_batch_size"],
        data_parallel_size=layout["dp"],
        sharding=row.get("sharding", program.get("sharding", "optimizer")),
    )


def published_tokens(published: dict[str, Any], model: ModelConfig, gpu: Gpu) -> float:
    """Tokens per second and GPU of what a source states, by the FLOPs that it counts."""
    if "tokens" in published:
        return float(published["tokens"])
    counts = published["counts"]
    if counts == "full+recomputation":
        forward = token_flops(model, causal=False)
        counted = 4 * forward.forward - forward.output
    else:
        counted = flops_by_convention(model)[counts]
    if "tflops" in published:
        return published["tflops"] * 1e12 / counted
    return published["mfu"] * gpu.peak_flops() / counted
