"""Every YAML shipped with the examples loads, and fits the world that its name promises."""

import re
from pathlib import Path

import pytest

from megatron_biollm.config import load_config
from megatron_biollm.recipes.corpus import CorpusConfig
from megatron_biollm.recipes.run_config import load_run_config

EXAMPLES = Path(__file__).parents[2] / "examples"
CORPORA = sorted(EXAMPLES.rglob("corpus.yaml"))
RUNS = [EXAMPLES / "quickstart" / "tiny.yaml", *sorted((EXAMPLES / "pretrain").glob("*.yaml"))]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_a_shipped_config_obeys_every_rule(path):
    config = load_run_config(path)
    config.set_vocab_size(config.model.vocab_size or 4096, "the tokenizer")


@pytest.mark.parametrize("path", [p for p in RUNS if "gpu" in p.stem], ids=lambda path: path.name)
def test_a_shipped_config_fits_its_world(path):
    world_size = int(re.search(r"_(\d+)gpu", path.stem)[1])
    load_run_config(path).check_world(world_size)


@pytest.mark.parametrize("path", CORPORA, ids=lambda path: path.parent.name)
def test_a_shipped_corpus_obeys_every_rule(path):
    config = load_config(CorpusConfig, path, ["executor.partition=cpu"])
    assert config.output_dir


def test_the_70b_run_is_the_one_promised():
    config = load_run_config(EXAMPLES / "pretrain" / "70b_256gpu.yaml")
    tokens = config.training.global_batch_size * config.model.seq_length
    assert tokens == 2_097_152
    assert config.training.train_iters == round(4e12 / tokens)
    assert (config.optimizer.lr, config.optimizer.lr_warmup_iters) == (2e-5, 2000)
    assert config.model.padded_vocab_size == 34_816
