"""Processes of benchmarks: what they print, how long they take, and the memory that they hold."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from megatron_biollm.config import UserError

_POLL_S = 0.01


def run_process(command: list[str]) -> dict[str, float]:
    """What a module printed as JSON, with the process's seconds, CPU and memory in bytes.

    Raises:
        UserError: it failed.
    """
    start = time.perf_counter()
    arguments = [sys.executable, "-W", "ignore", "-m", *command]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        watch = _MemoryWatch(process.pid)
        said = process.stdout.read()
        errors = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        peaks = watch.peaks()
    if process.returncode:
        raise UserError(
            f"{' '.join(command)} ended with exit status {process.returncode}: "
            f"{errors.decode('utf-8', 'replace')[-800:].strip()}; mend that and measure again"
        )
    cpu = used.ru_utime + used.ru_stime
    return {"wall_s": seconds, "cpu_s": cpu, **peaks, **json.loads(said.splitlines()[-1])}


class _MemoryWatch:
    """The most memory of a process, in bytes: what it holds, and with mapped pages of files."""

    def __init__(self, pid: int):
        self.status, self.over = Path(f"/proc/{pid}/status"), threading.Event()
        self.largest = {"RssAnon": 0, "VmHWM": 0}
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def peaks(self) -> dict[str, int]:
        self.over.set()
        self.thread.join()
        return {
            "anonymous_bytes": self.largest["RssAnon"],
            "resident_bytes": self.largest["VmHWM"],
        }

    def _watch(self) -> None:
        while not self.over.wait(_POLL_S):
            try:
                lines = self.status.read_text(encoding="utf-8").splitlines()
            except OSError:
                return
            for name, _, text in (line.partition(":") for line in lines):
                if name in self.largest and text:
                    size = int(text.removesuffix("kB")) * 1024
                    self.largest[name] = max(self.largest[name], size)
