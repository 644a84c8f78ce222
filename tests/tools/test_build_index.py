import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TOOL = Path(__file__).parents[2] / "tools" / "build_index.py"


@pytest.fixture
def corpus(tmp_path):
    lengths = np.full(50, 20, np.int32)
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 50, 51)
    arrays = (lengths, np.arange(50, dtype=np.int64) * 40, np.arange(51, dtype=np.int64))
    (tmp_path / "c.idx").write_bytes(header + b"".join(array.tobytes() for array in arrays))
    (tmp_path / "c.bin").write_bytes(np.zeros(1000, np.uint16).tobytes())
    return str(tmp_path / "c")


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True
    )


def test_it_builds_every_epoch_of_the_run_and_names_the_folders(corpus, tmp_path):
    flags = ("--data-path", corpus, "--seq-length", 8, "--split", "9,1,0", "--json")
    done = run(*flags, "--train-samples", 300, "--data-cache-path", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    folders = json.loads(done.stdout)
    assert len(folders) == 3  # epochs of 112 training samples, the first with validation's
    assert {str(path) for path in (tmp_path / "cache").iterdir()} == set(folders)


def test_what_is_missing_is_told(corpus):
    done = run("--data-path", corpus)
    assert done.returncode == 2 and "--seq-length is missing" in done.stderr
    assert "Traceback" not in done.stderr
