"""A file that digests itself holds what was written and knows its digest."""

import os
import resource

import pytest
import torch

from megatron_biollm.checkpoint import digesting
from megatron_biollm.checkpoint.digesting import DigestingFile
from megatron_biollm.checkpoint.verify import digest_files

PART = 2**16


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(digesting, "PART", PART)


@pytest.mark.parametrize("direct", [True, False])
def test_small_and_large_writes_come_in_their_order(tmp_path, monkeypatch, direct):
    if not direct:
        monkeypatch.setattr(digesting, "O_DIRECT", 0)
    sizes = (3, 40, PART, 5, 7 * PART + 1, PART - 1)
    written = [bytes([i]) * size for i, size in enumerate(sizes)]
    with DigestingFile(tmp_path / "file") as file:
        for one in written:
            assert file.write(one) == len(one)
        assert file.tell() == sum(sizes)
    assert (tmp_path / "file").read_bytes() == b"".join(written)
    assert digest_files(tmp_path, ["file"]) == {"file": file.digest()}


def test_memory_may_change_once_it_is_written(tmp_path):
    memory = bytearray(b"a" * PART)
    with DigestingFile(tmp_path / "file") as file:
        for letter in b"abcdef":
            memory[:] = bytes([letter]) * len(memory)
            file.write(memory)
            file.write(memory[:10])
    assert digest_files(tmp_path, ["file"]) == {"file": file.digest()}
    assert (tmp_path / "file").read_bytes()[PART - 1 : PART + 11] == b"a" * 11 + b"b"


def test_its_descriptor_has_everything_that_was_written_and_more_may_follow(tmp_path):
    with DigestingFile(tmp_path / "file") as file:
        for size in (6, 3 * PART, 1):
            file.write(b"x" * size)
            assert os.fstat(file.fileno()).st_size == file.tell()
    assert digest_files(tmp_path, ["file"]) == {"file": file.digest()}


def test_torch_reads_what_it_has_saved_into_it(tmp_path):
    values = torch.randn(400_000)
    with DigestingFile(tmp_path / "file") as file:
        torch.save(values, file)
    assert torch.equal(torch.load(tmp_path / "file", weights_only=True), values)
    assert digest_files(tmp_path, ["file"]) == {"file": file.digest()}


def write_and_close(file, data):
    with file:
        file.write(data)


@pytest.mark.parametrize("size", [100, 20 * PART])
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
