"""A checkpoint from somebody else cannot run code."""

import io
import os
import pickle
import pickletools

import pytest
import torch
import torch.distributed.checkpoint as dcp

from megatron_biollm.checkpoint.safe_pickle import check_checkpoint_pickles, check_pickle_globals
from megatron_biollm.config import UserError


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "step"
    state = {"w": torch.arange(6.0).bfloat16(), "rng": {"seed": 1}}
    dcp.save(state, checkpoint_id=folder, no_dist=True)
    return folder


class _Shell:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_an_honest_checkpoint_passes(checkpoint):
    check_checkpoint_pickles(checkpoint)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_a_command_is_refused_unrun(tmp_path, protocol):
    path = tmp_path / ".metadata"
    path.write_bytes(pickle.dumps(_Shell(tmp_path / "ran"), protocol=protocol))
    with pytest.raises(UserError, match=r"names posix\.system"):
        check_pickle_globals(path)
    assert not (tmp_path / "ran").exists()


def test_a_disguised_name_is_refused(tmp_path):
    # The strings just before STACK_GLOBAL are allowed ones, but are popped before it runs.
    blob = b"\x80\x04\x8c\x05posix\x8c\x06system\x8c\x05torch\x8c\x04Size00\x93\x8c\x04true\x85R."
    pickletools.dis(blob, out=io.StringIO())
    path = tmp_path / ".metadata"
    path.write_bytes(blob)
    with pytest.raises(UserError, match=r"posix\.system"):
        check_pickle_globals(path)


def test_a_malicious_metadata_beside_good_tensors_is_refused(checkpoint):
    metadata = pickle.loads((checkpoint / ".metadata").read_bytes())
    metadata.planner_data = _Shell(checkpoint.parent / "ran")
    (checkpoint / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(UserError, match="do not load this file"):
        check_checkpoint_pickles(checkpoint)
    assert not (checkpoint.parent / "ran").exists()


def test_a_malicious_object_inside_a_data_file_is_refused(tmp_path):
    state = {"rng": _Shell(tmp_path / "ran")}
    dcp.save(state, checkpoint_id=tmp_path / "step", no_dist=True)
    with pytest.raises(UserError, match="rng in .* holds more than plain values"):
        check_checkpoint_pickles(tmp_path / "step")
    assert not (tmp_path / "ran").exists()


def test_a_malicious_common_file_is_refused(checkpoint):
    torch.save({"args": _Shell(checkpoint.parent / "ran")}, checkpoint / "common.pt")
    with pytest.raises(UserError, match=r"common\.pt"):
        check_checkpoint_pickles(checkpoint)
    assert not (checkpoint.parent / "ran").exists()


def test_a_truncated_metadata_is_refused(checkpoint):
    whole = (checkpoint / ".metadata").read_bytes()
    (checkpoint / ".metadata").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        check_checkpoint_pickles(checkpoint)
