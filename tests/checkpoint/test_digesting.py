"""A file that digests itself holds what was written and knows its digest."""

import os
import resource

import pytest
import torch

from megatron_biollm.checkpoint import digesting
from megatron_biollm.checkpoint.digesting import LARGE, DigestingFile
from megatron_biollm.checkpoint.verify import digest_files


def test_small_and_large_writes_come_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(digesting, "PART", 300_000)
    parts = [
        bytes([i]) * size for i, size in enumerate((3, 40, LARGE, 5, 2 * LARGE + 1, LARGE - 1))
    ]
    with DigestingFile(tmp_path / "file") as file:
        for part in parts:
            assert file.write(part) == len(part)
        assert file.tell() == sum(map(len, parts))
    assert (tmp_path / "file").read_bytes() == b"".join(parts)
    assert digest_files(tmp_path, ["file"]) == {"file": file.digest()}


def test_memory_may_change_once_it_is_written(tmp_path):
    memory = bytearray(b"a" * LARGE)
    with DigestingFile(tmp_path / "file") as file:
        for letter in b"abc":
            memory[:] = bytes([letter]) * len(memory)
            file.write(memory)
            file.write(memory[:10])
    assert digest_files(tmp_path, ["file"]) == {"file": file.digest()}
    assert (tmp_path / "file").read_bytes()[LARGE - 1 : LARGE + 11] == b"a" * 11 + b"b"


def test_its_descriptor_has_everything_that_was_written(tmp_path):
    with DigestingFile(tmp_path / "file") as file:
        file.write(b"header")
        assert os.fstat(file.fileno()).st_size == 6


def test_torch_reads_what_it_has_saved_into_it(tmp_path):
    values = torch.randn(400_000)
    with DigestingFile(tmp_path / "file") as file:
        torch.save(values, file)
    assert torch.equal(torch.load(tmp_path / "file", weights_only=True), values)
    assert digest_files(tmp_path, ["file"]) == {"file": file.digest()}


def write_and_close(file, data):
    with file:
        file.write(data)


@pytest.mark.parametrize("size", [100, LARGE])
def test_a_disk_that_is_full_is_an_error_and_the_file_closes(tmp_path, size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = DigestingFile(tmp_path / "file")
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_and_close(file, b"x" * size)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file.descriptor)
