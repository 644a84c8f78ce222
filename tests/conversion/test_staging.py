"""What a conversion leaves behind, and when it does not even start."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.conversion import staging
from megatron_biollm.conversion.staging import Flusher, staged, sync_tree

ROOT = Path(__file__).parents[2]
HOLDS_A_FOLDER = """
import sys, time
from pathlib import Path
from megatron_biollm.conversion.staging import staged
with staged(Path(sys.argv[1]), 0) as folder:
    (folder / "half").write_text("half")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process in the middle of a conversion to tmp_path/out."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS_A_FOLDER, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_next_conversion_removes_what_a_killed_one_left(holder, tmp_path):
    process, left = holder
    process.kill()
    process.wait()
    assert (left / "half").is_file() and not (tmp_path / "out").exists()
    with staged(tmp_path / "out", 0) as folder:
        assert not left.exists()
        folder.rename(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_folder_of_a_running_conversion_is_left_alone(holder, tmp_path):
    _, other = holder
    with staged(tmp_path / "out", 0) as folder:
        assert folder != other and (other / "half").is_file()


def test_a_failed_block_leaves_nothing(tmp_path):
    def fail():
        with staged(tmp_path / "a/out", 0) as folder:
            (folder / "half").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list((tmp_path / "a").iterdir()) == []


def test_too_small_a_disk_is_refused_before_anything_is_written(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    refused = pytest.raises(UserError, match=r"needs .* GB and its disk has .* free some space or")
    with refused, staged(tmp_path / "out", free + 10**12):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_flusher_says_what_the_disk_refused(tmp_path):
    (tmp_path / "file").write_text("text")
    with Flusher() as flusher:
        flusher.add(tmp_path / "file")
        flusher.finish()
    with Flusher() as flusher:
        flusher.add(tmp_path / "absent")
        with pytest.raises(FileNotFoundError):
            flusher.finish()


def test_syncing_takes_files_and_folders(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        staging.os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
    )
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/file").write_text("text")
    sync_tree(tmp_path)
    assert synced == ["deep", "file", tmp_path.name]
