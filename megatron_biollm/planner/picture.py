"""A layout as a picture: memory of each pipeline rank, and the pipeline's timeline."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from megatron_biollm.atomic import whole_file
from megatron_biollm.config import UserError
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.memory import GIB, predict_memory
from megatron_biollm.planner.schedule import FORWARD, Span, timeline

SUFFIXES = (".png", ".pdf", ".svg")
# Okabe and Ito's palette, which colour-blind readers can tell apart; the parts are labelled too.
PART_COLOURS = {
    "weights": "#0072B2",
    "gradients": "#56B4E9",
    "optimizer": "#009E73",
    "activations": "#E69F00",
    "logits": "#D55E00",
    "communication": "#CC79A7",
    "reserve": "#999999",
}
PART_LABELS = {
    "weights": "weights (bf16)",
    "gradients": "main gradients (fp32)",
    "optimizer": "optimizer state",
    "activations": "activations",
    "logits": "logits and loss",
    "communication": "NCCL and pipeline buffers",
    "reserve": "CUDA context, fragmentation",
}
FORWARD_COLOUR, BACKWARD_COLOUR, IDLE_COLOUR = "#0072B2", "#E69F00", "#E3E3E3"
# Micro-batches drawn, in units of the pipeline ranks: filling, a steady state, draining.
DRAWN = 2
# Passes are numbered where the narrowest has this share of the picture's width for each digit, and
# have a white edge where that would not fill it.
ROOM_FOR_DIGIT = 0.006
ROOM_FOR_EDGE = 0.003


def draw_plan(
    work: Work, candidate: Candidate, step: Any, limit: float, capacity: float, output: Path
) -> Path:
    """Writes the picture (PNG, PDF or SVG by its ending) in one move.

    Args:
        work: what is to be done.
        candidate: the layout.
        step: its predicted step.
        limit: bytes that a layout may need on each GPU.
        capacity: bytes that the GPU has.
        output: file to write.

    Raises:
        UserError: an ending that is none of these.
    """
    output = Path(output)
    if output.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"picture {output} is none of {', '.join(SUFFIXES)}; give it such an ending"
        )
    figure = draw(work, candidate, step, limit, capacity)
    with whole_file(output) as file:
        figure.savefig(file, format=output.suffix[1:].lower(), dpi=150)
    return output


def draw(work: Work, candidate: Candidate, step: Any, limit: float, capacity: float) -> Figure:
    """The figure itself, without a window or any global state of matplotlib."""
    ranks = candidate.parallel.pipeline_model_parallel_size
    rows = max(2.0, 0.34 * ranks)
    figure = Figure(figsize=(12, 5.2 + rows), layout="constrained")
    memory, gantt = figure.subplots(2, 1, height_ratios=(4.2, rows))
    figure.suptitle(
        f"{candidate.describe()} on {candidate.world_size} GPUs: "
        f"{step.tokens_per_second_per_gpu:,.0f} tokens/s/GPU, MFU {step.mfu('causal'):.1%} "
        f"(causal attention)",
        fontsize=12,
    )
    _draw_memory(memory, work, candidate, limit, capacity)
    _draw_timeline(gantt, work, candidate, step)
    return figure


def _draw_memory(
    axes: Axes, work: Work, candidate: Candidate, limit: float, capacity: float
) -> None:
    stages = predict_memory(work, candidate)
    ranks = range(len(stages))
    bottom = [0.0] * len(stages)
    for part, colour in PART_COLOURS.items():
        heights = [stage.parts[part] / GIB for stage in stages]
        axes.bar(ranks, heights, 0.7, bottom, color=colour, label=PART_LABELS[part],
                 edgecolor="white", linewidth=0.6)  # fmt: skip
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    for rank, total in enumerate(bottom):
        axes.text(rank, total, f"{total:.1f}", ha="center", va="bottom", fontsize=9)
    axes.axhline(capacity / GIB, color="black", linewidth=1.4)
    axes.axhline(limit / GIB, color="black", linewidth=1.0, linestyle="--")
    for height, text, side in (
        (capacity, "GPU memory", "bottom"),
        (limit, "limit", "top"),
    ):
        axes.annotate(
            f"{text}\n{height / GIB:.1f} GiB", (1.0, height / GIB), va=side, fontsize=9,
            xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
        )  # fmt: skip
    axes.set_ylim(0, 1.12 * max(capacity / GIB, *bottom))
    axes.set_xlim(-0.6, len(stages) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=20, min_n_ticks=1))
    axes.set_xlabel("pipeline rank")
    axes.set_ylabel("memory of each GPU (GiB)")
    _clean(axes)
    _legend_above(axes, axes.get_legend_handles_labels()[0])


def _draw_timeline(axes: Axes, work: Work, candidate: Candidate, step: Any) -> None:
    parallel = candidate.parallel
    ranks = parallel.pipeline_model_parallel_size
    chunks = parallel.num_stages // ranks
    count = candidate.num_microbatches(work)
    drawn = min(count, max(4, DRAWN * ranks))
    transfer = step.pp_exposed / (2 * chunks * count) if ranks > 1 else 0.0
    spans = timeline(
        parallel,
        drawn,
        [1000 * seconds / chunks for seconds in step.stage_forward],
        [1000 * seconds / chunks for seconds in step.stage_backward],
        1000 * transfer,
    )
    end = max(rank[-1].end for rank in spans)
    narrowest = min(span.end - span.start for rank in spans for span in rank) / end
    numbered = narrowest >= ROOM_FOR_DIGIT * len(str(drawn))
    edge = 0.5 if narrowest >= ROOM_FOR_EDGE else 0.0
    axes.barh(range(ranks), [end] * ranks, 0.86, color=IDLE_COLOUR)
    for rank, passes in enumerate(spans):
        for span in passes:
            _draw_pass(axes, rank, span, _shade(span.what.kind, span.what.chunk, chunks), edge)
            if numbered:
                _number(axes, rank, span, chunks)
    axes.set_xlim(0, end)
    axes.set_ylim(ranks - 0.5, -0.5)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=20, min_n_ticks=1))
    axes.set_ylabel("pipeline rank")
    shown = f"all {count}" if drawn == count else f"{drawn} of {count}"
    axes.set_xlabel(
        f"ms; {shown} micro-batches of a step{', which the numbers count' if numbered else ''}. "
        f"The bubble is {step.bubble / step.total:.1%} of the whole step."
    )
    _clean(axes)
    _legend_above(axes, _pass_legend(chunks))


def _draw_pass(axes: Axes, rank: int, span: Span, colour: tuple, edge: float) -> None:
    width = span.end - span.start
    # Without an edge, smoothed sides would let the ground shine through between passes.
    axes.barh(rank, width, 0.86, span.start, color=colour, edgecolor="white", linewidth=edge,
              antialiased=edge > 0)  # fmt: skip


def _number(axes: Axes, rank: int, span: Span, chunks: int) -> None:
    red, green, blue = _shade(span.what.kind, span.what.chunk, chunks)
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 0.55
    axes.text((span.start + span.end) / 2, rank, str(span.what.microbatch + 1), ha="center",
              va="center", fontsize=7, color="black" if bright else "white")  # fmt: skip


def _pass_legend(chunks: int) -> list[Patch]:
    handles = []
    for kind in (FORWARD, "backward"):
        if chunks == 1:
            handles.append(Patch(color=_shade(kind, 0, 1), label=kind))
            continue
        for chunk, which in ((0, "first"), (chunks - 1, "last")):
            handles.append(
                Patch(
                    color=_shade(kind, chunk, chunks), label=f"{kind}, {which} of {chunks} chunks"
                )
            )
    return [*handles, Patch(color=IDLE_COLOUR, label="idle")]


def _shade(kind: str, chunk: int, chunks: int) -> tuple[float, float, float]:
    """Later chunks are lighter; forward and backward differ in hue and in brightness."""
    colour = to_rgb(FORWARD_COLOUR if kind == FORWARD else BACKWARD_COLOUR)
    towards_white = 0.0 if chunks == 1 else 0.6 * chunk / (chunks - 1)
    red, green, blue = (value + (1 - value) * towards_white for value in colour)
    return red, green, blue


def _legend_above(axes: Axes, handles: list) -> None:
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5,
                frameon=False, fontsize=9, borderaxespad=0.2)  # fmt: skip


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
