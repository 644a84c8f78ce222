"""Proof from a run's folder that no sample was lost or trained on twice.

`metrics.jsonl` says how many samples were consumed after each step and hashes each logged batch;
`incidents.jsonl` says which positions of the stream were skipped or jumped over. Together they must
cover the stream from its start without a gap or an overlap, and batches that are read from the
corpora again must have the hashes that training saw.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.store import read_state
from megatron_biollm.config import UserError
from megatron_biollm.data.jumps import JumpingStream, Ranges, merge_ranges, positions_of
from megatron_biollm.data.stream import SampleStream, build_datasets
from megatron_biollm.log import Progress
from megatron_biollm.recipes.incidents import jumped_samples, read_incidents, rewinds
from megatron_biollm.recipes.run_config import RunConfig, load_run_config
from megatron_biollm.rows import read_rows
from megatron_biollm.training.rows import batch_hash

Row = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """Steps from one logged row to the next.

    Attributes:
        row: of the last of them.
        before: samples consumed before the first of them.
        batch: samples of the last of them.
    """

    row: Row
    before: int
    batch: int

    @property
    def samples(self) -> int:
        return self.row["consumed_samples"] - self.before


@dataclass
class Ledger:
    """What became of the stream; ranges are half-open.

    Attributes:
        run_dir: of the run.
        steps: first and last logged step.
        trained, skipped, jumped: positions in the stream.
        rewinds: how often the run went back.
        rehashed: steps whose batches were read again.
        problems: what does not fit together; none in a sound run.
        notes: what could not be checked.
    """

    run_dir: str
    steps: list[int]
    trained: Ranges = field(default_factory=list)
    skipped: Ranges = field(default_factory=list)
    jumped: Ranges = field(default_factory=list)
    rewinds: int = 0
    rehashed: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_ledger(run_dir: Path | str, rehash: Optional[int] = 20, seed: int = 0) -> Ledger:
    """Balances the books of a run.

    Args:
        run_dir: of a run that has logged a step.
        rehash: batches to read again, drawn by `seed` besides those around jumps and skips; None
            reads all, 0 none.

    Raises:
        UserError: the folder holds no run, or its corpora are gone.
    """
    run_dir = Path(run_dir)
    for name in ("metrics.jsonl", "config.yaml"):
        if not (run_dir / name).is_file():
            raise UserError(f"{run_dir / name} does not exist; give the run_dir of a run")
    rows, incidents = read_rows(run_dir / "metrics.jsonl"), read_incidents(run_dir)
    if not rows:
        raise UserError(f"{run_dir / 'metrics.jsonl'} has no row; let the run finish a step first")
    config = load_run_config(run_dir / "config.yaml")
    ledger = Ledger(str(run_dir), [rows[0]["step"], rows[-1]["step"]])
    ledger.rewinds = len(rewinds(incidents))
    jumps = _all_jumps(ledger, run_dir, rows, incidents)
    entries = _entries(ledger, rows, config)
    _cover(ledger, entries, jumps)
    _compare_skips(ledger, entries, incidents, jumps)
    chosen = _to_rehash(entries, incidents, rehash, seed)
    if chosen:
        data, seed_of_run = config.data, config.training.seed
        stream = build_datasets(data, config.model.seq_length, seed_of_run, eod=-1).train
        _rehash(ledger, chosen, stream, jumps)
    return ledger


def _all_jumps(ledger: Ledger, run_dir: Path, rows: list[Row], incidents: list[Row]) -> Ranges:
    """Jumps of this run and of the one it started from; checkpoints must agree with the rows."""
    consumed = {row["step"]: row["consumed_samples"] for row in rows}
    own = jumped_samples(incidents)
    folders = verify.step_folders(run_dir / "checkpoints")
    states = [read_state(folder) for folder in folders if (folder / verify.MARKER).is_file()]
    jumps = merge_ranges([*own, *(states[0].jumped_samples if states else [])])
    for state in states:
        if consumed.get(state.step, state.consumed_samples) != state.consumed_samples:
            ledger.problems.append(
                f"the checkpoint of step {state.step} has consumed {state.consumed_samples} "
                f"samples, its row {consumed[state.step]}"
            )
    for row in rewinds(incidents):
        done = consumed.get(row["rewind_to"])
        if done and positions_of(done - 1, 1, jumps)[0][0] >= row["jumped"][0]:
            ledger.problems.append(
                f"the rewind of step {row['step']} jumps {row['jumped']}, which its checkpoint of "
                f"step {row['rewind_to']} had trained on"
            )
    return jumps


def _entries(ledger: Ledger, rows: list[Row], config: RunConfig) -> list[Entry]:
    """The rows with the samples between them; those between two rows follow from the batch size."""
    size_at, entries = config.training.global_batch_size_at, []
    step = consumed = 0
    if rows[0]["step"] > config.logging.log_interval:
        step, consumed = rows[0]["step"] - 1, rows[0]["consumed_samples"]
        consumed -= size_at(consumed - 1)
        if config.checkpoint.load is None:
            ledger.problems.append(f"the rows of steps 1 to {step} are missing")
        else:
            ledger.notes.append(f"steps 1 to {step} are those of {config.checkpoint.load}")
    for row in rows:
        before, batch = consumed, 0
        if row["step"] <= step or row["consumed_samples"] <= before:
            ledger.problems.append(f"step {row['step']} does not follow step {step}")
            continue
        if row["step"] == step + 1:
            batch = row["consumed_samples"] - before
        else:
            for _ in range(row["step"] - step):
                batch = size_at(consumed)
                consumed += batch
            if consumed != row["consumed_samples"]:
                ledger.problems.append(
                    f"steps {step + 1} to {row['step']} should end at {consumed} consumed samples, "
                    f"not {row['consumed_samples']}"
                )
        step, consumed = row["step"], row["consumed_samples"]
        entries.append(Entry(row, before, batch))
    return entries


def _cover(ledger: Ledger, entries: list[Entry], jumps: Ranges) -> None:
    """Every position up to the last is consumed once or jumped, and never both."""
    consumed = [
        piece for entry in entries for piece in positions_of(entry.before, entry.samples, jumps)
    ]
    whole = merge_ranges(consumed)
    if count(consumed) != count(whole):
        ledger.problems.append(f"{count(consumed) - count(whole)} samples were trained on twice")
    first, end = whole[0][0], whole[-1][1]
    ledger.jumped = [[max(a, first), min(b, end)] for a, b in jumps if a < end and b > first]
    covered = merge_ranges([*whole, *ledger.jumped])
    if covered != [[first, end]]:
        ledger.problems.append(f"samples are missing between {covered}")
    skipped = [entry for entry in entries if entry.row.get("skipped")]
    ledger.skipped = merge_ranges(
        piece
        for entry in skipped
        for piece in positions_of(entry.row["consumed_samples"] - entry.batch, entry.batch, jumps)
    )
    ledger.trained = subtract(whole, ledger.skipped)


def _compare_skips(
    ledger: Ledger, entries: list[Entry], incidents: list[Row], jumps: Ranges
) -> None:
    """The skipped steps are those that the incidents list, with the same samples and batches."""
    listed = {
        row["step"]: row
        for row in incidents
        if row["action"] == "skip" and not row.get("superseded")
    }
    found = {entry.row["step"]: entry for entry in entries if entry.row.get("skipped")}
    last = ledger.steps[1]
    for step in sorted(set(found) ^ {step for step in listed if step <= last}):
        where = "metrics.jsonl" if step in found else "incidents.jsonl"
        ledger.problems.append(f"step {step} was skipped according to {where} alone")
    for step in set(found) & set(listed):
        row, entry = listed[step], found[step]
        first = entry.row["consumed_samples"] - entry.batch
        samples = positions_of(first, entry.batch, jumps)
        if (samples, entry.row["batch_hash"]) != (row["samples"], row["batch_hash"]):
            ledger.problems.append(f"the incident of step {step} lists other samples than its row")


def _to_rehash(
    entries: list[Entry], incidents: list[Row], rehash: Optional[int], seed: int
) -> list[Entry]:
    if rehash is None or rehash >= len(entries):
        return entries
    if rehash == 0:
        return []
    marked = {row["step"] + off for row in incidents for off in (-1, 0, 1)}
    marked |= {row["rewind_to"] + off for row in rewinds(incidents) for off in (0, 1)}
    sure = [number for number, entry in enumerate(entries) if entry.row["step"] in marked]
    drawn = random.Random(seed).sample(range(len(entries)), rehash)
    return [entries[number] for number in sorted({*sure, *drawn})]


def _rehash(ledger: Ledger, chosen: list[Entry], stream: SampleStream, jumps: Ranges) -> None:
    jumping = JumpingStream(stream, jumps)
    for entry in Progress(len(chosen), "reading batches again", "batch").track(chosen):
        end = entry.row["consumed_samples"]
        samples = (jumping[index]["tokens"][None] for index in range(end - entry.batch, end))
        found = f"{batch_hash({'tokens': tokens} for tokens in samples):016x}"
        ledger.rehashed.append(entry.row["step"])
        if found != entry.row["batch_hash"]:
            ledger.problems.append(
                f"step {entry.row['step']} trained on a batch of hash {entry.row['batch_hash']}; "
                f"the corpora give {found} at its place"
            )


def count(ranges: Ranges) -> int:
    """Positions in ranges."""
    return sum(end - first for first, end in ranges)


def subtract(ranges: Ranges, others: Ranges) -> Ranges:
    """Positions of `ranges` that are in none of `others`; both as `merge_ranges` gives them."""
    left = [list(piece) for piece in ranges]
    for first, end in others:
        left = [
            piece
            for a, b in left
            for piece in ([a, min(b, first)], [max(a, end), b])
            if piece[0] < piece[1]
        ]
    return left
