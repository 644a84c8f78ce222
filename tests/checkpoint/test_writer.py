"""How core is let write the files of a rank."""

import pytest
import torch
from megatron.core.dist_checkpointing.strategies import filesystem_async

from megatron_biollm.checkpoint.verify import digest_files
from megatron_biollm.checkpoint.write_results import WriteResults
from megatron_biollm.checkpoint.writer import write_and_digest


@pytest.mark.parametrize("files", [1, 2])
def test_no_thread_that_writes_has_torch_sum_up_the_archives(tmp_path, monkeypatch, files):
    asked = []

    def write(transforms, index, bucket, answers, at_work, use_fsync):
        asked.append(torch.serialization.get_crc32_options())
        with filesystem_async.open(bucket[0], "wb") as file:
            file.write(b"x" * index)
        answers.put((index, [bucket[1]]))

    writer = filesystem_async.FileSystemWriterAsync
    monkeypatch.setattr(writer, "write_preloaded_data", staticmethod(write))
    names = [f"file{index}" for index in range(files)]
    results = WriteResults()
    write_and_digest(results, [], 0, [(str(tmp_path / n), n, ([], [])) for n in names], None)
    assert results.get_nowait() == {index: [name] for index, name in enumerate(names)}
    assert results.get_nowait() == digest_files(tmp_path, names)
    assert asked == [False] * files
    assert torch.serialization.get_crc32_options()
    results.close()
