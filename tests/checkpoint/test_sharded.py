"""Saving and loading training state: in the background, into full disks, from other models."""

import contextlib
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.report import inspect_checkpoint
from megatron_biollm.config import UserError
from tests.integration.recipe import layout, log_of, pretrain_here, rows, trained, write_inputs

LAST = 6


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    options = [f"training.train_iters={LAST}", "checkpoint.save_interval=2"]
    return write_inputs(tmp_path_factory.mktemp("inputs")) + options


@pytest.fixture(scope="module")
def finished(world, inputs, tmp_path_factory):
    """Two data-parallel ranks, checkpoints at 2, 4 and 6."""
    run_dir = tmp_path_factory.mktemp("finished")
    world.run(2, pretrain_here, [*inputs, f"run_dir={run_dir}"], joined=False)
    return run_dir


def checkpoint(run_dir: Path, step: int) -> Path:
    return verify.step_folder(run_dir / "checkpoints", step)


def as_of_step(finished: Path, step: int, run_dir: Path) -> Path:
    """The run as it was when it had saved `step`."""
    shutil.copytree(finished, run_dir, ignore=shutil.ignore_patterns("logs"))
    for folder in verify.step_folders(run_dir / "checkpoints"):
        if verify.step_of(folder) > step:
            shutil.rmtree(folder)
    return run_dir


def tensors(folder: Path) -> dict:
    digests = verify.read_digests(folder)
    return {name: entry for name, entry in digests.items() if name.endswith(".distcp")}


