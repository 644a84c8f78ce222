"""What would go wrong with a run, looked for on its own machines before the run."""

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch.distributed as dist

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.retention import forecast, gigabytes, most_at_once
from megatron_biollm.config import UserError, dump_config
from megatron_biollm.data.layout import fingerprint, read_layout
from megatron_biollm.data.planned import missing_index
from megatron_biollm.device.health import gpu_health
from megatron_biollm.device.runtime import Device, select_device
from megatron_biollm.launch.findings import FAIL, PASS, SKIP, WARN, Finding, report
from megatron_biollm.launch.host import HostFacts, compare_hosts, look, write_speed
from megatron_biollm.launch.network import clock_offset, judge, measure
from megatron_biollm.model.flops import num_parameters
from megatron_biollm.model.spec import choose_transformer_impl
from megatron_biollm.parallel.process_groups import (
    control_group,
    create_process_groups,
    destroy_process_groups,
)
from megatron_biollm.recipes.pretrain import check_inputs, load_run_tokenizer
from megatron_biollm.recipes.run_config import RunConfig
from megatron_biollm.recipes.sidecars import check_same_model, versions

# A pass over the same text more often than this teaches little (Muennighoff et al. 2023,
# https://arxiv.org/abs/2305.16264).
MANY_EPOCHS = 4
VISIBLE_WITHIN_S = 30.0


@dataclass(frozen=True)
class PreflightOptions:
    """Attributes:
    world_size: processes of the run, where these are not they (a look from the login node).
    message_mb: of each message of the bandwidth checks.
    write_mb: written and synced to time the run's disk.
    """

    world_size: Optional[int] = None
    message_mb: float = 64.0
    write_mb: int = 64


def preflight(config: RunConfig, options: PreflightOptions) -> dict[str, Any]:
    """Looks at everything that a run of `config` will need; every rank takes part.

    Returns:
        The same on every rank: `launch.findings.report`.
    """
    device = select_device(config.training.device)
    run_dir = config.run_path
    with device.core_context(), _world(config, device) as control:
        world = options.world_size or control.size()
        findings = [_everywhere("layout", control, lambda: _layout(config, world))]
        findings.append(_everywhere("inputs", control, lambda: _inputs(config)))
        findings.append(_everywhere("index", control, lambda: _index(config)))
        findings.append(_everywhere("passes", control, lambda: _passes(config)))
        facts = _facts(config, device, control)
        findings += compare_hosts(facts)
        findings.append(_shared(run_dir, facts, control))
        findings += _from_first("disk", control, lambda: _disk(config, options))
        findings += _from_first("start", control, lambda: [_resume(config)])
        fits = findings[0].status == PASS and world == control.size()
        findings += _bandwidths(config, device, facts, control, options, fits)
        hosts = sorted({f.host for f in facts})
        return report(findings, run_dir=str(run_dir), world_size=world, hosts=hosts)


def _layout(config: RunConfig, world_size: int) -> str:
    config.check_world(world_size)
    data_parallel = config.parallel.data_parallel_size(world_size)
    batch = config.training
    passes = batch.global_batch_size // (batch.micro_batch_size * data_parallel)
    return (
        f"{config.parallel.describe(data_parallel)} on {world_size} ranks, {passes} micro-batches "
        f"of {batch.micro_batch_size}"
    )


def _inputs(config: RunConfig) -> str:
    """Tokenizer, corpora and model agree; the padded vocabulary is known afterwards."""
    check_inputs(config)
    tokenizer, manifest = load_run_tokenizer(config)
    layouts = [read_layout(prefix) for prefix in config.data.prefixes()]
    contents = hashlib.sha256("".join(fingerprint(layout) for layout in layouts).encode())
    return (
        f"tokenizer {tokenizer.name} ({manifest.vocab_size} entries, padded "
        f"{config.model.padded_vocab_size}), {len(layouts)} corpora of "
        f"{sum(layout.tokens for layout in layouts):,} tokens (digest {contents.hexdigest()[:8]})"
    )


