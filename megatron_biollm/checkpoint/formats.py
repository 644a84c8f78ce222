"""The two formats of a checkpoint, and which of them a run can load.

Reshardable checkpoints load into any layout. Fast ones hold the optimizer's buckets as they lie on
the ranks: they load where every parameter lies in the same place of the same bucket, so with the
same TP, PP, VPP, precision and bucket sizes. The number of data-parallel ranks may differ: core
leaves the padding at the end of a bucket, which depends on it, out of the file. With
`parallel.overlap_grad_reduce` core's bucket size grows with more than 40 of these ranks, and then
it may not.

`state.json` says which format a folder has and, of a fast one, a digest of where the parameters
lie.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

# Core's names of them, as values of `distrib_optim_sharding_type`.
RESHARDABLE, FAST = "fully_reshardable", "dp_reshardable"
STATE = "state.json"
DEGREES = {
    "tensor_model_parallel_size": "TP",
    "pipeline_model_parallel_size": "PP",
    "virtual_pipeline_model_parallel_size": "VPP",
    "context_parallel_size": "CP",
}


@dataclass(frozen=True)
class Format:
    """Attributes:
    kind: RESHARDABLE or FAST.
    buckets: digest of where the parameters lie, of a fast one.
    """

    kind: str = RESHARDABLE
    buckets: Optional[str] = None

    @property
    def is_fast(self) -> bool:
        """Bound to the layout that it was saved in."""
        return self.kind == FAST

    @property
    def name(self) -> str:
        """As users read it."""
        return "fast" if self.is_fast else "reshardable"


@dataclass(frozen=True)
class Buckets:
    """Where this run's parameters lie in the optimizer's buckets.

    Attributes:
        digest: of the whole world; None where the optimizer is not distributed.
        complete: every rank owns a part of every bucket, without which core cannot write fast
            checkpoints (models of a few thousand parameters on many ranks).
    """

    digest: Optional[str]
    complete: bool

    def format(self, reshardable: bool) -> Format:
        """What a save of this run is written as."""
        fast = not reshardable and self.complete and self.digest is not None
        return Format(FAST, self.digest) if fast else Format()

    def fit(self, stored: Format) -> bool:
        """Whether this run can load such a checkpoint."""
        return not stored.is_fast or stored.buckets == self.digest


def buckets_of_world(shares: Iterable[tuple[str, str, bool]]) -> Buckets:
    """Puts together what the ranks say: model-parallel group, its digest, and completeness."""
    shares = list(shares)
    lines = sorted({f"{group} {digest}\n" for group, digest, _ in shares if group})
    digest = hashlib.sha256("".join(lines).encode()).hexdigest() if lines else None
    return Buckets(digest, all(complete for *_, complete in shares))


def read_format(folder: Path) -> Format:
    """The format of a checkpoint; those from before there were two are reshardable.

    Raises:
        OSError, ValueError: `state.json` is missing or damaged.
    """
    stored = json.loads((folder / STATE).read_bytes())
    return Format(stored.get("format", RESHARDABLE), stored.get("buckets"))


def describe_layout(layout: dict[str, Any]) -> str:
    """`layout.json` in short: TP2 x PP2 of 8 ranks."""
    degrees = [f"{short}{layout[name]}" for name, short in DEGREES.items() if layout.get(name)]
    return f"{' x '.join(degrees)} of {layout.get('world_size', '?')} ranks"


def why_unfit(folder: Path) -> str:
    """Says of a fast checkpoint what it is bound to, and how its steps can still be used."""
    try:
        layout = describe_layout(json.loads((folder / "layout.json").read_bytes()))
    except (OSError, ValueError):
        layout = "an unknown layout"
    return (
        f"{folder} is a fast checkpoint, saved as {layout}, and loads only where TP, PP, VPP, "
        f"precision and the optimizer's buckets are the same. To use it, start once more as it "
        f"was saved with training.exit_interval=1, which leaves a reshardable one"
    )
