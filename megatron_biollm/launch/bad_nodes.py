"""Nodes that a run should not get again: named by anybody, or by how an attempt ended on them.

`run_dir/bad_nodes.txt` holds a node and a reason per line, written by hand, by a preflight, by
whoever knows; `#` begins a comment. Lines stay until a person removes them.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path

BAD_NODES = "bad_nodes.txt"
# torchrun's report of a failed rank; a negative status is the signal that ended it.
RANK_STATUS = re.compile(r"exitcode\s*:\s*(-?\d+)")
# What hardware and the kernel send. SIGTERM and SIGINT are requests, and SIGABRT is how NCCL's
# watchdog ends every rank once one of them is silent.
DEADLY = {4: "SIGILL", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV"}
# Ranks that lose a peer fail too, within moments of it: who was first is then unknown.
CLEARLY_FIRST_S = 3.0


def add_bad_node(run_dir: str | Path, node: str, reason: str) -> None:
    """Names a node that the run should not get again."""
    line = f"{node} {' '.join(reason.split())}\n"
    descriptor = os.open(Path(run_dir) / BAD_NODES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read_bad_nodes(run_dir: str | Path) -> dict[str, str]:
    """Nodes that were named, with the newest reason, in the order of naming."""
    try:
        lines = (Path(run_dir) / BAD_NODES).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    nodes: dict[str, str] = {}
    for line in lines:
        node, _, reason = line.partition("#")[0].strip().partition(" ")
        if node:
            nodes.pop(node, None)
            nodes[node] = reason.strip() or "no reason given"
    return nodes


def choose_excluded(
    bad: Collection[str], most: int, usable: Collection[str] = (), needed: int = 0
) -> list[str]:
    """The nodes to exclude: the newest `most` of the bad ones, and never so many that the run
    could not start.

    Args:
        bad: oldest first.
        most: at most so many.
        usable: nodes of the partition that could run the job; empty where that is unknown.
        needed: nodes that the job takes.
    """
    chosen: list[str] = []
    for node in reversed(list(bad)):
        left = set(usable) - {*chosen, node}
        if len(chosen) < most and (not usable or len(left) >= needed):
            chosen.append(node)
    return sorted(chosen)


def blame(logs: str | Path) -> dict[str, str]:
    """Nodes that an attempt failed on, by what each of them left in the attempt's log folder.

    A node is blamed if one of its ranks died of a signal that no peer causes, or if its torchrun
    clearly failed first. A failure that shows on more than half of the nodes is not theirs.

    Args:
        logs: holds `node_<name>.exit` (status and time of torchrun's end) and `node_<name>.log`.
    """
    exits = _exits(Path(logs))
    failed = {node: end for node, end in exits.items() if end[0] != 0}
    killed = {node: reason for node in failed if (reason := _deadly(Path(logs), node))}
    found = killed or _first(failed)
    return found if len(found) * 2 <= max(len(exits), 2) else {}


def _exits(logs: Path) -> dict[str, tuple[int, float]]:
    exits = {}
    for path in sorted(logs.glob("node_*.exit")):
        try:
            status, when = path.read_text().split()[:2]
            exits[path.stem.removeprefix("node_")] = int(status), float(when)
        except (OSError, ValueError):
            continue
    return exits


def _deadly(logs: Path, node: str) -> str:
    try:
        text = (logs / f"node_{node}.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    signals = [DEADLY.get(-int(status)) for status in RANK_STATUS.findall(text)]
    names = sorted({name for name in signals if name})
    return f"a rank died of {', '.join(names)}" if names else ""


def _first(failed: dict[str, tuple[int, float]]) -> dict[str, str]:
    in_order = sorted(failed, key=lambda node: failed[node][1])
    if not in_order:
        return {}
    first = in_order[0]
    if any(failed[node][1] - failed[first][1] < CLEARLY_FIRST_S for node in in_order[1:]):
        return {}
    return {first: f"torchrun ended first, with status {failed[first][0]},"}
