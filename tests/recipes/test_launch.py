from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.recipes.finetune_config import FinetuneConfig
from megatron_biollm.recipes.launch import load_for

TINY = ["model.preset=tiny"]


def test_a_job_reads_the_configuration_as_its_program_does(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("finetune: {recipe: sft}\n")
    assert isinstance(load_for(Path("tools/finetune.py"), [file], TINY), FinetuneConfig)
    with pytest.raises(UserError, match="unknown config key finetune"):
        load_for(Path("tools/pretrain.py"), [file], TINY)


def test_a_chain_of_stages_is_no_job(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("stages: [{name: a}, {name: b}]\n")
    with pytest.raises(UserError, match="has 2 stages, and a job watches over one run"):
        load_for(Path("finetune.py"), [file], TINY)
