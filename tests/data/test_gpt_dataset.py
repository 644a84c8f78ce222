import dataclasses
import pickle

import numpy as np
import torch
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import Split

from megatron_biollm.data.gpt_dataset import Source
from megatron_biollm.data.indexed import open_indexed
from megatron_biollm.data.parts import SampleSettings

CUT = SampleSettings(seq_length=16, seed=1234, eod=2)


class TokenizerOfCore:
    eod, pad, vocab_size = 2, -1, 99
    unique_identifiers = "tokenizer"


def core_dataset(prefix, first, end, seed=1234, samples=None):
    """Core's own dataset, with its own index."""
    config = GPTDatasetConfig(
        random_seed=seed,
        sequence_length=16,
        blend=([prefix], None),
        split="1",
        path_to_cache="",
        tokenizer=TokenizerOfCore(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    sequences = np.arange(first, end, dtype=np.int32)
    return GPTDataset(open_indexed(prefix), prefix, sequences, samples, Split.train, config)


def test_the_first_epoch_is_megatrons(write_corpus, tmp_path):
    prefix = write_corpus(documents=80)
    source = Source(prefix, "train", (0.1, 0.9), CUT)
    core = core_dataset(prefix, 8, 72)
    assert source.num_samples == len(core)
    for number in range(len(core)):
        sample, expected = source.epoch(0)[number], core[number]
        assert sample.keys() == expected.keys()
        assert all(torch.equal(sample[name], expected[name]) for name in expected)


def test_another_epoch_has_the_same_tokens_in_another_order(write_corpus):
    source = Source(write_corpus(), "train", (0.0, 1.0), CUT)
    first, second = ([e[i]["tokens"].tolist() for i in range(len(e))] for e in
                     (source.epoch(0), source.epoch(1)))  # fmt: skip
    assert first != second and len(first) == len(second)


def test_an_index_on_disk_gives_the_same_samples_as_one_in_memory(write_corpus, caplog):
    prefix = write_corpus()
    built, fresh = (Source(prefix, "train", (0.0, 1.0), CUT) for _ in range(2))
    in_memory = [fresh.epoch(1)[i]["tokens"] for i in range(fresh.num_samples)]
    assert "tools/build_index.py" in caplog.text
    caplog.clear()
    built.build_index(1)
    assert all(torch.equal(built.epoch(1)[i]["tokens"], t) for i, t in enumerate(in_memory))
    assert not caplog.text


def test_a_new_corpus_of_the_same_name_gets_a_new_index(write_corpus):
    folders = {
        Source(write_corpus(seed=seed), "train", (0.0, 1.0), CUT).build_index(0) for seed in (1, 2)
    }
    assert len(folders) == 2


def test_a_source_travels_to_another_process(write_corpus):
    source = Source(write_corpus(), "train", (0.0, 1.0), CUT)
    expected = source.epoch(0)[3]["tokens"]
    copy = pickle.loads(pickle.dumps(source))
    assert torch.equal(copy.epoch(0)[3]["tokens"], expected)


def test_megatrons_switches_for_masks_reach_the_samples(write_corpus):
    prefix = write_corpus(vocab=6)  # ids 3 to 5, so that 4 as end of document is frequent
    switches = dict.fromkeys(("eod_mask_loss", "reset_position_ids", "reset_attention_mask"), True)
    cut = dataclasses.replace(CUT, eod=4, **switches)
    sample = Source(prefix, "train", (0.0, 1.0), cut).epoch(0)[0]
    ends = sample["tokens"] == 4
    assert torch.equal(sample["loss_mask"] == 0, ends)
    after = ends.nonzero().flatten()[0] + 1
    assert sample["position_ids"][after] == 0
    assert "attention_mask" not in sample  # seq^2 bytes; positions say as much
