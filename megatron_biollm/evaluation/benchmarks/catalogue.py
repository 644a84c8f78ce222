"""Every benchmark, in the order of the tables."""

from megatron_biollm.evaluation.benchmark import Benchmark
from megatron_biollm.evaluation.benchmarks.extraction import ENTITIES, OTHERS, RELATIONS
from megatron_biollm.evaluation.benchmarks.medqa import MEDQA

BENCHMARKS: tuple[Benchmark, ...] = (MEDQA, *ENTITIES, *RELATIONS, *OTHERS)
