"""A file that digests itself holds what was written and knows its digest."""

import ctypes
import errno
import os
import re
import resource

import pytest
import torch

from megatron_biollm.checkpoint import digesting, page_cache
from megatron_biollm.checkpoint.digesting import DigestingFile
from megatron_biollm.checkpoint.verify import digest_files

PART = 2**16


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(digesting, "PART", PART)
    monkeypatch.setattr(digesting, "BEHIND", 4 * PART)


def test_small_and_large_writes_come_in_their_order(tmp_path):
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


def test_little_of_it_stays_in_memory(tmp_path):
    with (tmp_path / "plain").open("wb") as plain:
        plain.write(bytes(50 * PART))
        os.fsync(plain.fileno())
        page_cache.forget(plain.fileno())
    if page_cache.cached_share(tmp_path / "plain"):
        pytest.skip("this file system keeps its files in memory")
    with DigestingFile(tmp_path / "file") as file:
        for _ in range(50):
            file.write(b"x" * PART)
    assert page_cache.cached_share(tmp_path / "file") < 0.2


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fails_meanwhile_is_an_error(tmp_path, monkeypatch, code):
    def failing(*_):
        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(page_cache, "_sync_file_range", lambda: failing)
    told = re.escape(os.strerror(code))
    with DigestingFile(tmp_path / "file") as file, pytest.raises(OSError, match=told):
        file.write(b"x" * PART)


def test_a_kernel_that_writes_no_part_alone_writes_the_file(tmp_path, monkeypatch):
    def unknown(*_):
        ctypes.set_errno(errno.ENOSYS)
        return -1

    for call in (lambda: unknown, lambda: None):
        monkeypatch.setattr(page_cache, "_sync_file_range", call)
        with DigestingFile(tmp_path / "file") as file:
            file.write(b"x" * 9 * PART)
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
