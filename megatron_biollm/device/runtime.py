"""The device of a run, chosen once: CUDA with NCCL, or CPU with gloo."""

import contextlib
import ctypes
import os
import platform
import random
import resource
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy
import torch
import torch.distributed

from megatron_biollm.config import UserError
from megatron_biollm.device.rendezvous import join_world

# Dense bf16 and fp32 (without TF32) TFLOP/s of the data sheets, SXM parts unless named.
# Longest match wins: "H100 PCIe" before "H100".
PEAK_TFLOPS = {
    "A100": (312.0, 19.5),
    "A800": (312.0, 19.5),
    "H100": (989.4, 66.9),
    "H100 PCIe": (756.0, 51.2),
    "H800": (989.4, 66.9),
    "H200": (989.4, 66.9),
    "GH200": (989.4, 66.9),
    "B200": (2250.0, 75.0),
    "L40S": (362.0, 91.6),
    "RTX 4090": (165.2, 82.6),
}


@dataclass(frozen=True)
class Device:
    """Where tensors live and how ranks talk.

    Attributes:
        kind: "cpu" or "cuda".
        backend: "gloo" or "nccl".
        torch_device: this process's device.
        reason: why this device was chosen, for the log.
    """

    kind: str
    backend: str
    torch_device: torch.device
    reason: str

    def core_context(self) -> AbstractContextManager[None]:
        """What must surround every use of megatron-core: kernels, and on the CPU all of CUDA."""
        if self.kind == "cuda":
            from megatron_biollm.device.cuda import core_on_cuda

            return core_on_cuda()
        from megatron_biollm.device.cpu import cuda_answered_by_cpu

        return cuda_answered_by_cpu()

    def kernels(self, transformer_impl: str) -> dict[str, str]:
        """What computes each part of a step, by name, for logs and records.

        Args:
            transformer_impl: `transformer_engine` or `local`.
        """
        if self.kind == "cuda":
            from megatron_biollm.device.cuda import describe_kernels

            return describe_kernels(transformer_impl)
        from megatron_biollm.device.cpu import describe_kernels

        return describe_kernels()

    def init_distributed(self, timeout_minutes: int) -> None:
        """Joins the process group that torchrun describes; without torchrun, a world of one."""
        timeout = timedelta(minutes=timeout_minutes)
        # Core relies on one hardware queue to start tensor-parallel communication before the
        # computation that hides it; read by CUDA when it starts.
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
        if self.kind == "cuda":
            torch.cuda.set_device(self.torch_device)
        if "RANK" in os.environ:
            store, rank, size = join_world(timeout)
            torch.distributed.init_process_group(
                self.backend, store=store, rank=rank, world_size=size, timeout=timeout
            )
            return
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group(
            self.backend, store=store, rank=0, world_size=1, timeout=timeout
        )

    def synchronize(self) -> None:
        """Waits until every operation queued on the device has finished."""
        if self.kind == "cuda":
            torch.cuda.synchronize()

    def linear(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """rows x weight^T by what the model's layers multiply with, without a gradient.

        Args:
            rows: [..., in].
            weight: [out, in].
        """
        if self.kind == "cuda":
            return torch.matmul(rows, weight.t())
        from megatron_biollm.device.cpu_kernels import linear

        return linear(rows, weight)

    def probe_seconds(self) -> float:
        """Seconds of some small matrix products, best of five: the same work on every device."""
        size, dtype, repeat = (
            (2048, torch.bfloat16, 20) if self.kind == "cuda" else (256, torch.float32, 1)
        )
        a = torch.ones(size, size, dtype=dtype, device=self.torch_device)
        best = float("inf")
        for _ in range(6):  # the first of them warms up
            self.synchronize()
            start = time.perf_counter()
            for _ in range(repeat):
                a @ a
            self.synchronize()
            best = min(best, time.perf_counter() - start)
        return best

    def peak_memory_bytes(self) -> int:
        """Largest memory held so far: allocated CUDA memory, or resident memory on the CPU."""
        if self.kind == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def reset_peak_memory(self) -> None:
        """Lets `peak_memory_bytes` begin anew; the CPU's counts from the start of the process."""
        if self.kind == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def free_memory_bytes(self) -> int:
        """Memory of the device, or of the machine, that nothing holds."""
        if self.kind == "cuda":
            return torch.cuda.mem_get_info()[0]
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def peak_tflops(self, bf16: bool) -> tuple[float, str]:
        """Peak TFLOP/s of one device in the run's precision, and where the number is from."""
        if self.kind == "cpu":
            return _measured_tflops(), f"measured fp32 matmul, {torch.get_num_threads()} threads"
        name = torch.cuda.get_device_name()
        known = max((key for key in PEAK_TFLOPS if key in name), key=len, default=None)
        if known is None:
            return 0.0, f"unknown GPU {name}; set logging.peak_tflops"
        return PEAK_TFLOPS[known][0 if bf16 else 1], f"data sheet of {known}, dense"

    def name(self) -> str:
        """What computes, for records: the GPU, or the processor and torch's threads."""
        if self.kind == "cuda":
            return torch.cuda.get_device_name()
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.is_file() else []
        models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        return f"{next(models, platform.machine())}, {torch.get_num_threads()} threads"

    def communication(self) -> str:
        """The library that moves tensors between ranks, with its version where it tells it."""
        if self.kind == "cuda" and torch.distributed.is_nccl_available():
            return "NCCL " + ".".join(str(part) for part in torch.cuda.nccl.version())
        return self.backend

    def keep_freed_memory(self) -> None:
        """Has the C library keep what a training step frees for the next one (Linux, CPU).

        Tensors above 32 MB are otherwise mapped anew in every step, and the page faults of that
        cost about 3 % of it. CUDA's allocator keeps memory anyway.
        """
        if self.kind == "cuda":
            return
        trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of <malloc.h>
        with contextlib.suppress(OSError, AttributeError):  # not glibc
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(mmap_max, 0)
            libc.mallopt(trim_threshold, 2**31 - 1)

    def release_free_memory(self) -> None:
        """Gives memory of freed tensors back to the device or the operating system."""
        if self.kind == "cuda":
            torch.cuda.empty_cache()
            return
        with contextlib.suppress(OSError, AttributeError):  # not glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def select_device(name: str) -> Device:
    """Chooses the device by name: `cpu`, `cuda`, or `auto` (CUDA where there is a GPU).

    Raises:
        UserError: unknown name, or CUDA asked for where torch finds no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"training.device={name} is unknown; choose auto, cpu or cuda")
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise UserError(
            f"training.device=cuda, but torch {torch.__version__} finds no GPU; use "
            f"training.device=cpu, or install a CUDA build of torch and check nvidia-smi"
        )
    reason = f"training.device={name}" + ("" if name != "auto" else f", GPU found: {found}")
    if name == "cpu" or not found:
        return Device("cpu", "gloo", torch.device("cpu"), reason)
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    return Device("cuda", "nccl", torch.device("cuda", local_rank), reason)


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch; the tensor-parallel generators are core's own."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def _measured_tflops(sizes: tuple[int, ...] = (256, 1024), seconds: float = 0.1) -> float:
    """TFLOP/s of the best of many matrix products of each size.

    On a busy machine only the small ones (about 1 ms) run without being interrupted; large ones
    are needed to occupy many threads.
    """
    return max(2 * size**3 / _best_seconds(size, seconds) / 1e12 for size in sizes)


def _best_seconds(size: int, seconds: float) -> float:
    from megatron_biollm.device.cpu_kernels import linear

    a, b = torch.randn(size, size), torch.randn(size, size)
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        linear(a, b)
        best = min(best, time.perf_counter() - begin)
    return best
