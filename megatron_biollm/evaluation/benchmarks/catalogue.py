"""Every benchmark, in the order of the tables."""

from megatron_biollm.evaluation.benchmark import Benchmark

BENCHMARKS: tuple[Benchmark, ...] = ()
