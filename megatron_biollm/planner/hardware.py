"""GPUs and what connects them: a table that users extend with their own YAML."""

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Optional

import yaml

from megatron_biollm.config import UserError

TABLE = Path(__file__).parent / "gpus.yaml"
# Of the peak, where nobody has published a measured rate: what the H100 reaches.
SUSTAINED_SHARE = {"bf16": 0.803, "fp8": 0.709}
# Of the memory on the data sheet, what the driver leaves: 79.1 of 80 GiB on an H100, 139.8 of 141
# on an H200, 39.4 of 40 on an A100.
USABLE_MEMORY = 0.988
_TEXT_FIELDS = ("name", "source")


@dataclass(frozen=True)
class Gpu:
    """One GPU and its share of the node and of the network.

    Attributes:
        name: in the table.
        memory_gb: as on the data sheet, in units of 2^30 bytes.
        bf16_tflops: peak of dense BF16 matrix products, TFLOP/s.
        memory_bandwidth: GB/s.
        nvlink_bandwidth: GB/s per direction, all links together.
        gpus_per_node: GPUs that NVLink connects.
        network_bandwidth: Gbit/s per GPU to other nodes.
        power_watts: of the board at its limit.
        fp8_tflops: as bf16_tflops; None where the GPU has no FP8.
        bf16_sustained_tflops: best measured rate of a large product, None where unknown.
        fp8_sustained_tflops: likewise.
        sustained_at_watts: power limit of the part on which they were measured, if another.
        source: where the figures are from.
    """

    name: str
    memory_gb: float
    bf16_tflops: float
    memory_bandwidth: float
    nvlink_bandwidth: float
    gpus_per_node: int
    network_bandwidth: float
    power_watts: float
    fp8_tflops: Optional[float] = None
    bf16_sustained_tflops: Optional[float] = None
    fp8_sustained_tflops: Optional[float] = None
    sustained_at_watts: Optional[float] = None
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name not in _TEXT_FIELDS and value is not None:
                _check_number(self.name, one.name, value)

    @property
    def memory_bytes(self) -> int:
        """What programs can use of the memory."""
        return int(self.memory_gb * 2**30 * USABLE_MEMORY)

    def peak_flops(self, precision: str = "bf16") -> float:
        """Peak FLOP/s of dense matrix products in "bf16" or "fp8".

        Raises:
            UserError: FP8 on a GPU that has none.
        """
        if precision == "bf16":
            return self.bf16_tflops * 1e12
        if self.fp8_tflops is None:
            raise UserError(
                f"precision=fp8, but {self.name} has no FP8 tensor cores (no fp8_tflops in the "
                f"GPU table); choose bf16 or another GPU"
            )
        return self.fp8_tflops * 1e12

    def sustained_flops(self, precision: str = "bf16") -> float:
        """FLOP/s that the best large matrix product reaches, before any power limit of its own."""
        measured = getattr(self, f"{precision}_sustained_tflops")
        peak = self.peak_flops(precision)
        return measured * 1e12 if measured else peak * SUSTAINED_SHARE[precision]


def load_gpu(name: str, table: str | Path | None = None) -> Gpu:
    """A GPU by its name or an alias, whatever the case.

    table: YAML of the user's own, in the form of planner/gpus.yaml; it adds names and replaces
        known ones, and `like: h100-80gb` takes over what an entry leaves out.

    Raises:
        UserError: unknown name; a table that cannot be read, or has unknown or missing fields.
    """
    entries = gpu_table(table)
    wanted = _plain(name)
    for known, entry in entries.items():
        if wanted in (known, *map(_plain, entry.get("aliases", ()))):
            return _gpu(known, entries)
    raise UserError(
        f"gpu={name} is not in the GPU table; choose one of {', '.join(sorted(entries))}, or "
        f"describe it in a table of your own (--gpu-table my.yaml, with `like: h100-80gb`)"
    )


def gpu_table(table: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """Entries by name, the user's own first and in place of those shipped under the same name."""
    shipped = _read(TABLE)
    own = _read(Path(table)) if table is not None else {}
    return own | {name: entry for name, entry in shipped.items() if name not in own}


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"GPU table {path} cannot be read: {error}; give a YAML file") from error
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise UserError(
            f"GPU table {path} is no mapping from names to fields; planner/gpus.yaml shows the form"
        )
    return {_plain(str(name)): entry for name, entry in entries.items()}


def _gpu(name: str, entries: dict[str, dict[str, Any]]) -> Gpu:
    values = _resolved(name, entries, ())
    values.pop("aliases", None)
    known = {one.name for one in fields(Gpu)} - {"name"}
    required = [one.name for one in fields(Gpu) if one.default is MISSING and one.name != "name"]
    if unknown := sorted(set(values) - known):
        raise UserError(
            f"GPU {name} has unknown fields {', '.join(unknown)}; choose from "
            f"{', '.join(sorted(known))}, aliases, like"
        )
    if missing := [one for one in required if values.get(one) is None]:
        raise UserError(
            f"GPU {name} lacks {', '.join(missing)}; add them, or `like:` with the name of another"
        )
    return Gpu(name=name, **values)


def _resolved(name: str, entries: dict[str, dict[str, Any]], seen: tuple) -> dict[str, Any]:
    """The entry with everything that it takes over; the other's aliases and source stay there."""
    own = dict(entries[name])
    like = own.pop("like", None)
    if like is None:
        return own
    base = _plain(str(like))
    if base not in entries or base in (*seen, name):
        raise UserError(
            f"GPU {name} is like {like}, which is {'itself' if base in entries else 'unknown'}; "
            f"choose one of {', '.join(sorted(set(entries) - {name}))}"
        )
    inherited = _resolved(base, entries, (*seen, name))
    if not any("sustained" in name for name in own) and "power_watts" in inherited:
        inherited.setdefault("sustained_at_watts", inherited["power_watts"])
    return {k: v for k, v in inherited.items() if k not in ("aliases", "source")} | own


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")


def _check_number(gpu: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise UserError(f"GPU {gpu}: {name}={value} must be a number above 0")
