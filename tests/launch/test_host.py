"""Machines that are not alike are named, with what differs."""

from dataclasses import replace

import pytest

from megatron_biollm.launch.findings import FAIL, PASS, WARN, Finding, page, report
from megatron_biollm.launch.host import HostFacts, compare_hosts, look, write_speed

GOOD = HostFacts(
    0, "n1", {"torch": "2.11"}, {"layers": "local", "apex": None}, "abc", 10**10, 10**5
)


def found(check, *facts):
    return next(f for f in compare_hosts(facts) if f.check == check)


def test_machines_that_are_alike_pass():
    findings = compare_hosts([GOOD, replace(GOOD, rank=1, host="n2")])
    assert {finding.status for finding in findings} == {PASS}


@pytest.mark.parametrize(
    ("check", "odd", "status", "text"),
    [
        ("versions", {"versions": {"torch": "2.10"}}, FAIL, "torch 2.10 instead of 2.11"),
        ("kernels", {"kernels": {"layers": "local", "apex": "1"}}, FAIL, "apex 1 instead of abs"),
        ("config", {"config": "abd"}, FAIL, "different configurations"),
        ("clocks", {"clock_offset": -2.5}, WARN, "2.500 s apart"),
        ("clocks", {"clock_offset": 40.0}, FAIL, "40.000 s apart"),
        ("limits", {"shm_bytes": 64 << 20}, WARN, "0.1 GB of shared memory"),
        ("limits", {"open_files": 1024}, WARN, "1024 open files"),
    ],
)
def test_the_odd_machine_is_named_with_what_differs(check, odd, status, text):
    finding = found(check, GOOD, replace(GOOD, rank=1, host="n2", **odd))
    assert (finding.status, finding.hosts) == (status, ("n2",))
    assert text in finding.text and finding.remedy


@pytest.mark.parametrize(
    ("gpu", "status", "text"),
    [
        ({"throttled": "hot"}, WARN, "clocked down by heat or power hot"),
        ({"in_use": "70000"}, FAIL, "used by another process"),
        ({"memory_errors": "3"}, FAIL, "uncorrected memory errors"),
    ],
)
def test_a_gpu_that_is_not_well_is_named(gpu, status, text):
    good = replace(GOOD, gpu={"name": "H100", "clock_mhz": "1980"})
    ill = replace(good, host="n2", gpu={**good.gpu, **gpu})
    finding = found("GPU health", good, ill)
    assert (finding.status, finding.hosts) == (status, ("n2",)) and text in finding.text
    assert found("GPUs", good, ill).text == "H100; 1980 MHz"


def test_this_machine_can_be_looked_at():
    facts = look(3, {}, {}, "abc", {}, 0.5)
    assert facts.rank == 3 and facts.host and facts.shm_bytes > 0 and facts.open_files > 0


def test_the_disk_is_timed_and_left_clean(tmp_path):
    assert write_speed(tmp_path, megabytes=1) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_page_gives_the_remedy_of_what_failed_and_the_verdict():
    bad = Finding("clocks", FAIL, "2 s apart", "synchronise them", ("n2",))
    good = Finding("disk", PASS, "fine", "never shown")
    text = page("run", [good, bad])
    assert "-> synchronise them" in text and "on n2" in text and "never shown" not in text
    assert text.endswith("NOT READY: 1 of 2 checks failed, 0 warnings")
    assert report([good, bad])["bad_hosts"] == ["n2"] and not report([good, bad])["ready"]
    assert page("run", [good]).endswith("ready: 1 checks, 0 warnings")
