import json

from megatron_biollm.launch.attempt import Limits
from megatron_biollm.launch.history import record
from megatron_biollm.launch.report import report_run, tail
from megatron_biollm.launch.status import RunStatus
from tests.launch.test_history import make_checkpoint


def page(run_dir):
    return "\n".join(report_run(run_dir, Limits()).lines())


def test_a_run_that_has_not_begun_has_a_page(tmp_path):
    assert "not started" in page(tmp_path) and "next start start" in page(tmp_path)


def test_the_page_tells_steps_time_starts_bad_nodes_and_errors(tmp_path):
    make_checkpoint(tmp_path, 40)
    RunStatus("running", 55, 100, 40, job="7").write(tmp_path)
    rows = [
        {"step": s, "loss": 2.5, "step_time_s": 2.0, "tokens_per_second": 1e4} for s in (54, 55)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(lines + '{"step": 5')
    record(tmp_path, "start", attempt="7_0", committed_step=None)
    record(tmp_path, "end", attempt="7_0", action="requeue", reason="failed", blamed={"n4": "died"})
    record(tmp_path, "start", attempt="7_1", committed_step=40)
    (tmp_path / "bad_nodes.txt").write_text("n5 slow")
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "rank_00000.log").write_text("fine\n")
    (logs / "rank_00003.log").write_text("before\n2026 ERROR x: NaN in layer 7\n")
    text = page(tmp_path)
    for part in (
        "running, step 55/100", "step 40", "loss 2.5000, 10,000 tokens/s", "0:01:30 of training",
        "2 since the last clear", "requeue: failed", "no end recorded", "n4: died in 7_0",
        "n5: slow", "logs/rank_00003.log", "NaN in layer 7",
    ):  # fmt: skip
        assert part in text, part
    assert "rank_00000" not in text


def test_the_report_is_json_too(tmp_path):
    RunStatus("finished", 5, 5, 5).write(tmp_path)
    assert json.loads(json.dumps(report_run(tmp_path, Limits()).as_dict()))["status"]["step"] == 5


def test_only_the_end_of_a_long_file_is_read(tmp_path):
    path = tmp_path / "long"
    path.write_text("".join(f"line {i}\n" for i in range(100_000)))
    lines = tail(path)
    assert lines[-1] == "line 99999" and len(lines) < 10_000 and lines[0].startswith("line ")
