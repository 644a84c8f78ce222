import math
from collections import Counter

import pytest

from megatron_biollm.data.blend import BlendedSamples


def places(blend, samples):
    return [blend.locate(i) for i in range(samples)]


def test_weights_are_met_exactly():
    drawn = Counter(
        p.source for p in places(BlendedSamples(["0.7", "0.2", "0.1"], [9, 9, 9]), 1000)
    )
    assert drawn == {0: 700, 1: 200, 2: 100}


@pytest.mark.parametrize("weights", [["0.7", "0.3"], [1, 1, 1], ["0.003", "5", "1e-2", "2"]])
def test_every_prefix_is_within_the_depth_of_the_tree_of_its_share(weights):
    blend = BlendedSamples(weights, [10] * len(weights))
    total, drawn = sum(map(float, weights)), Counter()
    for samples, place in enumerate(places(blend, 2000), start=1):
        drawn[place.source] += 1
        for source, weight in enumerate(weights):
            assert (
                abs(drawn[source] - samples * float(weight) / total)
                <= math.ceil(math.log2(len(weights))) + 1e-9
            )
            assert drawn[source] == blend.count(source, samples)


def test_a_source_gives_each_sample_once_an_epoch():
    taken = [p for p in places(BlendedSamples([2, 1], [7, 4]), 60) if p.source == 0]
    assert [(p.epoch, p.sample) for p in taken] == [divmod(i, 7) for i in range(40)]


def test_evaluation_begins_again_with_the_same_epoch():
    ends = places(BlendedSamples([1], [3], endless=False), 7)
    assert [(p.epoch, p.sample) for p in ends] == [(0, i % 3) for i in range(7)]


def test_a_tenth_is_a_tenth_after_a_trillion_samples():
    blend = BlendedSamples(["0.1", "0.9"], [5, 5])
    assert blend.count(0, 10**12) == 10**11


def test_negative_indices_are_refused():
    with pytest.raises(IndexError, match="-1 is below 0"):
        BlendedSamples([1], [3]).locate(-1)
