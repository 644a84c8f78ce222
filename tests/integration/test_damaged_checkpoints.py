"""A damaged checkpoint is named and refused, the one before it is used, and it is saved again."""

import pickle
import shutil

import pytest

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.report import inspect_checkpoint
from tests.distributed import WorkerError
from tests.integration.recipe import log_of, pretrain_here, trained, write_inputs

STEPS = [2, 4, 6, 8]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    options = ["training.train_iters=8", "checkpoint.save_interval=2", "checkpoint.keep_last=0"]
    return write_inputs(tmp_path_factory.mktemp("inputs")) + options


@pytest.fixture(scope="module")
def finished(world, inputs, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("finished")
    world.run(2, pretrain_here, [*inputs, f"run_dir={run_dir}"], joined=False)
    return run_dir


@pytest.fixture
def run_dir(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("logs"))
    return copy


def flip_a_byte(path, place=1 / 3):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 4
    path.write_bytes(content)


def forge(folder):
    """Malice, not damage: code in `.metadata`, and digests and a marker that vouch for it."""
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    metadata.planner_data = Touch(folder.parent.parent / "ran")
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    (folder / verify.DIGESTS).unlink()
    (folder / verify.MARKER).unlink()
    unfinished = folder.rename(folder.with_suffix(verify.PARTIAL))
    names = verify.files_to_digest(unfinished)
    verify.commit(unfinished, folder, verify.digest_files(unfinished, names))


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w')",)


def empty(folder):
    for path in folder.iterdir():
        if path.is_file() and path.name not in (verify.MARKER, verify.DIGESTS):
            path.unlink()


DAMAGE = {
    "a byte of tensors": (lambda f: flip_a_byte(f / "__1_0.distcp"), "__1_0.distcp was changed"),
    "a byte of an archive": (
        lambda f: flip_a_byte(f / "__0_0.distcp", 0),
        "__0_0.distcp was changed",
    ),
    "a byte of the index": (lambda f: flip_a_byte(f / ".metadata"), ".metadata was changed"),
    "a byte of common values": (lambda f: flip_a_byte(f / "common.pt"), "common.pt was changed"),
    "a byte of config": (lambda f: flip_a_byte(f / "config.yaml"), "config.yaml was changed"),
    "a byte of digests": (lambda f: flip_a_byte(f / "digests.json"), "does not match COMMITTED"),
    "a file missing": (lambda f: (f / "__1_0.distcp").unlink(), "__1_0.distcp is missing"),
    "no marker": (lambda f: (f / "COMMITTED").unlink(), "was never committed"),
    "cut short": (empty, ".metadata is missing"),
    "malicious": (forge, "names builtins.exec"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_last_good_one_is_used_and_the_bad_one_saved_again(world, inputs, run_dir, kind):
    damage, words = DAMAGE[kind]
    bad = verify.step_folder(run_dir / "checkpoints", 8)
    expected = trained(run_dir)
    if "common" in kind and not (bad / "common.pt").is_file():
        pytest.skip("this megatron-core keeps the common values among the tensors")
    damage(bad)
    assert any(words in problem for problem in inspect_checkpoint(bad).problems)
    world.run(2, pretrain_here, [*inputs, f"run_dir={run_dir}"], joined=False)
    log = log_of(run_dir)
    assert f"refused: {bad}" in log and words in log
    assert "starting after step 6 " in log
    assert trained(run_dir) == expected
    verify.verify_checkpoint(bad)
    assert verify.committed_steps(run_dir / "checkpoints") == STEPS
    assert not (run_dir / "ran").exists()


@pytest.mark.parametrize("optimizer", ["true", "false"])
def test_a_run_does_not_start_from_a_damaged_one(world, inputs, run_dir, tmp_path, optimizer):
    bad = verify.step_folder(run_dir / "checkpoints", 8)
    flip_a_byte(bad / "__1_0.distcp")
    options = [f"checkpoint.load={bad}", f"checkpoint.load_optimizer={optimizer}"]
    options += [f"run_dir={tmp_path / 'new'}", "optimizer.lr_warmup_iters=0"]
    with pytest.raises(WorkerError, match=r"__1_0\.distcp was changed .* use an older checkpoint"):
        world.run(2, pretrain_here, [*inputs, *options], joined=False)
    assert not (tmp_path / "new/metrics.jsonl").exists()


def test_a_refused_checkpoint_does_not_push_a_good_one_out(world, inputs, run_dir):
    checkpoints = run_dir / "checkpoints"
    flip_a_byte(checkpoints / "step_00000008" / "__0_0.distcp")
    options = ["training.train_iters=7", "checkpoint.keep_last=1", f"run_dir={run_dir}"]
    world.run(2, pretrain_here, inputs + options, joined=False)
    verify.verify_checkpoint(checkpoints / "step_00000007")
    assert verify.committed_steps(checkpoints) == [7, 8]


def test_a_run_without_any_good_checkpoint_does_not_begin_anew(world, inputs, run_dir):
    rows = (run_dir / "metrics.jsonl").read_bytes()
    for step in STEPS:
        flip_a_byte(verify.step_folder(run_dir / "checkpoints", step) / "config.yaml")
    with pytest.raises(
        WorkerError, match=r"none of the 4 checkpoints in .* can be used, the newest"
    ):
        world.run(2, pretrain_here, [*inputs, f"run_dir={run_dir}"], joined=False)
    assert (run_dir / "metrics.jsonl").read_bytes() == rows
