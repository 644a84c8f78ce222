"""Which faults a soak brings upon which run, and when; all of it follows from the seed."""

from dataclasses import dataclass, field
from random import Random

TITLES = {
    "kill": "kill -9 of a rank",
    "sigstop": "SIGSTOP of a rank",
    "sigterm": "SIGTERM to a rank",
    "sigterm_torchrun": "SIGTERM to torchrun",
    "node": "node lost with all on it",
    "daemon": "node daemon killed alone",
    "flip": "checkpoint byte flipped",
    "delete": "shard deleted",
    "disk_full": "disk full during a save",
    "nan": "NaN in a gradient",
}
# What can be done without SLURM.
WITHOUT_NODES = tuple(kind for kind in TITLES if kind not in ("node", "daemon"))
LAYOUTS = ({"tp": 2, "sp": "true"}, {"pp": 2})
RANKS, SAVE_INTERVAL = 4, 4
# Faults of a run lie this many steps apart, so that each has a checkpoint of its own to go back to.
FIRST_STEP, SPACING, SPREAD = 6, 10, 7


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        number: in the soak, from 1.
        kind: a key of TITLES.
        step: after which it comes, if the run is not busy with an older one.
        rank: victim; the node is the one that it runs on.
        moment: `step`, or `save`, which waits for the next save to begin; for damage to a
            checkpoint `down`, when all ranks are dead, or `running`, just before they die.
        draw: in [0, 1), for the choice of a file and of a byte in it.
    """

    number: int
    kind: str
    step: int
    rank: int
    moment: str
    draw: float


@dataclass(frozen=True)
class RunPlan:
    """One training run with its faults.

    Attributes:
        number: in the soak, from 1.
        layout: degrees by short name; the rest of the four ranks is data-parallel.
        train_iters: of the run.
        options: overrides of the run that leave its losses as they are.
        on_non_finite: the policy for NaN.
        on_save_failure: the policy for a full disk.
        faults: in the order of their steps.
    """

    number: int
    layout: dict[str, object]
    train_iters: int
    options: tuple[str, ...]
    on_non_finite: str
    on_save_failure: str
    faults: tuple[Fault, ...] = field(default=())

    @property
    def poison(self) -> Fault | None:
        """The NaN of the run, if it gets one."""
        return next((fault for fault in self.faults if fault.kind == "nan"), None)


def make_plan(seed: int, faults: int, per_run: int, kinds: tuple[str, ...]) -> list[RunPlan]:
    """Runs of `per_run` faults each; every kind comes up equally often, give or take one.

    A run has at most one NaN, since its twin must have the same.
    """
    random = Random(seed)
    plans: list[RunPlan] = []
    policies = ["skip", "rewind"] * faults
    for chosen in _deal(random, faults, per_run, kinds):
        first = sum(len(plan.faults) for plan in plans) + 1
        injected = tuple(
            _make_fault(random, first + place, kind, place) for place, kind in enumerate(chosen)
        )
        plans.append(
            RunPlan(
                number=len(plans) + 1,
                layout=LAYOUTS[len(plans) % len(LAYOUTS)],
                train_iters=FIRST_STEP + SPACING * len(chosen) + SAVE_INTERVAL,
                options=_options(random),
                on_non_finite=policies.pop(0) if "nan" in chosen else "skip",
                on_save_failure=random.choice(("stop", "continue")),
                faults=injected,
            )
        )
    return plans


def _deal(random: Random, faults: int, per_run: int, kinds: tuple[str, ...]) -> list[list[str]]:
    pool = random.sample(kinds, len(kinds)) * (faults // len(kinds) + 1)
    pool = pool[:faults]
    while True:
        random.shuffle(pool)
        runs = [pool[first : first + per_run] for first in range(0, faults, per_run)]
        if all(run.count("nan") <= 1 for run in runs):
            return runs


def _make_fault(random: Random, number: int, kind: str, place: int) -> Fault:
    step = FIRST_STEP + SPACING * place + random.randrange(SPREAD)
    rank, draw = random.randrange(RANKS), random.random()
    moments = {"kill": ("step", "save"), "flip": ("down", "running"), "disk_full": ("save",)}
    moments |= {"delete": moments["flip"], "node": moments["kill"]}
    return Fault(number, kind, step, rank, random.choice(moments.get(kind, ("step",))), draw)


def _options(random: Random) -> tuple[str, ...]:
    fast = random.choice((0, SAVE_INTERVAL // 2))
    return (
        f"checkpoint.async_save={random.choice(('true', 'false'))}",
        f"checkpoint.fast_save_interval={fast}",
    )
