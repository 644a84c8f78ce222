import random
from pathlib import Path

import pytest
from megatron.core.datasets.blended_megatron_dataset_config import (
    convert_split_vector_to_split_matrix,
    parse_and_normalize_split,
)

from megatron_biollm.data.layout import read_layout
from megatron_biollm.data.parts import Corpora, Part, SampleSettings, split_shares

CUT = SampleSettings(seq_length=16, seed=1234, eod=2)


def test_splits_lie_where_core_puts_them():
    draw = random.Random(0)
    texts = ["969,30,1", "1,0,1", "0,1", "1", ".5,.25,.25", "0.1,0.2,0.7"]
    texts += [",".join(f"{draw.random():.3f}" for _ in range(3)) for _ in range(300)]
    for text in texts:
        core = convert_split_vector_to_split_matrix(parse_and_normalize_split(text))
        assert split_shares(text) == core, text


@pytest.mark.parametrize("share", [(0.0, 1.0), (0.0, 0.3), (0.3, 0.9), (0.9, 1.0), (0.5, 0.5)])
def test_tokens_are_counted_without_reading_the_lengths(write_corpus, share):
    prefix = write_corpus(documents=83)
    part = Part(prefix, "train", share, CUT)
    lengths = read_layout(prefix).sequence_lengths()[part.first : part.end]
    assert part.tokens == lengths.sum() and part.num_samples == max(part.tokens - 1, 0) // 16


def test_the_index_of_a_corpus_lies_beside_it_or_where_the_run_says(write_corpus, tmp_path):
    prefix = write_corpus()
    assert Corpora().store(prefix).folder == tmp_path / "index"
    corpora = Corpora(str(tmp_path / "cache"))
    assert corpora.store(prefix).folder == tmp_path / "cache"
    assert corpora.store(prefix) is corpora.store(str(Path(prefix).with_name("other")))
