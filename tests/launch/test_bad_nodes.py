import pytest

from megatron_biollm.launch.bad_nodes import (
    add_bad_node,
    blame,
    choose_excluded,
    read_bad_nodes,
)

KILLED = "  exitcode  : -9 (pid: 77)\n  error_file: <N/A>\n"
RAISED = "  exitcode  : 1 (pid: 78)\n"


def test_a_list_by_hand_is_read_with_reasons_and_comments(tmp_path):
    (tmp_path / "bad_nodes.txt").write_text("# from the operators\nn3\nn1 slow  # since May\n\n")
    add_bad_node(tmp_path, "n3", "ECC\nerrors")
    assert read_bad_nodes(tmp_path) == {"n1": "slow", "n3": "ECC errors"}
    assert read_bad_nodes(tmp_path / "absent") == {}


@pytest.mark.parametrize(
    ("most", "usable", "needed", "expected"),
    [
        (2, (), 2, ["n2", "n3"]),
        (9, ("n1", "n2", "n3", "n4"), 2, ["n2", "n3"]),
        (9, ("n1", "n2", "n3"), 3, []),
        (0, (), 1, []),
    ],
    ids=["the newest", "as long as enough are left", "never too many", "none"],
)
def test_nodes_are_excluded_up_to_a_maximum(most, usable, needed, expected):
    assert choose_excluded(["n1", "n2", "n3"], most, usable, needed) == expected


def ended(logs, **nodes):
    for node, (status, when, log) in nodes.items():
        (logs / f"node_{node}.exit").write_text(f"{status} {when}\n")
        (logs / f"node_{node}.log").write_text(log)


def test_a_rank_that_was_killed_is_blamed_on_its_node(tmp_path):
    ended(tmp_path, n1=(1, 10.0, RAISED), n2=(1, 10.2, KILLED), n3=(1, 10.1, RAISED))
    assert blame(tmp_path) == {"n2": "a rank died of SIGKILL"}


def test_the_node_that_clearly_failed_first_is_blamed(tmp_path):
    ended(tmp_path, n1=(137, 99.0, ""), n2=(1, 10.2, RAISED), n3=(137, 99.0, ""))
    assert list(blame(tmp_path)) == ["n2"]


def test_nobody_is_blamed_where_all_fail_alike(tmp_path):
    ended(tmp_path, n1=(1, 10.0, RAISED), n2=(1, 10.2, RAISED), n3=(1, 10.1, RAISED))
    assert blame(tmp_path) == {}


def test_a_death_on_most_nodes_is_no_nodes_fault(tmp_path):
    ended(tmp_path, n1=(1, 10.0, KILLED), n2=(1, 10.2, KILLED), n3=(0, 10.1, ""))
    assert blame(tmp_path) == {}


def test_what_a_watchdog_ends_everywhere_is_no_sign(tmp_path):
    aborted = KILLED.replace("-9", "-6")
    ended(tmp_path, n1=(1, 10.0, RAISED), n2=(1, 10.2, aborted), n3=(1, 10.1, RAISED))
    assert blame(tmp_path) == {}


def test_a_torn_marker_is_passed_over(tmp_path):
    ended(tmp_path, n1=(1, 10.0, RAISED))
    (tmp_path / "node_n2.exit").write_text("")
    assert list(blame(tmp_path)) == ["n1"]
