"""Seconds that ranks need to exchange bytes, over NVLink inside a node and the network beyond."""

from dataclasses import dataclass

from megatron_biollm.planner.calibration import Calibration
from megatron_biollm.planner.hardware import Gpu

# Seconds to launch and synchronise, and for each step of a ring: of the order that nccl-tests
# (https://github.com/NVIDIA/nccl-tests) print for small messages.
LAUNCH = 10e-6
NVLINK_HOP = 2e-6
NETWORK_HOP = 8e-6


@dataclass(frozen=True)
class Group:
    """Ranks that exchange, as far as speed goes.

    Attributes:
        size: ranks.
        stride: distance between neighbours in rank order, 1 for tensor parallelism.
    """

    size: int
    stride: int

    def members_per_node(self, gpu: Gpu) -> int:
        """Of this group in one node."""
        return min(self.size, max(1, gpu.gpus_per_node // self.stride))

    def crosses_nodes(self, gpu: Gpu) -> bool:
        """Whether the group needs the network."""
        return self.members_per_node(gpu) < self.size


def bandwidth(group: Group, gpu: Gpu, calibration: Calibration) -> float:
    """Bytes per second at which one rank passes a ring's bytes on.

    A ring over nodes enters and leaves each node once for every network card of its members, so
    the members of one node pool their cards, up to what NVLink carries.
    """
    nvlink = gpu.nvlink_bandwidth * 1e9 * calibration.nvlink
    if not group.crosses_nodes(gpu):
        return nvlink
    network = gpu.network_bandwidth / 8 * 1e9 * calibration.network
    return min(nvlink, network * group.members_per_node(gpu))


def gather_seconds(whole: float, group: Group, gpu: Gpu, calibration: Calibration) -> float:
    """All-gather to, or reduce-scatter from, `whole` bytes on every rank."""
    if group.size == 1:
        return 0.0
    moved = whole * (group.size - 1) / group.size
    return moved / bandwidth(group, gpu, calibration) + _latency(group, gpu)


def send_seconds(moved: float, crosses: bool, gpu: Gpu, calibration: Calibration) -> float:
    """`moved` bytes to one neighbour, beyond the node or inside it."""
    if crosses:
        seconds = moved / (gpu.network_bandwidth / 8 * 1e9 * calibration.network)
        return LAUNCH + NETWORK_HOP + seconds
    return LAUNCH + NVLINK_HOP + moved / (gpu.nvlink_bandwidth * 1e9 * calibration.nvlink)


def _latency(group: Group, gpu: Gpu) -> float:
    """Each rank's part passes by all others."""
    nodes = group.size // group.members_per_node(gpu)
    over_network = nodes if nodes > 1 else 0
    return LAUNCH + NETWORK_HOP * over_network + NVLINK_HOP * (group.size - max(nodes, 1))
