"""A plan as text for people and as a mapping for programs."""

from collections.abc import Iterable
from typing import Any

from megatron_biollm.model.flops import num_parameters
from megatron_biollm.planner.candidate import Candidate
from megatron_biollm.planner.describe import degrees, recomputation
from megatron_biollm.planner.memory import GIB, predict_memory
from megatron_biollm.planner.search import Layout, Refused
from megatron_biollm.planner.summary import OPTIMIZER, best_of_each, refusals
from megatron_biollm.recipes.plan import Plan

COLUMNS = (
    "", "layout", "mbs", "recompute", "optimizer", "tokens/s/GPU", "MFU", "step s", "bubble",
    "comm", "hidden", "GiB", "days (low-high)",
)  # fmt: skip

LEGEND = (
    "MFU with the causal half of attention. comm: communication waited for, hidden: behind\n"
    "computation, both of the step. GiB: of the fullest GPU, ! does not fit."
)


def as_dict(plan: Plan, top: int) -> dict[str, Any]:
    """Everything for `--json`."""
    work, gpu = plan.question.work, plan.question.gpu
    return {
        "parameters": num_parameters(work.model),
        "tokens": plan.tokens,
        "tokens_per_step": work.tokens_per_step,
        "precision": work.precision,
        "gpu": gpu.name,
        "world_size": plan.question.world_size,
        "gpus_per_node": gpu.gpus_per_node,
        "memory_limit_gib": plan.question.memory_limit / GIB,
        "fitting": len(plan.found.fitting),
        "too_large": len(plan.found.too_large),
        "layouts": [layout_dict(plan, layout) for layout in best_of_each(plan.found)[:top]],
        "own": outcome_dict(plan, plan.own),
        "refused": [{"layouts": names, "reason": why} for names, why in refusals(plan.found)],
        "notes": list(plan.notes),
    }


def outcome_dict(plan: Plan, outcome: Layout | Refused) -> dict[str, Any]:
    """A layout, or why it is refused."""
    if isinstance(outcome, Layout):
        return layout_dict(plan, outcome)
    return {"layout": outcome.parallel.describe(), "fits": False, "refusal": outcome.reason}


def layout_dict(plan: Plan, layout: Layout) -> dict[str, Any]:
    """One layout with its memory by part and rank, its step by part, and what the run takes."""
    candidate, step = layout.candidate, layout.step
    stages = predict_memory(plan.question.work, candidate)
    row = {
        "layout": candidate.describe(),
        **degrees(candidate.parallel),
        "dp": candidate.data_parallel_size,
        "micro_batch_size": candidate.micro_batch_size,
        "num_microbatches": candidate.num_microbatches(plan.question.work),
        "recompute": recomputation(candidate.parallel),
        "sharding": candidate.sharding,
        "fits": layout.refusal is None,
        "refusal": layout.refusal,
        "peak_gib": layout.peak.total / GIB,
        "peak_rank": layout.peak_rank,
        "memory_gib": [_gib(stage.parts) for stage in stages],
    }
    if step is not None:
        cost, low, high = _costs(plan, layout)
        row |= {"step": step.as_dict(), **vars(cost), "days_low": low, "days_high": high}
    return row


def text(plan: Plan, top: int) -> str:
    """Days first, then the layouts, then why others are refused."""
    blocks = [headline(plan), table(plan, top), why_not(plan, top)]
    return "\n\n".join(block for block in blocks if block)


def headline(plan: Plan) -> str:
    """How long it takes and what that is in hours, energy and money."""
    work, gpu, world = plan.question.work, plan.question.gpu, plan.question.world_size
    nodes = f"{-(-world // gpu.gpus_per_node)} x {min(world, gpu.gpus_per_node)}"
    run = f"{short(plan.tokens)} tokens on {world} {gpu.name} ({nodes})"
    lines = []
    if plan.best is None:
        lines.append(f"{run}: no layout fits; take more GPUs, or larger ones")
    else:
        cost, low, high = _costs(plan, plan.best)
        finish = cost.finish(plan.start).strftime("%Y-%m-%d")
        lines += [
            f"{run} take {_days(cost.days)} days ({_days(low)}-{_days(high)}), until {finish} "
            f"if the run starts on {plan.start:%Y-%m-%d} and never stops",
            _hours(plan, cost),
        ]
    lines.append(
        f"{short(num_parameters(work.model))} parameters, {plan.tokens / work.tokens_per_step:,.0f}"
        f" steps of {work.global_batch_size} x {work.model.seq_length:,} = "
        f"{work.tokens_per_step:,} tokens, {work.precision}"
    )
    return "\n".join([*lines, *(f"note: {note}" for note in plan.notes)])


