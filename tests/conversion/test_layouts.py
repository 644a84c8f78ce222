"""A checkpoint exports to the same weights whatever layout saved it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron_biollm.conversion.safetensors_stream import ShardedReader
from megatron_biollm.recipes.convert import ConversionConfig, export_to_hf, import_from_hf

TP, PP = "tensor_model_parallel_size", "pipeline_model_parallel_size"
VPP = "virtual_pipeline_model_parallel_size"


@pytest.fixture(scope="module")
def imported(hf_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("imported")
    import_from_hf(ConversionConfig(hf_model, output))
    return output / "step_00000000"


@pytest.mark.parametrize(
    ("processes", "layout"),
    [
        (4, {TP: 2, PP: 2, "sequence_parallel": True}),
        (2, {PP: 2, VPP: 2}),
    ],
    ids=["TP2-PP2-SP", "PP2-VPP2"],
)
def test_trained_in_a_layout_exports_to_the_imported_weights(
    hf_model, imported, tmp_path, processes, layout
):
    run_layout(processes, imported, tmp_path / "checkpoints", layout)
    report = export_to_hf(ConversionConfig(tmp_path / "checkpoints", tmp_path / "out"))
    before, after = ShardedReader(hf_model), ShardedReader(tmp_path / "out")
    assert before.names == after.names
    for name in before.names:
        assert torch.equal(before.read(name), after.read(name)), name
    assert report["max_abs_diff_logits"] < 1e-4
    assert report["notes"] == ["exported from step_00000007"]


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
