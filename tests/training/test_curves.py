import json
import math

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.training.curves import draw, plot_runs, read_curve, smooth


@pytest.fixture
def run_dir(tmp_path):
    """A run of 60 steps, resumed in another layout at step 41."""
    rows = []
    for step in range(1, 61):
        layout = "TP2 PP2" if step <= 40 else "DP4"
        loss = 3 + 4 * math.exp(-step / 15) + 0.1 * math.sin(7 * step)
        rows.append({"step": step, "loss": loss, "learning_rate": 1e-3 / step, "layout": layout})
        if step % 20 == 0:
            rows.append({"step": step, "validation_loss": loss + 0.1})
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_curve_holds_what_the_rows_say(run_dir):
    curve = read_curve(run_dir)
    assert curve.name == "first"
    assert len(curve.loss) == len(curve.learning_rate) == 60
    assert [step for step, _ in curve.validation_loss] == [20, 40, 60]
    assert curve.layouts == [(1, "TP2 PP2"), (41, "DP4")]


def test_the_figure_shows_loss_validation_learning_rate_and_the_change_of_layout(run_dir):
    left, right = draw([read_curve(run_dir)]).axes
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    assert labels[0].startswith("training loss")
    assert labels[1].startswith("validation loss")
    assert labels[2] == "learning rate"
    assert [text.get_text() for text in left.texts] == ["TP2 PP2", "DP4"]
    assert len(right.lines[0].get_xdata()) == 60


def test_incidents_are_marked_where_the_run_had_them(run_dir):
    rows = [
        {"step": 12, "action": "skip"},
        {"step": 30, "action": "rewind", "superseded": True},
        {"step": 55, "action": "skip", "superseded": True},
    ]
    (run_dir / "incidents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    left = draw([read_curve(run_dir)]).axes[0]
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    assert labels[2:] == ["skip (1)", "rewind (1)", "learning rate"]
    marks = [line for line in left.lines if line.get_label().startswith("skip")]
    assert list(marks[0].get_xdata()) == [12]


def test_several_runs_share_the_axes_and_are_named(run_dir, tmp_path):
    other = tmp_path / "second"
    other.mkdir()
    (other / "metrics.jsonl").write_text('{"step": 1, "loss": 5.0}\n{"step": 2, "loss": 4.0}\n')
    (axes,) = draw([read_curve(run_dir), read_curve(other)]).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [label.split(":")[0] for label in labels] == ["first", "first", "second"]


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_file_is_an_image_and_nothing_else_is_left(run_dir, tmp_path, suffix, magic):
    output = plot_runs([run_dir], tmp_path / "plots" / f"loss{suffix}")
    assert output.read_bytes().startswith(magic)
    assert list(output.parent.iterdir()) == [output]


def test_one_step_is_enough(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 5.0}\n')
    assert plot_runs([tmp_path], tmp_path / "loss.png").stat().st_size > 10_000


def test_a_loss_that_was_not_finite_leaves_a_gap(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 5.0}\n{"step": 2, "loss": null}\n')
    assert read_curve(tmp_path).loss == [(1, 5.0)]


def test_smoothing_keeps_a_straight_line_where_it_is():
    line = [(step, 10.0 - step) for step in range(1, 8)]
    assert smooth(line, span=4)[:-2] == line[:-2]  # the window is cut off at the last two
    assert smooth(line, span=1) == line


def test_smoothing_evens_out_noise():
    noisy = [(step, 3.0 + (-1) ** step) for step in range(100)]
    assert all(abs(value - 3.0) < 0.1 for _, value in smooth(noisy, span=20)[10:])


def test_a_folder_that_never_trained_is_named(tmp_path):
    with pytest.raises(UserError, match=r"metrics.jsonl does not exist; give the run_dir"):
        read_curve(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="has no row with a loss"):
        read_curve(tmp_path)


def test_an_unknown_image_format_is_refused_before_reading(tmp_path):
    with pytest.raises(UserError, match=r"loss.gif is none of .png, .pdf, .svg"):
        plot_runs([tmp_path / "absent"], tmp_path / "loss.gif")
