"""Rows are read from where they lie, whatever cut the tensor, and damage is named."""

import pytest
import torch
import torch.distributed.checkpoint as dcp

from megatron_biollm.checkpoint.payload import find_payload, read_exactly
from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.checkpoint.stream_writer import Piece, WeightsWriter, files_of
from megatron_biollm.checkpoint.verify import digest_files
from megatron_biollm.config import UserError

KEY = "decoder.layers.mlp.linear_fc2.weight"


def write(folder, values, cuts):
    """One key, cut into boxes (offsets, sizes), two boxes a file."""
    pieces = [
        Piece(
            KEY,
            tuple(values.shape),
            offsets,
            sizes,
            values.dtype,
            lambda o=offsets, s=sizes: values[
                tuple(slice(a, a + n) for a, n in zip(o, s, strict=True))
            ],
        )
        for offsets, sizes in cuts
    ]
    writer = WeightsWriter(folder, [pieces[i : i + 2] for i in range(0, len(pieces), 2)])
    digests = writer.finish([writer.write(i) for i in range(len(writer.files))])
    assert digests == digest_files(folder, digests)
    return CheckpointReader(folder)


@pytest.fixture
def values():
    return torch.arange(3 * 8 * 6, dtype=torch.float32).view(3, 8, 6).bfloat16()


BY_ROWS = [((layer, row, 0), (1, 4, 6)) for layer in range(3) for row in (0, 4)]
BY_COLUMNS = [((layer, 0, column), (1, 8, 2)) for layer in range(3) for column in (0, 2, 4)]
BY_LAYERS = [((0, 0, 0), (2, 8, 6)), ((2, 0, 0), (1, 8, 6))]
GRID = [((i, r, c), (1, 2, 3)) for i in range(3) for r in range(0, 8, 2) for c in (0, 3)]


@pytest.mark.parametrize(
    "cuts", [BY_ROWS, BY_COLUMNS, BY_LAYERS, GRID], ids=["rows", "columns", "layers", "grid"]
)
def test_any_rows_of_any_cut(values, tmp_path, cuts):
    reader = write(tmp_path, values, cuts)
    key = KEY.replace("layers.", "layers.*.")
    assert torch.equal(reader.read(KEY), values)
    for layer in range(3):
        assert torch.equal(reader.read(key, layer), values[layer])
        assert torch.equal(reader.read(key, layer, (3, 7)), values[layer, 3:7])
    with pytest.raises(UserError, match="has 8 rows, not 9"):
        reader.read(key, 0, (5, 9))
    with pytest.raises(UserError, match="has 3 layers of .* not 4"):
        reader.read(key, 3)


def test_torch_reads_what_was_written(values, tmp_path):
    write(tmp_path, values, GRID)
    state = {KEY: torch.empty_like(values)}
    dcp.load(state, checkpoint_id=tmp_path, no_dist=True)
    assert torch.equal(state[KEY], values)


def test_a_tensor_of_another_form_is_left_to_torch(tmp_path):
    state = {"w": torch.arange(12.0, dtype=torch.float64).view(3, 4)}
    dcp.save(state, checkpoint_id=tmp_path, no_dist=True)
    assert torch.equal(CheckpointReader(tmp_path).read("w", rows=(1, 3)), state["w"][1:])


def test_gaps_are_named(values, tmp_path):
    reader = write(tmp_path, values, BY_ROWS[:-1])
    with pytest.raises(UserError, match="has gaps"):
        reader.read(KEY.replace("layers.", "layers.*."), 2)


def test_a_cut_off_file_is_named(values, tmp_path):
    write(tmp_path, values, BY_ROWS)
    file = tmp_path / "__2_0.distcp"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match="cannot be read .* missing or damaged"):
        CheckpointReader(tmp_path).read(KEY.replace("layers.", "layers.*."), 2)


def test_a_file_outside_the_folder_is_refused(values, tmp_path):
    reader = write(tmp_path, values, BY_ROWS)
    for info in reader._metadata.storage_data.values():
        info.relative_path = "../elsewhere"
    with pytest.raises(UserError, match="points to .*; do not load this"):
        reader.read(KEY.replace("layers.", "layers.*."), 0)


WHOLE = torch.arange(35.0).view(5, 7)


def archive(path, tensor):
    """Saves a tensor behind other bytes; gives what is found there."""
    with path.open("wb") as file:
        file.write(b"before")
        torch.save(tensor, file)
        return find_payload(path, 6, file.tell() - 6)


def test_a_whole_contiguous_tensor_is_read_from_its_place(tmp_path):
    payload = archive(tmp_path / "file", WHOLE)
    target = torch.empty(5, 7)
    read_exactly(payload.path, payload.offset, target)
    assert torch.equal(target, WHOLE)


@pytest.mark.parametrize("tensor", [WHOLE.T, WHOLE[:3], WHOLE.int()], ids=["T", "part", "int"])
def test_any_other_tensor_has_no_such_place(tmp_path, tensor):
    assert archive(tmp_path / "file", tensor) is None


def test_files_take_as_many_pieces_as_fit():
    def piece(rows):
        return Piece(KEY, (9, 4), (0, 0), (rows, 4), torch.float32, lambda: None)

    sizes = [[p.sizes[0] for p in file] for file in files_of([piece(n) for n in (1, 2, 9, 3)], 64)]
    assert sizes == [[1, 2], [9], [3]]


@pytest.mark.parametrize("crc32", [True, False])
def test_values_are_found_in_archives_with_and_without_crc32(tmp_path, values, crc32):
    computed = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(crc32)
    try:
        torch.save(values, tmp_path / "file")
    finally:
        torch.serialization.set_crc32_options(computed)
    path = tmp_path / "file"
    payload = find_payload(path, 0, path.stat().st_size)
    found = torch.empty(payload.shape, dtype=payload.dtype)
    read_exactly(path, payload.offset, found)
    assert torch.equal(found, values)
