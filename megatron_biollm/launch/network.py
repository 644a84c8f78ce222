"""Bandwidth of a run's own process groups, and the slowest pair of ranks in them.

All groups of a kind communicate at once, as they do in a training step; then every rank exchanges a
message with its neighbours in the ring of its group, since a ring is as fast as its slowest link.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from megatron_biollm.device.runtime import Device
from megatron_biollm.launch.findings import PASS, SKIP, WARN, Finding

# A link this much below the median of its kind slows the whole group.
SLOW = 0.5


@dataclass(frozen=True)
class Link:
    """Two ranks that exchanged a message; `bandwidth` in bytes per second and direction."""

    ranks: tuple[int, int]
    hosts: tuple[str, str]
    bandwidth: float

    def __str__(self) -> str:
        (a, b), (host_a, host_b) = self.ranks, self.hosts
        return f"rank {a} ({host_a}) and rank {b} ({host_b}): {gigabytes_per_s(self.bandwidth)}"


@dataclass(frozen=True)
class GroupBandwidth:
    """Attributes:
    kind: tp, cp, dp, pp or world.
    size: ranks of a group.
    bus_bandwidth: of an all-reduce in the slowest group, bytes per second on the wire.
    slowest_group: its ranks.
    links: of all groups of the kind.
    """

    kind: str
    size: int
    bus_bandwidth: float
    slowest_group: tuple[int, ...]
    links: tuple[Link, ...]


def measure(
    kind: str,
    group: dist.ProcessGroup,
    hosts: Sequence[str],
    device: Device,
    control: dist.ProcessGroup,
    message_bytes: int,
    repeats: int = 3,
) -> GroupBandwidth | None:
    """Measures all groups of one kind; to be called by every rank of the world at once.

    Args:
        kind: for the report.
        group: this rank's.
        hosts: of all ranks.
        device: of this process.
        control: gloo group of all ranks, to gather the numbers.
        message_bytes: of each message.
        repeats: the best counts, since anything else on the machine only slows.

    Returns:
        The same on every rank; None for groups of one.
    """
    ranks = tuple(dist.get_process_group_ranks(group))
    if len(ranks) == 1:
        return None
    payload = torch.zeros(max(message_bytes // 4, 1), device=device.torch_device)
    mine = (ranks, _all_reduce_bandwidth(group, payload, device, control, repeats))
    links = []
    for neighbours in _rounds(len(ranks)):
        # Together, since the ranks of an odd ring pause in turns.
        dist.barrier(group=control)
        place = ranks.index(dist.get_rank())
        partner = neighbours.get(place)
        if partner is not None:
            seconds = _exchange(ranks[partner], group, payload, device, repeats)
            pair = (ranks[place], ranks[partner])
            if place < partner:
                links.append((pair, payload.nbytes / seconds))
    gathered = [None] * dist.get_world_size(control)
    dist.all_gather_object(gathered, (mine, links), group=control)
    slowest = min((own for own, _ in gathered), key=lambda own: own[1])
    found = [
        Link(pair, (hosts[pair[0]], hosts[pair[1]]), speed)
        for _, own in gathered
        for pair, speed in own
    ]
    return GroupBandwidth(kind, len(ranks), slowest[1], slowest[0], tuple(found))


def judge(bandwidth: GroupBandwidth | None, kind: str) -> Finding:
    """Names the slowest pair, and warns where it lags behind its kind (same host, or not)."""
    check = f"bandwidth {kind}"
    if bandwidth is None:
        return Finding(check, SKIP, "groups of one rank")
    slowest = min(bandwidth.links, key=lambda link: link.bandwidth)
    alike = [link.bandwidth for link in bandwidth.links if _local(link) == _local(slowest)]
    median = statistics.median(alike)
    text = (
        f"{bandwidth.size} ranks: all-reduce {gigabytes_per_s(bandwidth.bus_bandwidth)} on the "
        f"wire; slowest pair {slowest}"
    )
    if slowest.bandwidth >= SLOW * median:
        return Finding(check, PASS, text)
    remedy = (
        f"the median of such pairs is {gigabytes_per_s(median)}: look at the cable, the network "
        f"card or the PCIe link of these two, or leave the machine out"
    )
    return Finding(check, WARN, text, remedy, tuple(sorted(set(slowest.hosts))))


def clock_offset(control: dist.ProcessGroup, samples: int = 3) -> float:
    """Seconds that this rank's clock is ahead of rank 0's; each rank gets its own.

    As in NTP: half the round trip is taken off, and the shortest round trip counts.
    """
    rank, offset = dist.get_rank(control), torch.zeros(1, dtype=torch.float64)
    for other in range(1, dist.get_world_size(control)):
        if rank == 0:
            best = min(_ask_time(other, control) for _ in range(samples))
            dist.send(torch.tensor([best[1]], dtype=torch.float64), other, group=control)
        elif rank == other:
            for _ in range(samples):
                dist.recv(offset, 0, group=control)
                dist.send(torch.tensor([time.time()], dtype=torch.float64), 0, group=control)
            dist.recv(offset, 0, group=control)
    return float(offset)


def gigabytes_per_s(bandwidth: float) -> str:
    """Bytes per second for people."""
    return f"{bandwidth / 1e9:.3g} GB/s"


def _ask_time(other: int, control: dist.ProcessGroup) -> tuple[float, float]:
    """Round trip in seconds, and how far `other` is ahead."""
    answer = torch.zeros(1, dtype=torch.float64)
    sent = time.time()
    dist.send(answer, other, group=control)
    dist.recv(answer, other, group=control)
    received = time.time()
    return received - sent, float(answer) - (sent + received) / 2


def _all_reduce_bandwidth(group, payload, device: Device, control, repeats: int) -> float:
    size, best = group.size(), float("inf")
    for attempt in range(repeats + 1):
        dist.barrier(group=control)
        start = time.perf_counter()
        dist.all_reduce(payload, group=group)
        device.synchronize()
        if attempt:  # the first one sets up connections
            best = min(best, time.perf_counter() - start)
    return 2 * (size - 1) / size * payload.nbytes / best


def _exchange(partner: int, group, payload: torch.Tensor, device: Device, repeats: int) -> float:
    """Seconds for one message there and one back, at the same time."""
    received, best = torch.empty_like(payload), float("inf")
    for attempt in range(repeats + 1):
        start = time.perf_counter()
        sending = dist.P2POp(dist.isend, payload, partner, group)
        receiving = dist.P2POp(dist.irecv, received, partner, group)
        for request in dist.batch_isend_irecv([sending, receiving]):
            request.wait()
        device.synchronize()
        if attempt:
            best = min(best, time.perf_counter() - start)
    return best


def _rounds(size: int) -> list[dict[int, int]]:
    """The links of a ring in rounds in which every place has one partner at most."""
    links = [(place, (place + 1) % size) for place in range(size if size > 2 else 1)]
    even, odd = links[0 : size - size % 2 : 2], links[1 : size - size % 2 : 2]
    rounds = [even, odd, links[size - 1 :] if size % 2 else []]
    return [{a: b for pair in pairs for a, b in (pair, pair[::-1])} for pairs in rounds if pairs]


def _local(link: Link) -> bool:
    return link.hosts[0] == link.hosts[1]
