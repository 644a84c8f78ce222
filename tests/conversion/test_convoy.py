"""The parts of a conversion stay close to each other, and never wait for one another in a ring."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.conversion.convoy import Convoy, Route, Stopped
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.recipes.convert_steps import side_by_side

SIZES = ModelConfig(
    num_layers=3,
    hidden_size=8,
    num_attention_heads=2,
    num_query_groups=1,
    ffn_hidden_size=16,
    seq_length=8,
    vocab_size=32,
)


def road(*followers, ahead=10):
    """Three matrices of 10 bytes; what was passed goes into the list and is dropped at once."""
    passed = []

    def on_passed(index):
        passed.append(index)
        convoy.dropped(index + 1)

    route = Route([("a", "A"), ("b", "B1", "B2"), ("c", "C")], [10, 10, 10], frozenset())
    convoy = Convoy(route, followers, on_passed, ahead)
    return convoy, passed


def waits(pool, function, *arguments):
    """The call under way, which does not end by itself."""
    call = pool.submit(function, *arguments)
    assert not wait([call], timeout=0.05).done
    return call


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_a_follower_waits_for_what_it_reads_under_either_name(pool):
    convoy, _ = road("one")
    call = waits(pool, convoy.arrive, "one", "A")
    convoy.convert(1)
    call.result(5)
    convoy.arrive("one", "a")


def test_a_weight_is_passed_when_the_last_one_goes_on(pool):
    convoy, passed = road("one", "two", ahead=100)
    convoy.convert(3)
    convoy.arrive("one", "c")
    assert passed == []
    convoy.arrive("two", "B1")
    convoy.arrive("two", "B2")
    assert passed == [0]
    convoy.leave("one")
    convoy.leave("two")
    assert passed == [0, 1, 2]


def test_the_converter_waits_for_the_slowest(pool):
    convoy, passed = road("one", "two")
    convoy.convert(1)
    call = waits(pool, convoy.convert, 2)
    convoy.arrive("one", "b")
    assert not call.done()
    convoy.arrive("two", "b")
    call.result(5)
    assert passed == [0]


def test_who_leads_stays_near_the_converter(pool):
    convoy, _ = road("digests")
    convoy.lead("digests", 1)
    call = waits(pool, convoy.lead, "digests", 2)
    convoy.convert(1)
    call.result(5)


def test_after_a_failure_nobody_waits_and_the_leader_goes_on(pool):
    convoy, _ = road("one", "digests")
    call = waits(pool, convoy.arrive, "one", "a")
    convoy.stop()
    with pytest.raises(Stopped):
        call.result(5)
    convoy.lead("digests", 2)
    convoy.stop(at_once=True)
    with pytest.raises(Stopped):
        convoy.lead("digests", 2)


def test_what_was_dropped_may_be_told_late(pool):
    convoy, _ = road("one")
    convoy.leave("one")
    convoy.dropped(3)
    convoy.dropped(1)
    assert convoy.gone == 3


@pytest.mark.parametrize("ahead", [0, 10**9])
def test_any_room_suffices_for_the_order_in_which_models_read(pool, ahead):
    def dropped(index):
        threading.Timer(0.001, convoy.dropped, [index + 1]).start()

    route = Route.of(SIZES, 2)
    convoy = Convoy(route, ("one", "two", "digests"), dropped, ahead)

    # As transformers and core do: a layer's norms first, then its matrices.
    def turn(index):
        layer = re.search(r"layers\.(\d+)", route.names[index][0])
        after = -1 if index == 0 else int(layer[1]) if layer else SIZES.num_layers
        return after, index not in convoy.vectors, index

    def read(side):
        with convoy.follower(side):
            for index in sorted(range(convoy.count), key=turn):
                convoy.arrive(side, route.names[index][-1])

    def lead():
        with convoy.follower("digests"):
            for index in range(convoy.count):
                convoy.lead("digests", index)

    calls = [pool.submit(read, "one"), pool.submit(read, "two"), pool.submit(lead)]
    for count in range(1, convoy.count + 1):
        pool.submit(convoy.convert, count).result(5)
    for call in calls:
        call.result(5)
    assert convoy.passed == convoy.count


def test_the_error_told_is_of_the_part_that_failed_by_itself():
    convoy, _ = road("one", "digests")

    def convert():
        raise UserError("NaN")

    def follow():
        convoy.arrive("one", "a")

    with pytest.raises(UserError, match="NaN"):
        side_by_side(convoy, convert, follow)

    def damaged():
        raise UserError("the file was changed")

    with pytest.raises(UserError, match="was changed"):
        side_by_side(convoy, convert, follow, damaged)


def test_after_a_full_disk_no_more_digests_are_taken():
    convoy, _ = road("digests")

    def convert():
        raise OSError("no space left")

    def lead():
        while True:
            convoy.lead("digests", 0)

    with pytest.raises(OSError, match="no space left"):
        side_by_side(convoy, convert, lead)
