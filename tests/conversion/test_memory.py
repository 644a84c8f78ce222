"""The cap on memory is planned, holds, and is measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron_biollm.config import UserError
from megatron_biollm.conversion.hf_config import hf_config
from megatron_biollm.conversion.memory import plan_memory
from megatron_biollm.conversion.names import part_shapes, weights
from megatron_biollm.conversion.safetensors_stream import ShardedWriter, TensorSpec
from megatron_biollm.model.config import ModelConfig

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("workers", [1, 4])
def test_three_gigabytes_suffice_for_the_70b_model(workers):
    # What this process holds by now counts; the tool begins in one of its own.
    program = (
        "from megatron_biollm.conversion.memory import plan_memory\n"
        "from megatron_biollm.model.config import ModelConfig\n"
        "import megatron_biollm.recipes.convert\n"
        "sizes = ModelConfig(preset='70b', vocab_size=34_000)\n"
        f"plan_memory(sizes, 16, max_memory_gb=3, workers={workers})\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


def test_too_small_a_cap_is_refused_with_the_one_that_suffices():
    sizes = ModelConfig(preset="70b", vocab_size=34_000)
    with pytest.raises(UserError, match=r"=0.5 is too little.*give --max-memory-gb \d") as refused:
        plan_memory(sizes, 16, max_memory_gb=0.5)
    plan_memory(sizes, 16, max_memory_gb=float(str(refused.value).split()[-1]))
    with pytest.raises(UserError, match=r"with 8 processes needs .* or fewer --workers"):
        plan_memory(sizes, 16, max_memory_gb=2, workers=8)


@pytest.mark.slow
def test_a_model_larger_than_the_cap_is_converted_under_it(tmp_path):
    sizes = ModelConfig(
        num_layers=32,
        hidden_size=1536,
        num_attention_heads=24,
        num_query_groups=4,
        ffn_hidden_size=4608,
        seq_length=512,
        vocab_size=8000,
    )
    size = write_random_model(tmp_path / "hf", sizes)
    assert size > 1.5e9
    for direction, source, target in (
        ("from-hf", "hf", "checkpoints"),
        ("to-hf", "checkpoints", "out"),
    ):
        report = run_tool(direction, tmp_path / source, tmp_path / target, cap=1)
        assert report["passed"]
        assert report["peak_memory_gb"] <= report["planned_memory_gb"] <= 1, report


def write_random_model(folder, sizes):
    """Returns the bytes of its weights."""
    folder.mkdir()
    specs = [
        TensorSpec(name, shape, torch.bfloat16)
        for weight in weights(sizes.num_layers)
        for name, shape in zip(weight.parts, part_shapes(weight.mapping, sizes), strict=True)
    ]
    writer = ShardedWriter(folder, specs, max_shard_bytes=500 * 10**6)
    writer.create()
    for spec in specs:
        writer.write_rows(spec.name, torch.randn(spec.shape).mul_(0.03).bfloat16())
    (folder / "config.json").write_text(json.dumps(hf_config(sizes, torch.bfloat16, 1, 2, None)))
    return sum(spec.nbytes for spec in specs)


def run_tool(direction, source, target, cap):
    # A process of its own: the peak is that of the whole process.
    command = [sys.executable, "tools/convert_checkpoint.py", direction, "--json"]
    command += ["--input", str(source), "--output", str(target), "--max-memory-gb", str(cap)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)
