"""A damaged or uncommitted checkpoint is found and named, whatever is wrong with it."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.report import find_checkpoints, inspect_checkpoint
from megatron_biollm.checkpoint.verify import BadCheckpoint, verify_checkpoint
from megatron_biollm.config import UserError

TOOL = Path(__file__).parents[2] / "tools" / "verify_checkpoint.py"
FILES = [".metadata", "__0_0.distcp", "common.pt", "config.yaml", "tokenizer/manifest.json"]


def write(directory: Path, step: int) -> Path:
    """A small committed checkpoint with the files of a real one."""
    partial = directory / f"step_{step:08d}.0{verify.PARTIAL}"
    dcp.save({"w": torch.arange(600.0)}, checkpoint_id=partial, no_dist=True)
    torch.save({"step": step}, partial / "common.pt")
    (partial / "config.yaml").write_text("model:\n  num_layers: 4\n")
    (partial / "state.json").write_text(json.dumps({"step": step}))
    (partial / "layout.json").write_text('{"tensor_model_parallel_size": 2, "world_size": 4}')
    (partial / "versions.json").write_text('{"torch": "2.13.0"}')
    (partial / "tokenizer").mkdir()
    (partial / "tokenizer" / "manifest.json").write_text("{}")
    final = verify.step_folder(directory, step)
    verify.commit(partial, final, verify.digest_files(partial, verify.files_to_digest(partial)))
    return final


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write(tmp_path_factory.mktemp("checkpoints"), 7)


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / original.name))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "words"),
    [(flip_a_byte, "was changed"), (truncate, "bytes, .* were written"), (Path.unlink, "missing")],
)
def test_a_damaged_file_is_named(folder, name, damage, words):
    verify_checkpoint(folder)
    damage(folder / name)
    with pytest.raises(BadCheckpoint, match=rf"{name} .*{words}.*use an older checkpoint"):
        verify_checkpoint(folder)


def test_every_damaged_file_is_in_the_report(folder):
    flip_a_byte(folder / "common.pt")
    (folder / "config.yaml").unlink()
    report = inspect_checkpoint(folder)
    assert (report.committed, report.whole, report.good) == (True, False, False)
    assert [problem.split()[0] for problem in report.problems[:2]] == [
        str(folder / "common.pt"),
        str(folder / "config.yaml"),
    ]


@pytest.mark.parametrize("name", [verify.MARKER, verify.DIGESTS])
def test_without_its_marker_it_was_never_committed(folder, name):
    (folder / name).unlink()
    with pytest.raises(BadCheckpoint, match=f"{folder.name} was never committed"):
        verify_checkpoint(folder)
    assert not inspect_checkpoint(folder).good


@pytest.mark.parametrize("name", [verify.MARKER, verify.DIGESTS])
def test_marker_and_digests_vouch_for_each_other(folder, name):
    flip_a_byte(folder / name)
    with pytest.raises(BadCheckpoint, match="does not match COMMITTED"):
        verify_checkpoint(folder)


def test_whole_files_under_an_unfinished_name_are_not_committed(folder):
    partial = folder.rename(folder.with_name(folder.name + ".x.partial"))
    with pytest.raises(BadCheckpoint, match="under way or was cut off"):
        verify_checkpoint(partial)
    assert not inspect_checkpoint(partial).committed
    assert verify.committed_steps(folder.parent) == []


def test_each_reader_of_several_finds_the_damage_in_its_share(folder):
    flip_a_byte(folder / "config.yaml")
    found = [p for part in range(5) for p in verify.find_problems(folder, part, 5)]
    assert len(found) == 1 and "config.yaml" in found[0]


def test_nothing_is_committed_with_a_file_that_has_no_digest(folder, tmp_path):
    digests = verify.digest_files(folder, ["common.pt"])
    with pytest.raises(BadCheckpoint, match=r"not digested: \.metadata, __0_0\.distcp"):
        verify.commit(folder, tmp_path / "step_00000008", digests)
    assert not (tmp_path / "step_00000008").exists()


def test_new_digests_do_not_hide_a_pickle_that_runs_code(folder, tmp_path):
    """Who can write the files can write the digests; the pickles are read without trust."""
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    metadata.planner_data = Shell(tmp_path / "ran")
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    partial = folder.rename(tmp_path / "step_00000007.x.partial")
    for name in (verify.DIGESTS, verify.MARKER):
        (partial / name).unlink()
    digests = verify.digest_files(partial, verify.files_to_digest(partial))
    verify.commit(partial, folder, digests)
    with pytest.raises(BadCheckpoint, match=r"names builtins\.exec"):
        verify_checkpoint(folder)
    assert not (tmp_path / "ran").exists()


class Shell:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w')",)


def test_a_path_means_a_checkpoint_or_those_in_it_or_those_of_a_run(tmp_path):
    run, names = tmp_path / "run", ["step_00000020", "step_00000010", "step_00000030.a.partial"]
    for name in names:
        (run / "checkpoints" / name).mkdir(parents=True)
    newest_first = [run / "checkpoints" / name for name in names]
    assert find_checkpoints(run) == newest_first
    assert find_checkpoints(run / "checkpoints") == newest_first
    assert find_checkpoints(newest_first[1]) == [newest_first[1]]
    with pytest.raises(UserError, match="is no folder; give"):
        find_checkpoints(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no checkpoint"):
        find_checkpoints(tmp_path / "empty")


def run_tool(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_tool_reports_each_checkpoint_newest_first(tmp_path):
    write(tmp_path, 10)
    damaged = write(tmp_path, 20)
    (tmp_path / "step_00000030.a.partial").mkdir()
    truncate(damaged / "__0_0.distcp")
    done = run_tool(tmp_path, "--json")
    assert done.returncode == 1, done.stderr
    reports = json.loads(done.stdout)
    assert [(r["step"], r["committed"], r["whole"], r["good"]) for r in reports] == [
        (20, True, False, False),
        (10, True, True, True),
        (None, False, False, False),
    ]
    assert "__0_0.distcp has" in reports[0]["problems"][0]
    assert reports[1]["layout"] == {"tensor_model_parallel_size": 2, "world_size": 4}
    assert reports[1]["versions"] == {"torch": "2.13.0"} and reports[1]["bytes"] > 2400


def test_the_tools_exit_status_is_its_verdict(original, tmp_path):
    done = run_tool(original)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{original}: good, step 7,")
    assert "TP2 of 4 ranks, torch 2.13.0" in done.stdout
    done = run_tool(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and "holds no checkpoint" in done.stderr