def error_of(overrides: list[str], largest_file: int | None = None, rank: int = 0) -> str | None:
    """The message that ends the run on this rank, whose files cannot grow beyond a size."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if largest_file is not None and os.environ["RANK"] == str(rank):
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, limits[1]))
    try:
        pretrain_here(overrides)
    except UserError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    return None


@pytest.mark.parametrize("async_save", ["false", "true"])
def test_resume_is_exact_in_the_same_layout(world, inputs, finished, tmp_path, async_save):
    run_dir = as_of_step(finished, 2, tmp_path / "run")
    options = [f"checkpoint.async_save={async_save}", f"run_dir={run_dir}"]
    world.run(2, pretrain_here, inputs + options, joined=False)
    assert "starting after step 2 " in log_of(run_dir)
    assert trained(run_dir) == trained(finished)
    assert tensors(checkpoint(run_dir, LAST)) == tensors(checkpoint(finished, LAST))


def test_resume_is_exact_with_bf16_weights_and_fp32_master_weights(world, inputs, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    bf16 = [*inputs, "training.bf16=true"]
    world.run(2, pretrain_here, [*bf16, f"run_dir={whole}"], joined=False)
    options = [f"checkpoint.load={checkpoint(whole, 2)}", f"run_dir={resumed}"]
    world.run(2, pretrain_here, bf16 + options, joined=False)
    assert trained(resumed) == trained(whole, first=3)
    assert tensors(checkpoint(resumed, LAST)) == tensors(checkpoint(whole, LAST))


def test_a_save_in_the_background_commits_later_what_was_then(world, inputs, finished, tmp_path):
    """Training goes on before the commit, and the files are those of a save that held it up."""
    options = ["checkpoint.async_save=true", "checkpoint.save_interval=3", f"run_dir={tmp_path}"]
    world.run(2, pretrain_here, inputs + options, joined=False)
    lines = log_of(tmp_path).splitlines()
    at = {
        words: next(i for i, line in enumerate(lines) if words in line)
        for words in ("step 3/6", "step 4/6", "step_00000003 (", "step_00000006 (")
    }
    assert at["step 3/6"] < at["step 4/6"] < at["step_00000003 ("] < at["step_00000006 ("]
    assert trained(tmp_path) == trained(finished)
    assert tensors(checkpoint(tmp_path, LAST)) == tensors(checkpoint(finished, LAST))
    verify.verify_checkpoint(checkpoint(tmp_path, 3))


def test_only_the_newest_and_the_milestones_are_kept(world, inputs, tmp_path):
    options = ["checkpoint.keep_last=1", "checkpoint.keep_every=4", f"run_dir={tmp_path}"]
    world.run(2, pretrain_here, inputs + options, joined=False)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "step_00000004",
        "step_00000006",
    ]
    log = log_of(tmp_path)
    assert log.count("at most 3 at once") == 1 and log.count("one checkpoint takes") == 1


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("async_save", ["false", "true"])
def test_a_write_that_fails_ends_every_rank_and_leaves_nothing(
    world, inputs, finished, tmp_path, async_save, rank
):
    run_dir = as_of_step(finished, 2, tmp_path / "run")
    options = [f"checkpoint.async_save={async_save}", f"run_dir={run_dir}"]
    errors = world.run(2, error_of, inputs + options, 100_000, rank, joined=False)
    for error in errors:
        assert f"the checkpoint of step 4 could not be written to {run_dir}" in error
        assert "earlier checkpoints are untouched; free disk space or move run_dir" in error
    assert f"rank {rank}: " in errors[0]
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step_00000002"]
    verify.verify_checkpoint(checkpoint(run_dir, 2))
    world.run(2, pretrain_here, [*inputs, f"run_dir={run_dir}"], joined=False)
    assert trained(run_dir) == trained(finished)


def with_room_from_step(overrides: list[str], step: int) -> str | None:
    """As `error_of` with files of 100 kB on rank 1, until `step` has been trained."""
    from megatron_biollm.recipes import hooks

    log, limits = hooks.LogMetrics.__call__, resource.getrlimit(resource.RLIMIT_FSIZE)

    def lift(self, state, row):
        if state.step == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        log(self, state, row)

    hooks.LogMetrics.__call__ = lift
    try:
        return error_of(overrides, 100_000, 1)
    finally:
        hooks.LogMetrics.__call__ = log


@pytest.mark.parametrize(
    "options", [["async_save=true"], ["save_interval=4", "fast_save_interval=2"]]
)
def test_a_run_that_may_go_on_trains_without_the_checkpoints_that_fail(
    world, inputs, finished, tmp_path, options
):
    options = [f"checkpoint.{option}" for option in [*options, "on_save_failure=continue"]]
    options = [*inputs, *options, f"run_dir={tmp_path}"]
    assert world.run(2, with_room_from_step, options, 5, joined=False) == [None, None]
    log = log_of(tmp_path)
    for step in (2, 4):
        assert f"the checkpoint of step {step} could not be written to {tmp_path}" in log
    assert log.count("Going on without it") == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000006"]
    assert trained(tmp_path) == trained(finished)
    verify.verify_checkpoint(checkpoint(tmp_path, LAST))


@pytest.mark.parametrize("async_save", ["false", "true"])
def test_at_the_end_a_checkpoint_that_fails_is_an_error_in_any_case(
    world, inputs, tmp_path, async_save
):
    options = [f"checkpoint.async_save={async_save}", "checkpoint.on_save_failure=continue"]
    options = [*inputs, *options, f"run_dir={tmp_path}"]
    for error in world.run(2, with_room_from_step, options, LAST + 1, joined=False):
        assert f"the checkpoint of step {LAST} could not be written to {tmp_path}" in error
    assert not list((tmp_path / "checkpoints").iterdir())
    assert LAST in rows(tmp_path)


@contextlib.contextmanager
def small_disk(folder: Path):
    """A file system whose number of files can be limited, which needs root."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        yield folder
    finally:
        # Lazily: a writer on its way out may still hold the log open.
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("files", [1, 4, -8, -2])
def test_a_disk_that_fills_up_leaves_the_last_good_one(world, inputs, finished, tmp_path, files):
    """Full after the folder, amid the tensors, amid the sidecars, before the marker."""
    last = checkpoint(finished, LAST)
    spare_files = files if files > 0 else 1 + len(list(last.rglob("*"))) + files
    with small_disk(tmp_path / "disk") as disk:
        run_dir = as_of_step(finished, 2, disk / "run")
        for path in (run_dir / "logs", disk / "index"):
            path.mkdir()
        for name in ("rank_00000.log", "rank_00001.log", "stragglers.jsonl", "startup.json"):
            (run_dir / "logs" / name).touch()
        # The run itself, while it replaces its config, holds one more file for a moment.
        used = os.statvfs(disk)
        limit = used.f_files - used.f_ffree + 1 + spare_files
        remount = ["mount", "-o", f"remount,nr_inodes={limit}", str(disk)]
        subprocess.run(remount, check=True)
        # A heartbeat is a file more for a moment, at any moment.
        quiet = ["watch.heartbeat_seconds=0", "watch.hang_timeout_minutes=0"]
        options = [*inputs, f"run_dir={run_dir}", *quiet]
        errors = world.run(2, error_of, options, joined=False)
        assert all(f"the checkpoint of step 4 could not be written to {disk}" in e for e in errors)
        assert verify.MARKER in errors[0] or files != -2, errors[0]
        assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step_00000002"]
        verify.verify_checkpoint(checkpoint(run_dir, 2))


