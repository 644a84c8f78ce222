import numpy as np
import pytest
from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

from megatron_biollm.data.index_file import megatron_dtype, write_index
from megatron_biollm.data.sidecar import file_digests


@pytest.mark.parametrize("vocab_size", [100, 65499, 65500, 65536, 10**6])
def test_the_dtype_is_cores(vocab_size):
    assert megatron_dtype(vocab_size) == np.dtype(DType.optimal_dtype(vocab_size))


@pytest.mark.parametrize("dtype", ["<u2", "<i4"])
@pytest.mark.parametrize(
    "documents", [[], [[]], [[3], [], [1, 2], [70000]], [[n] for n in range(99)]]
)
def test_the_bytes_are_those_of_cores_builder(tmp_path, dtype, documents):
    builder = IndexedDatasetBuilder(str(tmp_path / "core.bin"), dtype=np.dtype(dtype).type)
    for lengths in documents:
        builder.add_document(np.zeros(sum(lengths), dtype), lengths)
    builder.finalize(str(tmp_path / "core.idx"))
    half = len(documents) // 2
    files = []
    for number, some in enumerate((documents[:half], documents[half:])):
        lengths, counts = tmp_path / f"{number}.l", tmp_path / f"{number}.d"
        lengths.write_bytes(np.array([n for d in some for n in d], "<i4").tobytes())
        counts.write_bytes(np.array([len(d) for d in some], "<i4").tobytes())
        files.append((lengths, counts))
    (tmp_path / "ours.bin").write_bytes(b"")
    digest = write_index(tmp_path / "ours.idx", np.dtype(dtype), *zip(*files, strict=True))
    assert (tmp_path / "ours.idx").read_bytes() == (tmp_path / "core.idx").read_bytes()
    assert file_digests(str(tmp_path / "ours"))["idx"] == digest
