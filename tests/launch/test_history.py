import json

from megatron_biollm.checkpoint import verify
from megatron_biollm.launch import history
from megatron_biollm.launch.history import committed_step, read_history, record
from megatron_biollm.launch.status import RunStatus


def make_checkpoint(run_dir, step, committed=True):
    folder = run_dir / "checkpoints" / f"step_{step:08d}"
    folder.mkdir(parents=True)
    if committed:
        (folder / "COMMITTED").touch()


def test_events_are_read_back_and_torn_lines_passed_over(tmp_path):
    record(tmp_path, "start", attempt="7_0", committed_step=None)
    with (tmp_path / "launch.jsonl").open("a") as file:
        file.write('{"event": "sta\n')
    record(tmp_path, "end", attempt="7_0")
    assert [event["event"] for event in read_history(tmp_path).events] == ["start", "end"]


def test_a_clear_forgets_what_came_before(tmp_path):
    record(tmp_path, "stop", reason="crashes")
    record(tmp_path, "clear", reason="mended")
    record(tmp_path, "start", attempt="8_0", committed_step=None)
    found = read_history(tmp_path)
    assert found.stop is None and found.last_start["attempt"] == "8_0"
    assert len((tmp_path / "launch.jsonl").read_text().splitlines()) == 3


def test_starts_count_as_fruitless_only_back_to_the_last_new_checkpoint(tmp_path):
    for attempt, step in (("1_0", None), ("1_1", 10), ("1_2", 20), ("1_3", 20)):
        record(tmp_path, "start", attempt=attempt, committed_step=step)
    fruitless = read_history(tmp_path).fruitless
    assert [start["attempt"] for start in fruitless(20)] == ["1_2", "1_3"]
    assert fruitless(30) == []


def test_blamed_nodes_come_with_the_newest_last(tmp_path):
    record(tmp_path, "end", attempt="1_0", blamed={"a": "died"})
    record(tmp_path, "end", attempt="1_1", blamed={"b": "died"})
    record(tmp_path, "end", attempt="1_2", blamed={"a": "died again"})
    assert read_history(tmp_path).blamed() == {"b": "died in 1_1", "a": "died again in 1_2"}


def test_the_newest_committed_step_is_that_of_the_checkpoint_room(tmp_path):
    assert committed_step(tmp_path) is None
    for step, committed in ((5, True), (10, True), (15, False)):
        make_checkpoint(tmp_path, step, committed)
    assert committed_step(tmp_path) == 10 == verify.committed_steps(tmp_path / "checkpoints")[-1]
    assert history.MARKER == verify.MARKER
    assert history.STEP_FOLDER.pattern == verify.STEP_FOLDER.pattern


def test_without_folders_the_status_tells_the_committed_step(tmp_path):
    RunStatus("running", step=12, train_iters=20, committed_step=10).write(tmp_path)
    assert committed_step(tmp_path) == 10


def test_an_event_is_one_line(tmp_path):
    record(tmp_path, "stop", reason="two\nlines")
    (line,) = (tmp_path / "launch.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "two\nlines"
