from dataclasses import replace

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.hardware import load_gpu
from megatron_biollm.planner.memory import GIB, predict_memory
from megatron_biollm.planner.picture import PART_COLOURS, draw, draw_plan
from megatron_biollm.planner.timing import predict_step

GPU = load_gpu("h100-80gb")
WORK = Work(ModelConfig(preset="70b"), 64)
PLAIN = Candidate(
    ParallelConfig(
        tensor_model_parallel_size=8, pipeline_model_parallel_size=4, sequence_parallel=True
    ),
    micro_batch_size=1,
    data_parallel_size=4,
)


def picture(candidate):
    step = predict_step(WORK, candidate, GPU)
    return draw(WORK, candidate, step, 0.95 * GPU.memory_bytes, GPU.memory_bytes)


def test_each_rank_has_a_bar_of_every_part_up_to_its_total():
    memory, _ = picture(PLAIN).axes
    stages = predict_memory(WORK, PLAIN)
    assert len(memory.patches) == 4 * len(PART_COLOURS)
    tops = [max(p.get_y() + p.get_height() for p in memory.patches[rank::4]) for rank in range(4)]
    assert tops == pytest.approx([stage.total / GIB for stage in stages])
    assert {text.get_text() for text in memory.texts} >= {f"{top:.1f}" for top in tops}


def test_both_limits_are_drawn():
    memory, _ = picture(PLAIN).axes
    heights = [line.get_ydata()[0] for line in memory.lines]
    assert heights == pytest.approx([GPU.memory_bytes / GIB, 0.95 * GPU.memory_bytes / GIB])


def test_the_timeline_shows_every_pass_of_the_micro_batches_it_names():
    _, gantt = picture(PLAIN).axes
    assert "8 of 16 micro-batches" in gantt.get_xlabel()
    assert len(gantt.patches) == 4 + 4 * 2 * 8  # the idle ground of four ranks, and the passes
    interleaved = replace(PLAIN.parallel, virtual_pipeline_model_parallel_size=5)
    _, gantt = picture(replace(PLAIN, parallel=interleaved)).axes
    assert len(gantt.patches) == 4 + 4 * 2 * 8 * 5


def test_a_layout_without_a_pipeline_has_a_picture_too(tmp_path):
    candidate = Candidate(ParallelConfig(), 1, 64)
    step = predict_step(WORK, candidate, GPU)
    path = draw_plan(WORK, candidate, step, GIB, 2 * GIB, tmp_path / "plan.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(UserError, match="plan.txt is none of .png, .pdf, .svg"):
        draw_plan(WORK, PLAIN, None, GIB, GIB, tmp_path / "plan.txt")
    assert list(tmp_path.iterdir()) == []
