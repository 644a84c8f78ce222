"""The benchmarks of named entities and of relations, in the order of the tables."""

from megatron_biollm.evaluation.benchmark import Benchmark
from megatron_biollm.evaluation.benchmarks.bc2gm import BC2GM
from megatron_biollm.evaluation.benchmarks.bc5cdr import BC5CDR_CHEMICAL, BC5CDR_DISEASE
from megatron_biollm.evaluation.benchmarks.bc5cdr_cid import BC5CDR_CID
from megatron_biollm.evaluation.benchmarks.biored import BIORED
from megatron_biollm.evaluation.benchmarks.chemprot import CHEMPROT
from megatron_biollm.evaluation.benchmarks.ddi2013 import DDI2013
from megatron_biollm.evaluation.benchmarks.drugprot import DRUGPROT
from megatron_biollm.evaluation.benchmarks.folds import EUADR, GAD
from megatron_biollm.evaluation.benchmarks.hoc import HOC
from megatron_biollm.evaluation.benchmarks.jnlpba import JNLPBA
from megatron_biollm.evaluation.benchmarks.kd_dti import KD_DTI
from megatron_biollm.evaluation.benchmarks.ncbi_disease import NCBI_DISEASE

ENTITIES: tuple[Benchmark, ...] = (
    NCBI_DISEASE,
    BC5CDR_CHEMICAL,
    BC5CDR_DISEASE,
    BC2GM,
    JNLPBA,
)
RELATIONS: tuple[Benchmark, ...] = (
    CHEMPROT,
    DDI2013,
    GAD,
    BIORED,
    KD_DTI,
)
OTHERS: tuple[Benchmark, ...] = (HOC, EUADR, BC5CDR_CID, DRUGPROT)
