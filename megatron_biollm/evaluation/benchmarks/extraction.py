"""The benchmarks of named entities and of relations, in the order of the tables."""

from megatron_biollm.evaluation.benchmark import Benchmark
from megatron_biollm.evaluation.benchmarks.bc5cdr import BC5CDR_CHEMICAL, BC5CDR_DISEASE
from megatron_biollm.evaluation.benchmarks.ncbi_disease import NCBI_DISEASE

ENTITIES: tuple[Benchmark, ...] = (
    NCBI_DISEASE,
    BC5CDR_CHEMICAL,
    BC5CDR_DISEASE,
)
RELATIONS: tuple[Benchmark, ...] = ()
OTHERS: tuple[Benchmark, ...] = ()