def _index(config: RunConfig) -> str:
    """Whether the order of the samples is computed already, which costs minutes on booked GPUs."""
    training = config.training
    samples = training.train_iters * training.global_batch_size
    missing = missing_index(config.data, config.model.seq_length, training.seed, samples)
    if missing:
        prefix, epochs = next(iter(missing.items()))
        text = f"of {len(missing)} corpora not built, for example epoch {epochs[0]} of {prefix}"
        raise _Warning(text, "run tools/build_index.py with the same configuration before the run")
    return "the sample index of the whole run is built"


def _passes(config: RunConfig) -> str:
    """How often the run goes through its data."""
    training = config.training
    wanted = training.train_iters * training.global_batch_size * config.model.seq_length
    tokens = sum(read_layout(prefix).tokens for prefix in config.data.prefixes())
    epochs = wanted / max(tokens, 1)
    text = f"{wanted:.3g} tokens to train are {epochs:.3g} passes over the corpora"
    if epochs > MANY_EPOCHS:
        raise _Warning(text, f"beyond {MANY_EPOCHS} passes a repeated token teaches little")
    return text


class _Warning(Exception):
    """What a check would let pass; with a remedy."""


def _facts(config: RunConfig, device: Device, control: dist.ProcessGroup) -> list[HostFacts]:
    impl = choose_transformer_impl("auto", device.kind)[0]
    found = versions()
    kernels = {"layers": impl, "communication": device.communication()}
    kernels |= {name: found.get(name) for name in ("transformer-engine", "flash-attn", "apex")}
    digest = hashlib.sha256(dump_config(config).encode()).hexdigest()[:12]
    index = device.torch_device.index or 0
    gpu = gpu_health(index) if device.kind == "cuda" else {}
    packages = {k: v for k, v in found.items() if k not in kernels}
    offset = clock_offset(control)
    return _gather(look(control.rank(), packages, kernels, digest, gpu, offset), control)


def _shared(run_dir: Path, facts: list[HostFacts], control: dist.ProcessGroup) -> Finding:
    """Every rank leaves a file in run_dir, and must see everybody's."""
    token = [f"{os.getpid()}-{time.time_ns()}"]
    dist.broadcast_object_list(token, src=0, group=control)
    mine = run_dir / f".preflight-{token[0]}-{control.rank()}"
    names = {f".preflight-{token[0]}-{rank}" for rank in range(control.size())}
    problem = None
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        mine.touch()
    except OSError as error:
        problem = f"{run_dir} cannot be written: {error.strerror}"
    dist.barrier(group=control)
    missing = set() if problem else _wait_for(run_dir, names)
    seen = _gather((problem, sorted(missing)), control)
    if problem is None:
        mine.unlink()
    return _judge_shared(run_dir, seen, facts)


def _wait_for(folder: Path, names: set[str]) -> set[str]:
    """What does not appear in time; network file systems show new files after a while."""
    until = time.monotonic() + VISIBLE_WITHIN_S
    while missing := names - {path.name for path in folder.iterdir()}:
        if time.monotonic() > until:
            break
        time.sleep(0.2)
    return missing


def _judge_shared(run_dir: Path, seen: list[Any], facts: list[HostFacts]) -> Finding:
    remedy = "run_dir must lie on a file system that all machines share and may write to"
    closed = [facts[rank].host for rank, (problem, _) in enumerate(seen) if problem]
    if closed:
        text = next(problem for problem, _ in seen if problem)
        return Finding("shared folder", FAIL, text, remedy, tuple(sorted(set(closed))))
    blind = {facts[rank].host for rank, (_, missing) in enumerate(seen) if missing}
    if blind:
        text = f"{len(blind)} machines do not see the files of others in {run_dir}"
        return Finding("shared folder", FAIL, text, remedy, tuple(sorted(blind)))
    return Finding("shared folder", PASS, f"{run_dir} is the same on {len(seen)} ranks")


def checkpoint_bytes(config: RunConfig) -> int:
    """What one checkpoint will take: weights, master weights and two moments."""
    per_parameter = 2 + 4 + 8 if config.training.bf16 else 4 + 4 + 8
    return num_parameters(config.model) * per_parameter


