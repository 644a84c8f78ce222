"""What one machine is like, and whether all machines of a run are alike."""

import os
import resource
import shutil
import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron_biollm.launch.findings import FAIL, PASS, WARN, Finding

# NCCL joins the GPUs of a machine through files of shared memory; a corpus takes three open files.
SHM_BYTES = 1 << 30
OPEN_FILES = 4096
# Heartbeats and file times of machines are compared.
CLOCK_WARN_S, CLOCK_FAIL_S = 1.0, 30.0


@dataclass(frozen=True)
class HostFacts:
    """Attributes:
    rank, host: of the process that looked.
    versions: of the packages that compute.
    kernels: what computes and communicates, by name; None where it is absent.
    config: digest of the run's configuration as this process read it.
    shm_bytes, open_files: free shared memory; limit on open files.
    gpu: what the driver says of this process's GPU (`device.health`), empty on the CPU.
    clock_offset: seconds that this machine's clock is ahead of rank 0's.
    """

    rank: int
    host: str
    versions: Mapping[str, str]
    kernels: Mapping[str, str | None]
    config: str
    shm_bytes: int
    open_files: int
    gpu: Mapping[str, str] = field(default_factory=dict)
    clock_offset: float = 0.0


def look(
    rank: int,
    versions: Mapping[str, str],
    kernels: Mapping[str, str | None],
    config: str,
    gpu: Mapping[str, str],
    clock_offset: float,
) -> HostFacts:
    """Facts of this machine; what the arguments are: `HostFacts`."""
    shm = Path("/dev/shm")  # Linux's; elsewhere the temporary folder takes its place
    free = shutil.disk_usage(shm if shm.is_dir() else Path.cwd()).free
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    unlimited = limit == resource.RLIM_INFINITY
    return HostFacts(
        rank,
        socket.gethostname(),
        versions,
        kernels,
        config,
        free,
        OPEN_FILES if unlimited else limit,
        gpu,
        clock_offset,
    )


def compare_hosts(facts: Sequence[HostFacts]) -> list[Finding]:
    """Versions, kernels, configuration, clocks and limits over all machines."""
    return [
        _same("versions", facts, lambda f: f.versions, "install the same environment everywhere"),
        _same("kernels", facts, lambda f: f.kernels, "install the same environment everywhere"),
        _same_config(facts),
        _clocks(facts),
        _limits(facts),
        *_gpus(facts),
    ]


def _same(
    check: str,
    facts: Sequence[HostFacts],
    of: Callable[[HostFacts], Mapping[str, str | None]],
    remedy: str,
) -> Finding:
    first, odd = of(facts[0]), [f for f in facts if of(f) != of(facts[0])]
    text = ", ".join(f"{name} {value or 'absent'}" for name, value in first.items())
    if not odd:
        return Finding(check, PASS, text)
    other = of(odd[0])
    different = [
        f"{name} {other.get(name) or 'absent'} instead of {first.get(name) or 'absent'}"
        for name in dict.fromkeys([*first, *other])
        if other.get(name) != first.get(name)
    ]
    return Finding(check, FAIL, "; ".join(different), remedy, _hosts(odd))


def _same_config(facts: Sequence[HostFacts]) -> Finding:
    odd = [f for f in facts if f.config != facts[0].config]
    if not odd:
        return Finding("config", PASS, f"the same on all {len(facts)} ranks ({facts[0].config})")
    remedy = "give every machine the same YAML and the same environment"
    return Finding("config", FAIL, "machines read different configurations", remedy, _hosts(odd))


def _clocks(facts: Sequence[HostFacts]) -> Finding:
    worst = max(facts, key=lambda f: abs(f.clock_offset))
    offset = abs(worst.clock_offset)
    text = f"at most {offset:.3f} s apart ({worst.host} to {facts[0].host})"
    status = FAIL if offset > CLOCK_FAIL_S else WARN if offset > CLOCK_WARN_S else PASS
    odd = [f for f in facts if abs(f.clock_offset) > CLOCK_WARN_S]
    return Finding("clocks", status, text, "synchronise the clocks (chrony, NTP)", _hosts(odd))


def _limits(facts: Sequence[HostFacts]) -> Finding:
    shm, files = min(f.shm_bytes for f in facts), min(f.open_files for f in facts)
    text = f"{shm / 1e9:.1f} GB of shared memory free, {files} open files"
    odd = [f for f in facts if f.shm_bytes < SHM_BYTES or f.open_files < OPEN_FILES]
    remedy = f"shared memory of 1 GB or more (in a container --shm-size), ulimit -n {OPEN_FILES}"
    return Finding("limits", WARN if odd else PASS, text, remedy, _hosts(odd))


def _gpus(facts: Sequence[HostFacts]) -> list[Finding]:
    if not facts[0].gpu:
        return []
    names = sorted({f.gpu.get("name", "") for f in facts})
    slowed = [f for f in facts if f.gpu.get("throttled")]
    busy = [f for f in facts if f.gpu.get("in_use")]
    failing = [f for f in facts if f.gpu.get("memory_errors")]
    clocks = [float(f.gpu["clock_mhz"]) for f in facts if f.gpu.get("clock_mhz")]
    about = f"{', '.join(names)}; {statistics.median(clocks):.0f} MHz" if clocks else names[0]
    findings = [Finding("GPUs", PASS if len(names) == 1 else WARN, about, "one kind is faster")]
    for odd, status, what, remedy in (
        (failing, FAIL, "uncorrected memory errors", "drain these machines"),
        (busy, FAIL, "used by another process", "end it, or leave the machine out"),
        (slowed, WARN, "clocked down by heat or power", "look at cooling and power limits"),
    ):
        if odd:
            reasons = {value for f in odd if (value := f.gpu.get("throttled"))}
            text = f"{len(odd)} GPUs {what} {' '.join(sorted(reasons))}".strip()
            findings.append(Finding("GPU health", status, text, remedy, _hosts(odd)))
    return findings


def write_speed(folder: Path, megabytes: int = 64) -> float:
    """Megabytes per second that one process writes and syncs in `folder`; leaves nothing.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / f".preflight-{socket.gethostname()}-{os.getpid()}.tmp"
    block = os.urandom(1 << 20)  # nothing a file system could compress away
    start = time.perf_counter()
    try:
        with path.open("wb") as file:
            for _ in range(megabytes):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return megabytes * 1.048576 / (time.perf_counter() - start)
    finally:
        path.unlink(missing_ok=True)


def _hosts(facts: Sequence[HostFacts]) -> tuple[str, ...]:
    return tuple(sorted({f.host for f in facts}))
