"""Bandwidth between ranks, by where they are."""

from dataclasses import replace

import pytest

from megatron_biollm.planner.calibration import load_calibration
from megatron_biollm.planner.collectives import Group, bandwidth, gather_seconds, send_seconds
from megatron_biollm.planner.hardware import load_gpu

H100 = load_gpu("h100")
PERFECT = replace(load_calibration(), nvlink=1.0, network=1.0)


@pytest.mark.parametrize(
    ("group", "members", "crosses"),
    [
        (Group(8, 1), 8, False),
        (Group(16, 1), 8, True),
        (Group(4, 2), 4, False),
        (Group(4, 8), 1, True),
        (Group(32, 4), 2, True),
    ],
)
def test_ranks_follow_one_another_in_nodes(group, members, crosses):
    assert group.members_per_node(H100) == members
    assert group.crosses_nodes(H100) == crosses


def test_members_of_one_node_pool_their_network_cards_up_to_nvlink():
    assert bandwidth(Group(8, 1), H100, PERFECT) == 450e9
    assert bandwidth(Group(4, 8), H100, PERFECT) == 50e9
    assert bandwidth(Group(32, 4), H100, PERFECT) == 100e9
    fast = replace(H100, network_bandwidth=1600)
    assert bandwidth(Group(16, 1), fast, PERFECT) == 450e9


def test_a_ring_passes_on_all_but_its_own_part():
    assert gather_seconds(8e9, Group(8, 1), H100, PERFECT) == pytest.approx(7e9 / 450e9, rel=0.01)
    assert gather_seconds(8e9, Group(1, 1), H100, PERFECT) == 0


def test_small_messages_cost_the_latency_of_the_ring():
    few, many = (gather_seconds(8, Group(n, 8), H100, PERFECT) for n in (2, 64))
    assert many > 10 * few


def test_sends_take_the_network_between_nodes():
    inside, between = (send_seconds(1e9, crosses, H100, PERFECT) for crosses in (False, True))
    assert between == pytest.approx(9 * inside, rel=0.05)
