"""Every benchmark, in the order of the tables."""

from megatron_biollm.evaluation.benchmark import Benchmark
from megatron_biollm.evaluation.benchmarks.bioasq import BIOASQ
from megatron_biollm.evaluation.benchmarks.extraction import ENTITIES, OTHERS, RELATIONS
from megatron_biollm.evaluation.benchmarks.medmcqa import MEDMCQA
from megatron_biollm.evaluation.benchmarks.medqa import MEDQA
from megatron_biollm.evaluation.benchmarks.mmlu_medical import MMLU_MEDICAL
from megatron_biollm.evaluation.benchmarks.pubmedqa import PUBMEDQA

QUESTIONS = (MEDQA, MEDMCQA, PUBMEDQA, MMLU_MEDICAL, BIOASQ)
BENCHMARKS: tuple[Benchmark, ...] = (*QUESTIONS, *ENTITIES, *RELATIONS, *OTHERS)
