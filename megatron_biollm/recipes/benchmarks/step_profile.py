"""Where the time of one step goes: its largest items, by torch's profiler.

On a GPU an item is a kernel and its time is the GPU's; on the CPU it is an operator and its time is
its own, what it calls left out. Recording slows the CPU down, so shares count, not milliseconds.
"""

import re
import time
from collections.abc import Callable
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from megatron_biollm.device.runtime import Device

ITEMS = 10
# Kinds of work by what is in an item's name, in the order in which they are looked for; the names
# are those of torch's operators and of cuBLAS', CUTLASS', cuDNN's and flash attention's kernels.
KINDS = {
    "attention": r"scaled_dot_product|flash|fmha|attention",
    "matrix products": r"gemm|cutlass|nvjet|xmma|::(mm|bmm|addmm|addmm_|matmul)$|_linear_pointwise",
    "optimizer": r"adam|multi_tensor|clip_grad",
    "communication": r"nccl|gloo|all_?reduce|reduce_?scatter|all_?gather",
}
OTHER = "everything else"
LONGEST_NAME = 90


def profile_step(step: Callable[[], Any], device: Device, items: int = ITEMS) -> dict[str, Any]:
    """Records one step.

    Returns:
        `items`: name, seconds, share of the recorded time and calls of the largest; `others_s`:
        what the rest takes; `kinds`: seconds by kind of work; `busy_s`: all of it; `wall_s`: the
        recorded step from start to end.
    """
    activities = [ProfilerActivity.CPU]
    if device.kind == "cuda":
        activities.append(ProfilerActivity.CUDA)
    device.synchronize()
    with profile(activities=activities, acc_events=True) as recorded:
        start = time.perf_counter()
        step()
        device.synchronize()
        wall = time.perf_counter() - start
    rows = sorted(_rows(recorded, device.kind == "cuda"), key=lambda row: -row["seconds"])
    busy = sum(row["seconds"] for row in rows)
    largest = [row | {"share": row["seconds"] / busy if busy else 0.0} for row in rows[:items]]
    return {
        "items": largest,
        "kinds": by_kind(rows),
        "others_s": busy - sum(row["seconds"] for row in largest),
        "busy_s": busy,
        "wall_s": wall,
    }


def _rows(recorded: profile, on_gpu: bool) -> list[dict[str, Any]]:
    rows = []
    for event in recorded.key_averages():
        if on_gpu and event.device_type != DeviceType.CUDA:
            continue
        # Spans that somebody named on the GPU's time line, whose kernels are there themselves.
        if on_gpu and getattr(event, "is_user_annotation", False):
            continue
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if microseconds > 0:
            name = event.key
            name = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."
            rows.append({"name": name, "seconds": microseconds / 1e6, "calls": event.count})
    return rows


def by_kind(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of each of `KINDS`, and of everything else."""
    found = dict.fromkeys([*KINDS, OTHER], 0.0)
    for row in rows:
        kinds = (kind for kind, names in KINDS.items() if re.search(names, row["name"].lower()))
        found[next(kinds, OTHER)] += row["seconds"]
    return found


def profile_table(name: str, found: dict[str, Any], step_s: float, least_s: float) -> str:
    """One side's profile as Markdown.

    step_s: median of the unrecorded steps. least_s: what the step's FLOPs take at the measured
        ceiling of a matrix product.
    """
    lines = [
        f"{name}: step {step_s * 1e3:,.1f} ms, of which its FLOPs take {least_s * 1e3:,.1f} ms at "
        f"the matrix ceiling ({least_s / step_s:.1%}); recorded: {found['wall_s'] * 1e3:,.1f} ms, "
        f"{found['busy_s'] * 1e3:,.1f} ms of it busy ({_kinds(found)})",
        "",
        "| item | ms | share | calls |",
        "|---|---:|---:|---:|",
    ]
    for row in found["items"]:
        plain = row["name"].replace("|", "\\|")
        lines.append(
            f"| `{plain}` | {row['seconds'] * 1e3:,.2f} | {row['share']:.1%} | {row['calls']:,} |"
        )
    others = found["others_s"]
    share = others / found["busy_s"] if found["busy_s"] else 0.0
    return "\n".join([*lines, f"| all others | {others * 1e3:,.2f} | {share:.1%} | |"])


def _kinds(found: dict[str, Any]) -> str:
    shares = ((kind, s / found["busy_s"]) for kind, s in found["kinds"].items() if s)
    return ", ".join(f"{kind} {share:.1%}" for kind, share in shares)
