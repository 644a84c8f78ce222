import pytest
import torch

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.recipes.benchmarks import dpo as dpo_benchmark
from megatron_biollm.recipes.benchmarks.dpo import DpoBenchmark

pytest.importorskip("trl", reason="the benchmark is against trl, of the dev extra")


def options(**changes):
    return DpoBenchmark(**{"model": ModelConfig(preset="tiny", vocab_size=64)} | changes)


def test_trl_gets_the_same_pairs():
    ours = dpo_benchmark._batch(options())
    theirs = dpo_benchmark.as_collated(ours)
    for row in range(4):
        for which, place in ((0, row), (1, 4 + row)):
            length = int(ours["length"][row, which])
            assert int(theirs["attention_mask"][place].sum()) == length
            mask = theirs["completion_mask"][place, 1:].bool()
            answer = ours["loss_mask"][row, which].bool()
            assert torch.equal(
                theirs["input_ids"][place, 1:][mask], ours["labels"][row, which][answer]
            )


def test_a_model_without_vocabulary_is_refused():
    with pytest.raises(UserError, match="no vocabulary size"):
        options(model=ModelConfig(preset="tiny"))