def table(plan: Plan, top: int) -> str:
    """The fastest layouts, one of each TP x PP, and the run's own."""
    listed = best_of_each(plan.found)[:top]
    rows = [
        [f"{number}{'*' if _is_own(plan, layout) else ''}", *_cells(plan, layout)]
        for number, layout in enumerate(listed, start=1)
    ]
    if isinstance(plan.own, Layout) and not any(_is_own(plan, one) for one in listed):
        rows.append(["*", *_cells(plan, plan.own)])
    fitting, large = len(plan.found.fitting), len(plan.found.too_large)
    limit = f"{plan.question.memory_limit / GIB:.1f} GiB"
    lines = [f"{fitting:,} of {fitting + large:,} possible layouts fit {limit}"]
    if rows:
        lines[0] += "; the fastest of each TP x PP:"
        lines += ["", *_aligned([COLUMNS, *rows]), "", LEGEND]
    lines.append(f"*the configuration's own: {own_verdict(plan)}")
    return "\n".join(lines + _how_sure(plan))


def _how_sure(plan: Plan) -> list[str]:
    if plan.best is None:
        return []
    step = plan.best.step
    return [
        f"MFU of the first: {step.mfu('causal'):.1%} causal, {step.mfu('full'):.1%} with full "
        f"attention, {step.mfu('6n'):.1%} as plain 6N. Days: within {step.likely_error:.0%}, as "
        f"nine in ten published rates were that nothing was fitted to; half of them were within "
        f"{step.expected_error:.0%} (--validate)."
    ]


def own_verdict(plan: Plan) -> str:
    """What became of the configuration's own layout."""
    if isinstance(plan.own, Refused):
        return f"{plan.own.parallel.describe()} is refused: {plan.own.reason}"
    name = plan.own.candidate.describe()
    if plan.own.refusal is not None:
        return f"{name} does not fit: {plan.own.refusal}"
    rate, best = (one.step.tokens_per_second_per_gpu for one in (plan.own, plan.best))
    if rate >= best:
        return f"{name}, as fast as any"
    return f"{name}, {rate / best:.0%} of the fastest's rate"


def why_not(plan: Plan, most: int) -> str:
    """Refusals, one line each."""
    reasons = refusals(plan.found)
    if not reasons:
        return ""
    lines = ["Refused:", *(f"  {names}: {reason}" for names, reason in reasons[:most])]
    if len(reasons) > most:
        lines.append(f"  ... and {len(reasons) - most} more; --explain 'tp=8 pp=2' asks for one")
    return "\n".join(lines)


def explanation(plan: Plan, outcome: Layout | Refused) -> str:
    """One layout: memory by part and rank, step by part; or why it is refused."""
    if isinstance(outcome, Refused):
        return f"{outcome.parallel.describe()} is refused: {outcome.reason}"
    candidate = outcome.candidate
    stages = predict_memory(plan.question.work, candidate)
    head = ["rank", *stages[0].parts, "total"]
    rows = [
        [str(rank), *(f"{size / GIB:.2f}" for size in stage.parts.values()),
         f"{stage.total / GIB:.2f}"]
        for rank, stage in enumerate(stages)
    ]  # fmt: skip
    verdict = f"does not fit: {outcome.refusal}" if outcome.refusal else "fits"
    lines = [
        f"{candidate.describe()}, optimizer {OPTIMIZER[candidate.sharding]}: {verdict}",
        f"{candidate.num_microbatches(plan.question.work)} micro-batches a step",
        "",
        f"GiB on each GPU of a pipeline rank; limit {plan.question.memory_limit / GIB:.1f}:",
        *_aligned([head, *rows]),
    ]
    if outcome.step is None:
        return "\n".join(lines)
    return "\n".join([*lines, "", *_step_lines(plan, outcome)])


