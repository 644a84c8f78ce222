import pytest

from megatron_biollm.launch.facts import job_fate, read_names, restart_of

RECORD = "JobId=7 JobName=x JobState={state} Reason={reason} Requeue=1 Restarts={restarts} Batch=1"


@pytest.mark.parametrize(
    ("state", "reason", "restarts", "fate"),
    [
        ("RUNNING", "None", 1, "running"),
        ("COMPLETING", "TimeLimit", 1, "timeout"),
        ("COMPLETING", "None", 1, "cancelled"),
        ("COMPLETING", "None", 2, "requeued"),
        ("PENDING", "BeginTime", 2, "requeued"),
    ],
)
def test_what_has_become_of_a_job_is_read_from_its_record(tmp_path, state, reason, restarts, fate):
    path = tmp_path / "job"
    path.write_text(RECORD.format(state=state, reason=reason, restarts=restarts))
    assert job_fate(path, restart=1) == fate


def test_where_slurm_did_not_answer_the_job_is_taken_for_running(tmp_path):
    assert job_fate(tmp_path / "absent", 0) == job_fate(None, 0) == "running"
    assert read_names(tmp_path / "absent") is None


def test_names_come_once_and_in_order(tmp_path):
    (tmp_path / "nodes").write_text("n2\nn1\nn2\n")
    assert read_names(tmp_path / "nodes") == ("n2", "n1")


def test_the_restart_is_in_the_attempts_name():
    assert restart_of("12_3") == restart_of("12_3_1") == 3
