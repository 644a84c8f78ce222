"""Every link of every group is measured once, and the slowest pair is named."""

import pytest

from megatron_biollm.launch.findings import PASS, SKIP, WARN
from megatron_biollm.launch.network import GroupBandwidth, Link, _rounds, judge


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 9])
def test_each_link_of_the_ring_has_its_turn_and_no_rank_two_partners(size):
    links = set()
    for partners in _rounds(size):
        assert all(partners[partners[place]] == place for place in partners)
        links |= {frozenset(pair) for pair in partners.items()}
    assert links == {frozenset((place, (place + 1) % size)) for place in range(size)}


def bandwidth(*links):
    return GroupBandwidth("dp", 4, 1e10, (0, 1), tuple(links))


def link(a, b, speed, host_a="n1", host_b="n2"):
    return Link((a, b), (host_a, host_b), speed)


def test_the_slowest_pair_is_named_and_a_lame_one_warned_of():
    links = [link(0, 8, 2e10), link(1, 9, 2e10), link(2, 10, 2e10, "n3", "n4"), link(3, 11, 6e9)]
    finding = judge(bandwidth(*links), "dp")
    assert finding.status == WARN and finding.hosts == ("n1", "n2")
    assert "rank 3 (n1) and rank 11 (n2): 6 GB/s" in finding.text
    assert "median of such pairs is 20 GB/s" in finding.remedy


def test_links_between_machines_are_not_blamed_for_being_slower_than_those_within():
    links = [link(0, 1, 3e11, "n1", "n1"), link(2, 3, 3e11, "n2", "n2"), link(1, 2, 4e10)]
    assert judge(bandwidth(*links), "dp").status == PASS


def test_groups_of_one_are_left_out():
    assert judge(None, "cp").status == SKIP
