import pytest

from megatron_biollm.evaluation.live_model import LiveModel, shared_rows
from tests.generation import small_model
from tests.generation.small_model import layout

pytest.importorskip("lm_eval", reason="parity with lm-eval needs it, of the eval extra")
from megatron_biollm.evaluation.harness import HarnessModel
from tests.evaluation import harness_requests


def answers(tokenizer_folder, parallel, batch_tokens=256):
    generator = small_model.build_generator(tokenizer_folder, parallel)
    return harness_requests.answers(HarnessModel(LiveModel(generator, batch_tokens)))


@pytest.fixture(scope="module")
def expected(export):
    return harness_requests.answers_of_hf(export)


def check_equal(found, expected):
    for (value, is_greedy), (theirs, also_greedy) in zip(found[0], expected[0], strict=True):
        assert abs(value - theirs) < 1e-4 and is_greedy == also_greedy
    # Of texts whose sums float32 holds to 1e-4 only, that much for each of its digits.
    assert found[1] == pytest.approx(expected[1], abs=1e-4, rel=2e-7)
    assert found[2] == expected[2]


@pytest.mark.parametrize(
    ("size", "parallel"),
    [(1, layout()), (2, layout(tp=2)), (2, layout(pp=2)), (8, layout(tp=2, pp=2))],
    ids=["one process", "TP2", "PP2", "TP2xPP2xDP2"],
)
def test_answers_are_those_of_hf_on_the_export(world, tokenizer_folder, expected, size, parallel):
    for found in world.run(size, answers, tokenizer_folder, parallel):
        check_equal(found, expected)


def test_a_tokenizer_that_adds_nothing_is_asked_as_by_hf(
    world, plain_tokenizer_folder, plain_export
):
    (found,) = world.run(1, answers, plain_tokenizer_folder, layout())
    check_equal(found, harness_requests.answers_of_hf(plain_export))


def test_inputs_that_begin_others_share_their_row():
    inputs = [(1, 2), (1, 2, 3), (1, 2), (1, 2, 4), (2,), (1,)]
    rows = shared_rows(inputs)
    assert sorted(i for members in rows.values() for i in members) == list(range(6))
    assert len(rows) == 3
    assert all(row[: len(inputs[i])] == inputs[i] for row, members in rows.items() for i in members)
