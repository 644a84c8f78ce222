"""A run whose loss is not a number stops, says where, and keeps only checkpoints from before."""

import pytest
import torch

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.stream import CheckpointReader
from tests.integration.recipe import ROOT, rows, torchrun, write_inputs


@pytest.mark.parametrize("async_save", ["false", "true"])
def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path, async_save):
    run_dir = tmp_path / "run"
    options = [
        "optimizer.lr=1e25",
        "optimizer.lr_warmup_iters=0",
        "checkpoint.save_interval=1",
        f"checkpoint.async_save={async_save}",
        f"run_dir={run_dir}",
    ]
    done = torchrun(1, ROOT / "tools" / "pretrain.py", write_inputs(tmp_path) + options)
    assert done.returncode == 2, done.stderr[-3000:]
    last = max(rows(run_dir))
    message = f"at step {last + 1} (samples {16 * last} to {16 * last + 15})"
    assert "error: " in done.stderr and message in done.stderr
    assert "Traceback" not in done.stderr
    folders = verify.step_folders(run_dir / "checkpoints")
    assert [verify.step_of(f) for f in folders] == list(range(last, 0, -1))[:3]
    assert len(list((run_dir / "checkpoints").iterdir())) == len(folders)
    for folder in folders:
        verify.verify_checkpoint(folder)
        reader = CheckpointReader(folder)
        assert all(torch.isfinite(reader.read(name)).all() for name in reader.tensors)
