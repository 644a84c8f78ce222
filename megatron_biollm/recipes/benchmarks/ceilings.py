"""What this machine can do at most, measured: a large matrix product and a large copy.

Model FLOPs of a step divided by the product's rate are the time below which no step can come; a
step that moves data is held by the copy's rate.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from megatron_biollm.device.runtime import Device

# (m, n, k) of m x k times k x n: the largest product of a 70B layer at two sequences of 4,096
# tokens, and squares. On a CPU what takes tens of milliseconds.
CUDA_SHAPES = ((8192, 28672, 8192), (8192, 8192, 8192), (16384, 16384, 16384))
CPU_SHAPES = ((512, 1024, 512), (1024, 1024, 1024))
CUDA_COPY_BYTES, CPU_COPY_BYTES = 4 * 2**30, 64 * 2**20
SECONDS = {"cuda": 0.6, "cpu": 0.3}
FEWEST = 5


@dataclass(frozen=True)
class Product:
    """Rates of one matrix product, m x k times k x n."""

    m: int
    n: int
    k: int
    best_tflops: float
    median_tflops: float


def measure_ceilings(device: Device, bf16: bool) -> dict[str, Any]:
    """Rates of the products in the run's precision, and of a copy within the device's memory.

    Returns:
        `products`, the highest median of them as `matrix_tflops` (what a step can sustain),
        `copy_gb_per_second` (bytes read and written, 10^9), and `dtype`.
    """
    dtype = torch.bfloat16 if bf16 else torch.float32
    shapes = CUDA_SHAPES if device.kind == "cuda" else CPU_SHAPES
    products = [_product(device, dtype, *shape) for shape in shapes]
    copied = CUDA_COPY_BYTES if device.kind == "cuda" else CPU_COPY_BYTES
    best, median = _copy_rates(device, copied)
    device.release_free_memory()
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "products": [asdict(one) for one in products],
        "matrix_tflops": max(one.median_tflops for one in products),
        "copy_bytes": copied,
        "copy_gb_per_second": median,
        "copy_gb_per_second_best": best,
    }


def _product(device: Device, dtype: torch.dtype, m: int, n: int, k: int) -> Product:
    a = torch.randn(m, k, dtype=dtype, device=device.torch_device)
    b = torch.randn(n, k, dtype=dtype, device=device.torch_device)
    # As a linear layer has it: the weight is n x k.
    seconds = _repeated(lambda: device.linear(a, b), device)
    flops = 2.0 * m * n * k / 1e12
    return Product(m, n, k, flops / min(seconds), flops / statistics.median(seconds))


def _copy_rates(device: Device, size: int) -> tuple[float, float]:
    """Best and median GB/s; a byte that is copied is read once and written once."""
    source = torch.ones(size // 4, dtype=torch.float32, device=device.torch_device)
    target = torch.empty_like(source)
    seconds = _repeated(lambda: target.copy_(source), device)
    return 2 * size / min(seconds) / 1e9, 2 * size / statistics.median(seconds) / 1e9


def _repeated(work: Callable[[], Any], device: Device) -> list[float]:
    """Seconds of single runs, after two that warm up, for as long as `SECONDS` says."""
    seconds: list[float] = []
    start, done = time.perf_counter(), -2
    while done < FEWEST or time.perf_counter() - start < SECONDS[device.kind]:
        device.synchronize()
        begin = time.perf_counter()
        work()
        device.synchronize()
        if done >= 0:
            seconds.append(time.perf_counter() - begin)
        done += 1
    return seconds


def ceilings_line(ceilings: dict[str, Any]) -> str:
    """The ceilings in one sentence, for the head of a table."""
    best = max(ceilings["products"], key=lambda one: one["median_tflops"])
    return (
        f"ceilings measured first: {best['m']} x {best['k']} x {best['n']} {ceilings['dtype']} "
        f"product {best['median_tflops']:,.4g} TFLOP/s (best {best['best_tflops']:,.4g}), copy "
        f"{ceilings['copy_gb_per_second']:,.4g} GB/s"
    )