def short(number: float) -> str:
    """4T, 69.0B, 48B."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def _step_lines(plan: Plan, layout: Layout) -> list[str]:
    step, total = layout.step, layout.step.total
    waited = ("compute", "recompute", "tp_exposed", "cp_exposed", "pp_exposed", "host", "bubble",
              "dp_exposed", "optimizer")  # fmt: skip
    hidden = ("tp_hidden", "cp_hidden", "pp_hidden", "dp_hidden")
    parts = [(name, getattr(step, name)) for name in waited]
    rows = [[name, f"{value:.3f}", f"{value / total:.1%}"] for name, value in parts if value]
    behind = [(name, getattr(step, name)) for name in hidden]
    beside = ", ".join(f"{name} {value:.3f}" for name, value in behind if value) or "nothing"
    return [
        f"A step takes {total:.3f} s: {step.tokens_per_second_per_gpu:,.0f} tokens/s/GPU, MFU "
        f"{step.mfu('causal'):.1%} (causal half of attention):",
        *_aligned([["part", "seconds", "share"], *rows]),
        f"hidden behind computation: {beside}",
    ]


def _cells(plan: Plan, layout: Layout) -> list[str]:
    candidate, step = layout.candidate, layout.step
    cost, low, high = _costs(plan, layout)
    return [
        candidate.parallel.describe(candidate.data_parallel_size),
        str(candidate.micro_batch_size),
        recomputation(candidate.parallel),
        OPTIMIZER[candidate.sharding],
        f"{step.tokens_per_second_per_gpu:,.0f}",
        f"{step.mfu('causal'):.1%}",
        f"{step.total:.2f}",
        f"{step.bubble / step.total:.1%}",
        f"{_exposed(step) / step.total:.1%}",
        f"{_hidden(step) / step.total:.1%}",
        f"{layout.peak.total / GIB:.1f}" + ("!" if layout.refusal else ""),
        f"{_days(cost.days)} ({_days(low)}-{_days(high)})",
    ]


def _exposed(step: Any) -> float:
    return step.tp_exposed + step.cp_exposed + step.pp_exposed + step.dp_exposed


def _hidden(step: Any) -> float:
    return step.tp_hidden + step.cp_hidden + step.pp_hidden + step.dp_hidden


def _hours(plan: Plan, cost: Any) -> str:
    prices = plan.prices
    parts = [
        f"{cost.gpu_hours:,.0f} GPU-hours",
        f"{cost.kwh / 1000:,.0f} MWh ({plan.question.gpu.power_watts:.0f} W a GPU x "
        f"{prices.power_overhead:g} for the machine room)",
    ]
    if cost.price is not None:
        parts.append(f"{cost.price:,.0f} at {prices.per_gpu_hour:g} per GPU-hour")
    if cost.energy_price is not None:
        parts.append(f"{cost.energy_price:,.0f} at {prices.per_kwh:g} per kWh")
    if cost.co2_tonnes is not None:
        parts.append(f"{cost.co2_tonnes:,.0f} t CO2 at {prices.co2_per_kwh:g} g per kWh")
    return "; ".join(parts)


def _days(days: float) -> str:
    """Whole days, or tenths where these matter."""
    return f"{days:,.1f}" if days < 20 else f"{days:,.0f}"


def _costs(plan: Plan, layout: Layout) -> tuple[Any, float, float]:
    """Of the run, and its days if the rate is as far off as it may be."""
    error = layout.step.likely_error
    low, high = (plan.cost(layout, slower=off).days for off in (-error, error))
    return plan.cost(layout), low, high


def _is_own(plan: Plan, layout: Layout) -> bool:
    return isinstance(plan.own, Layout) and _same(plan.own.candidate, layout.candidate)


def _same(one: Candidate, other: Candidate) -> bool:
    def key(candidate: Candidate) -> tuple:
        parallel = candidate.parallel
        known = (*degrees(parallel).values(), recomputation(parallel), parallel.sequence_parallel)
        return (*known, candidate.micro_batch_size, candidate.sharding)

    return key(one) == key(other)


def _gib(parts: dict[str, float]) -> dict[str, float]:
    return {name: size / GIB for name, size in parts.items()}


def _aligned(rows: Iterable[Iterable[str]], indent: str = "  ") -> list[str]:
    """Columns of equal width: text to the left, numbers to the right."""
    grid = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    left = [_is_text(column) for column in zip(*grid[1:], strict=True)] or [True] * len(widths)
    lines = []
    for row in grid:
        cells = (
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(row, widths, left, strict=True)
        )
        lines.append((indent + "  ".join(cells)).rstrip())
    return lines


def _is_text(column: Iterable[str]) -> bool:
    return any(cell[:1].isalpha() for cell in column)