def _disk(config: RunConfig, options: PreflightOptions) -> list[Finding]:
    folder = config.run_path
    if config.model.vocab_size is None:
        return [Finding("disk", SKIP, "the vocabulary is unknown, see inputs")]
    size, training = checkpoint_bytes(config), config.training
    interval = config.checkpoint.save_interval or training.train_iters
    count = most_at_once(config.checkpoint, interval, training.train_iters)
    stat = os.statvfs(folder)
    text, fits = forecast(size, count, stat.f_bavail * stat.f_frsize)
    remedy = "lower checkpoint.keep_last, raise keep_every, or move run_dir"
    findings = [Finding("disk", PASS if fits else FAIL, text, remedy)]
    speed = write_speed(folder, options.write_mb)
    text = (
        f"one process writes {speed:.0f} MB/s to {folder}; alone it would take "
        f"{size / speed / 1e6:.0f} s for a checkpoint of {gigabytes(size)}"
    )
    return [*findings, Finding("disk speed", PASS, text)]


def _resume(config: RunConfig) -> Finding:
    steps = verify.committed_steps(config.checkpoints)
    if not steps and config.checkpoint.load is None:
        return Finding("start", PASS, f"from step 0: {config.checkpoints} holds no checkpoint")
    if not steps:
        return Finding("start", PASS, f"from checkpoint.load={config.checkpoint.load}")
    folder = verify.step_folder(config.checkpoints, steps[-1])
    try:
        verify.read_digests(folder)
        check_same_model(config.model, folder)
    except UserError as error:
        return Finding("start", FAIL, str(error))
    return Finding("start", PASS, f"resumes after step {steps[-1]} from {folder}")


def _bandwidths(
    config: RunConfig,
    device: Device,
    facts: list[HostFacts],
    control: dist.ProcessGroup,
    options: PreflightOptions,
    fits: bool,
) -> list[Finding]:
    if control.size() == 1 or not fits:
        text = f"{control.size()} processes here; start it with torchrun where the run will be"
        return [Finding("bandwidth", SKIP, text)]
    groups = create_process_groups(config.parallel)
    hosts = [f.host for f in facts]
    size = int(options.message_mb * 1e6)
    kinds = {"tp": groups.tp, "cp": groups.cp, "pp": groups.pp, "dp": groups.dp_cp}
    return [
        judge(measure(kind, group, hosts, device, control, size), kind)
        for kind, group in kinds.items()
    ]


@contextlib.contextmanager
def _world(config: RunConfig, device: Device) -> Iterator[dist.ProcessGroup]:
    timeout = config.parallel.distributed_timeout_minutes
    device.init_distributed(timeout)
    try:
        yield control_group(timeout)
    finally:
        destroy_process_groups()


def _everywhere(check: str, control: dist.ProcessGroup, act: Callable[[], str]) -> Finding:
    """Runs `act` on every rank; a UserError on any of them is the finding."""
    status, text, remedy = PASS, "", ""
    try:
        text = act()
    except _Warning as warning:
        status, (text, remedy) = WARN, warning.args
    except (UserError, OSError) as error:
        status, text = FAIL, str(error)
    answers = _gather((status, text, remedy, socket.gethostname()), control)
    failed = [answer for answer in answers if answer[0] == FAIL]
    if failed:
        # What fails everywhere is the configuration's fault and no machine's.
        hosts = {host for *_, host in failed} if len(failed) < len(answers) else set()
        return Finding(check, FAIL, failed[0][1], "", tuple(sorted(hosts)))
    status, text, remedy, _ = answers[0]
    odd = {host: other for _, other, _, host in answers if other != text}
    if odd:
        text = f"machines see different files: {text}; but {next(iter(odd.values()))}"
        return Finding(check, FAIL, text, "give all of them the same files", tuple(sorted(odd)))
    return Finding(check, status, text, remedy)


def _from_first(
    check: str, control: dist.ProcessGroup, act: Callable[[], list[Finding]]
) -> list[Finding]:
    """Runs `act` on rank 0 alone; an error of it is the finding of `check`."""
    findings: list[Any] = [None]
    if control.rank() == 0:
        try:
            findings = [act()]
        except (UserError, OSError) as error:
            findings = [[Finding(check, FAIL, str(error))]]
    dist.broadcast_object_list(findings, src=0, group=control)
    return findings[0]


def _gather(value: Any, group: dist.ProcessGroup) -> list[Any]:
    values = [None] * group.size()
    dist.all_gather_object(values, value, group=group)
    return values
