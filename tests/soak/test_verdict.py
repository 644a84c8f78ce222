"""A run is as promised only if it equals its twin, and damage that a soak does is real damage."""

import os

import pytest

from tests.soak.disk import SmallDisk
from tests.soak.faults import _blames, first_words, flip_byte
from tests.soak.table import add_to_report, is_good, markdown
from tests.soak.verdict import compare

ROWS = [
    {"step": s, "loss": 5.0 - s, "grad_norm": 1.0, "batch_hash": f"{s:x}", "consumed_samples": s}
    for s in range(1, 5)
]
FAULT = {"number": 1, "run": 1, "kind": "kill", "moment": "save", "victim": "rank 2 on n2"}
FAULT |= {"step": 7, "observed": "again", "seconds": 12.3, "verdict": "recovered"}
RUN = {"run": 1, "layout": "tp=2", "starts": 3, "starts_by_hand": [], "state": "finished"}
RUN |= {"step": 60, "loss": 4.5, "equal": "all steps", "ledger": "balances", "problems": []}


def test_rows_that_are_equal_to_the_bit_leave_nothing_to_say():
    assert compare(ROWS, ROWS, 4) == []


@pytest.mark.parametrize("name", ["loss", "grad_norm", "batch_hash", "consumed_samples"])
def test_the_smallest_difference_is_named_with_its_step(name):
    other = [dict(row) for row in ROWS]
    value = other[2][name]
    other[2][name] = value + 1e-15 if isinstance(value, float) else "other"
    (problem,) = compare(other, ROWS, 4)
    assert problem.startswith("1 steps differ from the twin's, the first is 3")
    assert compare(other, ROWS, 2) == []


def test_missing_and_repeated_steps_are_found():
    assert compare(ROWS[:3], ROWS, 4) and compare([*ROWS, ROWS[-1]], ROWS, 4)


def test_one_bit_is_flipped_and_flipping_again_mends_it(tmp_path):
    path, content = tmp_path / "shard", bytes(range(256))
    path.write_bytes(content)
    flip_byte(path, 0.7)
    changed = path.read_bytes()
    bits = [(a ^ b).bit_count() for a, b in zip(changed, content, strict=True)]
    assert sum(bits) == 1 and len(changed) == len(content)
    flip_byte(path, 0.7)
    assert path.read_bytes() == content


def test_a_hang_report_blames_those_it_names_before_its_table():
    report = (
        "rank 0 on host: no progress\n\nrank 2 (pid 7 on host): stopped\n\nrank    step  phase\n"
    )
    assert _blames(report + "   1  3  'optimizer'\nstack of rank 1", 2)
    assert not _blames(report, 0) and not _blames(report, 1)


def test_what_was_seen_fits_into_a_table():
    assert first_words("failed; see /tmp/run/logs") == "failed"
    assert first_words("/tmp/run/step_00000004: torn") == "step_00000004: torn"
    assert len(first_words("x" * 200)) == 90


@pytest.mark.skipif(os.geteuid() != 0, reason="a disk of its own needs root")
def test_a_full_disk_takes_no_byte_until_it_is_freed(tmp_path):
    try:
        disk = SmallDisk(tmp_path / "disk", megabytes=2).__enter__()
    except OSError:
        pytest.skip("no file system may be mounted here")
    try:
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "file").write_bytes(b"x" * 10_000)
        disk.free()
        (disk.folder / "file").write_bytes(b"x" * 10_000)
    finally:
        disk.__exit__()


def test_a_soak_is_good_only_if_all_faults_and_all_runs_are():
    good = {"faults": [FAULT], "runs": [RUN]}
    assert is_good(good)
    assert not is_good({**good, "faults": [FAULT | {"verdict": "NEEDED A PERSON"}]})
    assert not is_good({**good, "runs": [RUN | {"problems": ["step 3 differs"]}]})


def test_the_tables_have_a_row_for_every_fault_and_run():
    lines = markdown({"faults": [FAULT], "runs": [RUN]}).splitlines()
    assert (
        "| 1 | 1 | kill -9 of a rank, during a save | rank 2 on n2 | 7 | again | 12 | recovered |"
        in lines
    )
    assert lines[-1].endswith("| as promised |") and "| finished, 60 | 4.500000 |" in lines[-1]


def test_a_soak_that_was_cut_short_is_gone_on_with_in_order():
    second = {"faults": [FAULT | {"number": 2, "run": 2}], "runs": [RUN | {"run": 2}]}
    both = add_to_report({**second, "seed": 1}, {"faults": [FAULT], "runs": [RUN], "seed": 1})
    assert [fault["number"] for fault in both["faults"]] == [1, 2]
    assert [run["run"] for run in both["runs"]] == [1, 2] and both["seed"] == 1
