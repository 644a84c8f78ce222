"""Every benchmark, in the order of the tables."""

from megatron_biollm.evaluation.benchmark import Benchmark
from megatron_biollm.evaluation.benchmarks.aci_bench import ACI_BENCH
from megatron_biollm.evaluation.benchmarks.affinity import DAVIS, KIBA
from megatron_biollm.evaluation.benchmarks.bioasq import BIOASQ
from megatron_biollm.evaluation.benchmarks.bioasq_texts import (
    BIOASQ_FACTOID,
    BIOASQ_LIST,
    BIOASQ_SUMMARY,
)
from megatron_biollm.evaluation.benchmarks.extraction import ENTITIES, OTHERS, RELATIONS
from megatron_biollm.evaluation.benchmarks.medmcqa import MEDMCQA
from megatron_biollm.evaluation.benchmarks.medqa import MEDQA
from megatron_biollm.evaluation.benchmarks.mmlu_medical import MMLU_MEDICAL
from megatron_biollm.evaluation.benchmarks.mts_dialog import MTS_DIALOG, MTS_DIALOG_SECTION
from megatron_biollm.evaluation.benchmarks.pubmedqa import PUBMEDQA

QUESTIONS = (MEDQA, MEDMCQA, PUBMEDQA, MMLU_MEDICAL, BIOASQ)
ANSWERS = (BIOASQ_FACTOID, BIOASQ_LIST, BIOASQ_SUMMARY)
NOTES = (MTS_DIALOG, MTS_DIALOG_SECTION, ACI_BENCH)
BENCHMARKS: tuple[Benchmark, ...] = (
    *QUESTIONS,
    *ENTITIES,
    *RELATIONS,
    *ANSWERS,
    *NOTES,
    DAVIS,
    KIBA,
    *OTHERS,
)
