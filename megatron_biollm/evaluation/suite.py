"""The benchmarks by name, and the named sets of them."""

from collections.abc import Sequence

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Benchmark
from megatron_biollm.evaluation.benchmarks import catalogue

BIOLLM15 = (
    "medqa", "medmcqa", "pubmedqa", "mmlu_medical", "bioasq",
    "ncbi_disease", "bc5cdr_chemical", "bc5cdr_disease", "bc2gm", "jnlpba",
    "chemprot", "ddi2013", "gad", "biored", "kd_dti",
)  # fmt: skip
EXTRAS = (
    "bioasq_factoid", "bioasq_list", "bioasq_summary",
    "mts_dialog", "mts_dialog_section", "aci_bench", "davis", "kiba",
    "hoc", "euadr", "bc5cdr_cid", "drugprot",
)  # fmt: skip
SUITES = {"biollm15": BIOLLM15, "extras": EXTRAS}


def all_benchmarks() -> dict[str, Benchmark]:
    """Every benchmark that there is, by name."""
    return {one.name: one for one in catalogue.BENCHMARKS}


def choose(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of suites and names, each once, in the order given.

    Raises:
        UserError: a name that is neither.
    """
    known = all_benchmarks()
    wanted = [one for name in names for one in SUITES.get(name, (name,))]
    for name in wanted:
        if name not in known:
            raise UserError(
                f"no benchmark or suite {name!r}; there are {', '.join([*SUITES, *known])}"
            )
    return [known[name] for name in dict.fromkeys(wanted)]