def test_another_model_is_refused_with_both_sizes(world, inputs, finished, tmp_path):
    source = checkpoint(finished, 4)
    options = [f"checkpoint.load={source}", f"run_dir={tmp_path}"]
    other = ["model.num_layers=2", "model.hidden_size=32"]
    for error in world.run(2, error_of, inputs + options + other, joined=False):
        assert f"model.num_layers is 4 in {source} and 2 in this run" in error
        assert f"model.hidden_size is 64 in {source} and 32 in this run" in error


def test_another_tokenizer_is_refused(world, inputs, finished, tmp_path):
    tokenizer = next(o for o in inputs if o.startswith("tokenizer.tokenizer_model=")).split("=")[1]
    other = Path(shutil.copytree(tokenizer, tmp_path / "other"))
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"w7"', '"seven"'))
    options = [
        f"checkpoint.load={checkpoint(finished, 4)}",
        f"tokenizer.tokenizer_model={other}",
        f"run_dir={tmp_path / 'run'}",
    ]
    for error in world.run(2, error_of, inputs + options, joined=False):
        assert "sha256 is" in error and str(checkpoint(finished, 4)) in error


def test_optimizer_state_of_another_kind_is_refused(world, inputs, finished, tmp_path):
    options = [
        "parallel.use_distributed_optimizer=false",
        f"checkpoint.load={checkpoint(finished, 4)}",
        f"run_dir={tmp_path}",
    ]
    for error in world.run(2, error_of, inputs + options, joined=False):
        assert f"{checkpoint(finished, 4)} does not hold what this run's" in error
        assert "parallel.use_distributed_optimizer" in error and "load_optimizer=false" in error


def test_weights_alone_start_a_new_run_from_a_run_folder(world, inputs, finished, tmp_path):
    """The newest good checkpoint of another run, in another layout, without its progress."""
    options = [
        *layout(pp=2),
        f"checkpoint.load={finished}",
        "checkpoint.load_optimizer=false",
        "training.train_iters=1",
        "optimizer.lr_warmup_iters=0",
        f"run_dir={tmp_path}",
    ]
    world.run(2, pretrain_here, inputs + options, joined=False)
    (row,) = rows(tmp_path).values()
    assert (row["step"], row["consumed_samples"]) == (1, 16)
    assert row["loss"] < 0.99 * rows(finished)[1]["loss"]
    assert f"took the weights alone from {checkpoint(finished, LAST)}" in log_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [("empty", "holds no checkpoint; give a run"), ("step_00000004", "was never committed")],
)
def test_without_a_checkpoint_at_the_given_path_the_run_does_not_start(
    world, inputs, tmp_path, name, words
):
    (tmp_path / name).mkdir()
    options = [f"checkpoint.load={tmp_path / name}", f"run_dir={tmp_path / 'run'}"]
    for error in world.run(2, error_of, inputs + options, joined=False):
        assert f"{tmp_path / name} {words}" in error


def test_the_report_says_what_was_saved(finished):
    report = inspect_checkpoint(checkpoint(finished, 4))
    assert report.good and (report.step, report.weights_only) == (4, False)
    assert report.layout["world_size"] == 2 and report.layout["tensor_model_parallel_size"] == 1
    assert {"torch", "megatron-core", "python"} <= set(report.versions)
