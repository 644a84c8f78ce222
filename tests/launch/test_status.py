"""The status file holds what rank 0 last said, and nothing that is torn is believed."""

import pytest

from megatron_biollm.launch.status import STATUS_FILE, RunStatus, read_status


def test_what_is_written_is_read(tmp_path):
    status = RunStatus("stopped", step=7, train_iters=10, committed_step=7, reason="SIGUSR1")
    status.write(tmp_path)
    assert read_status(tmp_path) == status


def test_a_later_entry_replaces_the_earlier_one(tmp_path):
    RunStatus("running", step=7, train_iters=10).write(tmp_path)
    RunStatus("finished", step=10, train_iters=10, committed_step=10).write(tmp_path)
    assert read_status(tmp_path).state == "finished"
    assert [path.name for path in tmp_path.iterdir()] == [STATUS_FILE]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "asleep", "step": 1}', '{"step": 1}'])
def test_a_torn_or_foreign_file_says_nothing(tmp_path, text):
    (tmp_path / STATUS_FILE).write_text(text)
    assert read_status(tmp_path) is None
    assert read_status(tmp_path / "absent") is None
