"""Several processes write what one writes, and a failure of one leaves nothing."""

import filecmp

import pytest
import torch

from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.config import UserError
from megatron_biollm.conversion.from_hf import Importer
from megatron_biollm.conversion.hf_config import read_hf_config, sizes_from_hf
from megatron_biollm.conversion.safetensors_stream import ShardedReader
from megatron_biollm.conversion.staging import Flusher
from megatron_biollm.conversion.to_hf import Exporter
from megatron_biollm.recipes.convert import ConversionConfig, export_to_hf, import_from_hf
from megatron_biollm.recipes.convert_steps import export_weights, import_weights


@pytest.fixture(scope="module")
def bf16_model(make_hf):
    return make_hf(torch.bfloat16)


def test_any_number_of_processes_writes_the_same_bytes(bf16_model, tmp_path):
    sizes = sizes_from_hf(read_hf_config(bf16_model))
    folders = []
    for workers in (1, 2):
        step, out = tmp_path / f"step{workers}", tmp_path / f"out{workers}"
        out.mkdir()
        # Blocks of a few rows, which end in the middle of heads, gates and chunks.
        small = {"block_bytes": 13 * 4 * 64, "folder": step, "file_bytes": 50_000}
        importer = Importer(bf16_model, sizes, **small)
        with Flusher() as flusher:
            digests, held = import_weights(importer, workers, flusher)
            assert len(digests) > 5 and len({each.pid for each in held}) == workers
            exporter = Exporter(step, out, sizes, max_shard_bytes=100_000, block_bytes=7 * 4 * 64)
            source = CheckpointReader(step)
            exporter.writer(source).create()
            export_weights(exporter, source, workers, flusher)
        folders.append((step, out))
    for one, two in zip(*folders, strict=True):
        assert same_files(one, two) > 5
    assert_equal_weights(bf16_model, folders[1][1])


def test_damage_found_by_a_worker_leaves_nothing(bf16_model, tmp_path):
    import_from_hf(ConversionConfig(bf16_model, tmp_path / "ck"))
    file = max((tmp_path / "ck/step_00000000").glob("*.distcp"), key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    for workers in (1, 2):
        with pytest.raises(UserError, match=f"{file.name} was changed"):
            export_to_hf(ConversionConfig(tmp_path / "ck", tmp_path / "out", workers=workers))
        assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_damage_that_shows_as_nan_is_told_as_damage_of_that_file(bf16_model, tmp_path):
    import_from_hf(ConversionConfig(bf16_model, tmp_path / "ck"))
    step = tmp_path / "ck/step_00000000"
    place = CheckpointReader(step).extents("decoder.layers.*.mlp.linear_fc1.weight", 1)[0]
    content = bytearray(place.path.read_bytes())
    middle = (place.start + place.stop) // 4 * 2
    content[middle : middle + 64] = b"\xff" * 64
    place.path.write_bytes(content)
    with pytest.raises(UserError, match=f"{place.path.name} was changed"):
        export_to_hf(ConversionConfig(tmp_path / "ck", tmp_path / "out"))
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def same_files(one, other):
    """Asserts that two folders hold the same bytes; returns the number of files."""
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    same, different, errors = filecmp.cmpfiles(one, other, names, shallow=False)
    assert not different and not errors
    return len(same)


def assert_equal_weights(before, after):
    one, other = ShardedReader(before), ShardedReader(after)
    assert one.names == other.names
    for name in one.names:
        assert torch.equal(one.read(name), other.read(name)), name
