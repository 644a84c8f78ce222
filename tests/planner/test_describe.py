import pytest

from megatron_biollm.config import UserError
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.planner.describe import find_layout, parse_description, recomputation
from megatron_biollm.planner.search import Layout, Refused, search
from megatron_biollm.planner.summary import best_of_each, refusals, shape
from tests.planner.test_search import BIG, TINY, question


@pytest.fixture(scope="module")
def found():
    def speed(candidate):
        return 1 / candidate.micro_batch_size

    return search(question(BIG, 64, speed=speed, micro_batch_sizes=(1, 16)))


def test_a_description_is_read_in_any_case_and_order():
    read = parse_description("PP=2, tp=8 recompute=Full sharding=none")
    assert read == {"pp": 2, "tp": 8, "recompute": "full", "sharding": "none"}


@pytest.mark.parametrize("text", ["tp8", "tp=eight", "zero=1", "recompute=all", ""])
def test_what_cannot_be_read_is_refused_with_the_choices(text):
    with pytest.raises(UserError, match="tp=8 pp=2" if not text else "choose from tp=N"):
        parse_description(text)


def test_the_fastest_that_fits_is_found(found):
    layout = find_layout(found, {"tp": 8, "pp": 4})
    assert layout.refusal is None
    assert shape(layout.candidate.parallel) == (8, 4)
    assert layout.candidate.micro_batch_size == 1


def test_else_the_smallest_that_does_not(found):
    layout = find_layout(found, {"tp": 1, "pp": 4})
    assert isinstance(layout, Layout)
    assert "does not fit" not in layout.refusal
    assert layout.candidate.parallel.recompute_granularity == "full"
    assert layout.candidate.micro_batch_size == 1


def test_else_the_broken_rule(found):
    refused = find_layout(found, {"tp": 16, "pp": 2, "recompute": "full"})
    assert isinstance(refused, Refused)
    assert "model.num_query_groups=8" in refused.reason
    interleaved = find_layout(found, {"tp": 8, "pp": 8, "vpp": 5, "cp": 1, "mbs": 1, "dp": 1})
    assert isinstance(interleaved, Layout)


def test_what_divides_nothing_is_said_so(found):
    with pytest.raises(UserError, match="no layout has tp=3: TP x PP x CP must divide the GPUs"):
        find_layout(found, {"tp": 3})


def test_one_layout_of_each_tp_and_pp_is_kept(found):
    best = best_of_each(found)
    shapes = [shape(layout.candidate.parallel) for layout in best]
    assert len(set(shapes)) == len(shapes)
    assert best[0] == found.fitting[0]
    assert {shape(layout.candidate.parallel) for layout in found.fitting} == set(shapes)


def test_refusals_name_each_shape_that_nothing_fits_once(found):
    entries = dict(refusals(found))
    fitting = {f"TP{tp} x PP{pp}" for tp, pp in map(shape_of, best_of_each(found))}
    assert not fitting & entries.keys()
    memory = entries["TP1 x PP4"]
    assert memory.startswith("even with micro-batches of 1, recompute full, the optimizer sharded")
    groups = [names for names, why in entries.items() if "num_query_groups=8 is not" in why]
    assert groups == ["TP16 x PP1, TP16 x PP2, TP16 x PP4, TP32 x PP1, TP32 x PP2, TP64 x PP1"]


def shape_of(layout):
    return shape(layout.candidate.parallel)


def test_recomputation_has_a_short_name():
    block = {"recompute_method": "block", "recompute_num_layers": 3}
    for fields, name in [
        ({}, "none"),
        ({"recompute_granularity": "selective"}, "core_attn"),
        ({"recompute_granularity": "full"}, "full"),
        ({"recompute_granularity": "full", **block}, "full block 3"),
    ]:
        assert recomputation(ParallelConfig(**fields)) == name


def test_a_refused_batch_is_found_by_its_micro_batch_size():
    refused = find_layout(search(question(TINY, 6)), {"tp": 1, "pp": 1, "mbs": 16})
    assert "training.micro_batch_size=16" in refused.reason
