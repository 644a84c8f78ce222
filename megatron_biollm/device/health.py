"""What the driver says of a GPU, for checks before a run. On a machine without one: nothing."""

import shutil
import subprocess

# https://docs.nvidia.com/deploy/nvidia-smi/ : names of `nvidia-smi --query-gpu`.
_QUERY = {
    "name": "name",
    "driver": "driver_version",
    "clock_mhz": "clocks.max.sm",
    "memory_used_mib": "memory.used",
    "memory_errors": "ecc.errors.uncorrected.volatile.total",
    "hot": "clocks_throttle_reasons.hw_thermal_slowdown",
    "warm": "clocks_throttle_reasons.sw_thermal_slowdown",
    "power_brake": "clocks_throttle_reasons.hw_power_brake_slowdown",
}
_THROTTLES = ("hot", "warm", "power_brake")
# A GPU whose processes are gone holds a few hundred MiB at most.
IDLE_MIB = 1024


def gpu_health(index: int) -> dict[str, str]:
    """Name, driver, clock and what is wrong with a GPU before anything runs on it.

    Returns:
        `name`, `driver`, `clock_mhz`; where it is so `throttled` (why), `in_use` (MiB),
        `memory_errors` (count). Empty where there is no driver tool or no such GPU.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    query = f"--query-gpu={','.join(_QUERY.values())}"
    command = [program, f"--id={index}", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return parse_health(done.stdout) if done.returncode == 0 else {}


def parse_health(line: str) -> dict[str, str]:
    """One line of `nvidia-smi --format=csv,noheader,nounits`; a value it lacks is left out."""
    values = [value.strip() for value in line.strip().split(",")]
    if len(values) != len(_QUERY):
        return {}
    found = dict(zip(_QUERY, values, strict=True))
    found = {name: v for name, v in found.items() if not v.startswith("[") and v != "N/A"}
    throttled = [name for name in _THROTTLES if found.pop(name, "").lower() == "active"]
    used, errors = found.pop("memory_used_mib", "0"), found.pop("memory_errors", "0")
    if throttled:
        found["throttled"] = ", ".join(throttled).replace("_", " ")
    if used.isdigit() and int(used) > IDLE_MIB:
        found["in_use"] = used
    if errors not in ("", "0"):
        found["memory_errors"] = errors
    return found
