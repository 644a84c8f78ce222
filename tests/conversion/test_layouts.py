"""A checkpoint exports to the same weights whatever layout saved it, and a made one is like it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader

from megatron_biollm.checkpoint import verify
from megatron_biollm.conversion.hf_config import read_hf_config, sizes_from_hf
from megatron_biollm.conversion.names import stacked, weights
from megatron_biollm.conversion.safetensors_stream import ShardedReader
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.recipes.benchmarks.convert import require_equal
from megatron_biollm.recipes.convert import ConversionConfig, export_to_hf, import_from_hf
from megatron_biollm.recipes.convert_slice import write_slice

TP, PP = "tensor_model_parallel_size", "pipeline_model_parallel_size"
VPP = "virtual_pipeline_model_parallel_size"
TP2_PP2 = {TP: 2, PP: 2, "sequence_parallel": True}


@pytest.fixture(scope="module")
def sizes(hf_model):
    return sizes_from_hf(read_hf_config(hf_model))


@pytest.fixture(scope="module")
def imported(hf_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("imported")
    import_from_hf(ConversionConfig(hf_model, output))
    return output / "step_00000000"


@pytest.fixture(scope="module")
def trained(imported, tmp_path_factory):
    """Saved by core at TP2 x PP2."""
    directory = tmp_path_factory.mktemp("trained")
    run_layout(4, imported, directory, TP2_PP2)
    return directory / "step_00000007"


@pytest.fixture(scope="module")
def sliced(sizes, tmp_path_factory):
    """Made by one process, as at TP2 x PP2."""
    return write_slice(
        tmp_path_factory.mktemp("slice"), sizes, ParallelConfig(**TP2_PP2), torch.float32
    )


def test_trained_at_tp2_pp2_exports_to_the_imported_weights(hf_model, trained, tmp_path):
    report = export_to_hf(ConversionConfig(trained, tmp_path / "out"))
    assert_equal_weights(hf_model, tmp_path / "out")
    assert report["max_abs_diff_logits"] < 1e-4
    assert report["notes"] == ["exported from step_00000007"]


def test_trained_at_pp2_vpp2_exports_to_the_imported_weights(hf_model, imported, tmp_path):
    run_layout(2, imported, tmp_path / "checkpoints", {PP: 2, VPP: 2})
    export_to_hf(ConversionConfig(tmp_path / "checkpoints", tmp_path / "out"))
    assert_equal_weights(hf_model, tmp_path / "out")


def test_a_slice_is_cut_into_the_chunks_and_files_of_cores_ranks(sizes, trained, sliced):
    assert chunks(sliced, sizes) == chunks(trained, sizes)


def test_core_loads_a_slice_and_saves_the_same_weights(sizes, sliced, tmp_path):
    verify.verify_checkpoint(sliced)
    run_layout(2, sliced, tmp_path, {TP: 2})
    require_equal(sliced, tmp_path / "step_00000007", sizes)


def chunks(step, sizes):
    """Rank of the file, key, offsets and shape of every chunk of the model."""
    metadata = FileSystemReader(step).read_metadata()
    keys = {stacked(weight.mapping.megatron) for weight in weights(sizes.num_layers)}
    boxes = {
        (key, tuple(chunk.offsets)): tuple(chunk.sizes)
        for key in keys
        for chunk in metadata.state_dict_metadata[key].chunks
    }
    places = {
        (index.fqn, tuple(index.offset)): info.relative_path.split("_")[2]
        for index, info in metadata.storage_data.items()
        if index.fqn in keys
    }
    assert places.keys() == boxes.keys()
    return {(places[place], *place, boxes[place]) for place in boxes}


def assert_equal_weights(one, other):
    before, after = ShardedReader(one), ShardedReader(other)
    assert before.names == after.names
    for name in before.names:
        assert torch.equal(before.read(name), after.read(name)), name


def run_layout(processes, source, directory, layout):
    worker = Path(__file__).with_name("layout_worker.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={processes}", str(worker), str(source), str(directory)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    result = subprocess.run(
        [*command, json.dumps(layout)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3000:]
