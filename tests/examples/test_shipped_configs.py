"""Every YAML and every job shipped with the examples is what it promises to be."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from megatron_biollm.config import load_config
from megatron_biollm.recipes.corpus import CorpusConfig
from megatron_biollm.recipes.finetune_config import load_stages
from megatron_biollm.recipes.plan import PlanOptions, make_plan
from megatron_biollm.recipes.run_config import load_run_config

EXAMPLES = Path(__file__).parents[2] / "examples"
CORPORA = sorted(EXAMPLES.rglob("corpus.yaml"))
WORLDS = {"pretrain_1b": 1, "pretrain_7b": 8, "pretrain_70b": 256, "continue_70b": 256}
FINETUNING = {"sft/tiny": 2, "sft/70b": 64, "dpo/tiny": 2, "dpo/mediqa": 1, "dpo/70b": 64}
JOBS = ["pretrain_7b", "pretrain_70b", "continue_70b", "sft/70b", "dpo/70b"]


def writer():
    spec = importlib.util.spec_from_file_location("write_sbatch", EXAMPLES / "write_sbatch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_of(name):
    return load_run_config([EXAMPLES.parent / file for file in writer().configs(EXAMPLES / name)])


def test_every_shipped_run_is_tested():
    assert {path.parent.name for path in EXAMPLES.glob("*/run.yaml")} == set(WORLDS)


def test_every_shipped_fine_tuning_is_tested():
    runs = {path.parent.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.glob("*/*/run.yaml")}
    assert runs == set(FINETUNING)


@pytest.mark.parametrize("name", FINETUNING)
def test_a_shipped_fine_tuning_obeys_every_rule_and_fits_its_world(name, tmp_path):
    start = "checkpoint={load: null}"  # there is none here, to tell the model's sizes
    (tmp_path / "sizes.yaml").write_text("model: {preset: tiny, num_layers: 80}")
    sizes = [tmp_path / "sizes.yaml"] * ("tiny" in name)
    for config in load_stages([*sizes, EXAMPLES / name / "run.yaml"], [start]):
        config.set_vocab_size(34_000, "the tokenizer")
        config.check_world(FINETUNING[name])


@pytest.mark.parametrize("name", ["sft/tiny", "dpo/tiny"])
def test_any_fine_tuning_takes_adapters_instead(name):
    files = [EXAMPLES / name / "run.yaml", EXAMPLES / "sft" / "lora.yaml"]
    for config in load_stages(files, ["checkpoint={load: null}", "model.preset=tiny"]):
        assert config.finetune.lora.rank == 16


def test_the_quickstart_obeys_every_rule():
    config = load_run_config(EXAMPLES / "quickstart" / "tiny.yaml")
    config.set_vocab_size(config.model.vocab_size or 4096, "the tokenizer")


@pytest.mark.parametrize("name", WORLDS)
def test_a_shipped_run_obeys_every_rule_and_fits_its_world(name):
    config = run_of(name)
    config.set_vocab_size(34_000, "the tokenizer")
    config.check_world(WORLDS[name])


@pytest.mark.parametrize("path", CORPORA, ids=lambda path: path.parent.name)
def test_a_shipped_corpus_obeys_every_rule(path):
    config = load_config(CorpusConfig, path, ["executor.partition=cpu"])
    assert config.output_dir


@pytest.mark.parametrize("name", ["pretrain_70b", "continue_70b"])
def test_a_70b_run_has_the_promised_batch_and_vocabulary(name):
    config = run_of(name)
    config.set_vocab_size(34_000, "the tokenizer")
    assert config.training.global_batch_size * config.model.seq_length == 2_097_152
    assert config.model.padded_vocab_size == 34_816


def test_the_run_from_scratch_is_the_one_promised():
    config = run_of("pretrain_70b")
    assert config.training.train_iters == round(4e12 / 2_097_152) == 1_907_349
    assert (config.optimizer.lr, config.optimizer.lr_warmup_iters) == (2e-5, 2000)
    assert config.optimizer.lr_decay_style == "cosine" and config.training.bf16
    assert config.parallel.tensor_model_parallel_size == 8 and config.parallel.sequence_parallel


def test_the_continued_run_starts_from_weights_alone_at_the_known_rate():
    config = run_of("continue_70b")
    assert config.checkpoint.load and not config.checkpoint.load_optimizer
    assert config.optimizer.lr == 1.5e-4


@pytest.mark.parametrize("name", JOBS)
def test_a_shipped_job_is_the_one_that_the_generator_writes(name):
    module = writer()
    assert [module.name(folder) for folder in module.examples()] == sorted(JOBS)
    shipped = EXAMPLES / name / "train.sbatch"
    assert shipped.read_text() == module.script(EXAMPLES / name)


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("script", ["train.sh", "train.sbatch"])
def test_a_shipped_script_is_bash(name, script):
    path = EXAMPLES / name / script
    assert subprocess.run(["bash", "-n", path], capture_output=True).returncode == 0


def test_the_70b_layout_is_the_planner_s_best_of_its_tensor_parallel_size():
    config = run_of("pretrain_70b")
    config.set_vocab_size(34_000, "the tokenizer")
    plan = make_plan(config, PlanOptions(gpu="h100-80gb", gpus=256))
    best = next(
        layout
        for layout in plan.found.fitting  # the fastest first
        if layout.candidate.parallel.tensor_model_parallel_size == 8
    )
    assert best.candidate.describe() == plan.own.candidate.describe()
