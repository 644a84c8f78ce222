import pytest
import torch

from megatron_biollm.config import UserError
from megatron_biollm.generation.sampling import (
    SamplingOptions,
    allowed_probabilities,
    choose,
    row_generators,
)

LOGITS = torch.tensor([0.1, 0.4, 0.2, 0.25, 0.05]).log()


def shares(options, count=4000):
    generator = torch.Generator().manual_seed(1)
    drawn = [choose(LOGITS, options, generator) for _ in range(count)]
    return torch.bincount(torch.tensor(drawn), minlength=5) / count


def test_tokens_are_drawn_as_often_as_they_are_likely():
    torch.testing.assert_close(shares(SamplingOptions()), LOGITS.exp(), atol=0.03, rtol=0)


def test_temperature_sharpens_and_flattens():
    for temperature in (0.5, 2.0):
        expected = (LOGITS / temperature).softmax(0)
        found = shares(SamplingOptions(temperature=temperature))
        torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


def test_top_k_leaves_the_k_likeliest():
    probabilities = allowed_probabilities(LOGITS, SamplingOptions(top_k=2))
    torch.testing.assert_close(probabilities, torch.tensor([0, 0.4, 0, 0.25, 0]) / 0.65)
    assert shares(SamplingOptions(top_k=1))[1] == 1


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, [1]), (0.41, [1, 3]), (0.66, [1, 2, 3]), (0.86, [0, 1, 2, 3])]
)
def test_top_p_leaves_the_likeliest_that_reach_it(top_p, kept):
    probabilities = allowed_probabilities(LOGITS, SamplingOptions(top_p=top_p))
    assert probabilities.nonzero()[:, 0].tolist() == kept


def test_greedy_takes_the_likeliest_and_draws_nothing():
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    assert choose(LOGITS, SamplingOptions(greedy=True), generator) == 1
    assert torch.equal(generator.get_state(), before)


def test_a_token_without_probability_is_never_drawn():
    logits = torch.tensor([float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")])
    generator = torch.Generator().manual_seed(1)
    drawn = {choose(logits, SamplingOptions(), generator) for _ in range(500)}
    assert drawn == {1, 3}


def test_logits_that_are_not_numbers_give_no_token():
    logits = torch.tensor([0.0, float("nan")])
    assert choose(logits, SamplingOptions(greedy=True), torch.Generator()) == -1


def test_chance_belongs_to_a_prompt_and_not_to_its_place():
    def first(prompts):
        return [torch.rand((), generator=g).item() for g in row_generators(3, prompts)]

    a, b = first([[1, 2], [3]])
    assert first([[3], [1, 2], [3]])[:2] == [b, a]
    assert len({*first([[3], [3], [3]])}) == 3


@pytest.mark.parametrize(
    "values",
    [{"max_new_tokens": 0}, {"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}],
)
def test_numbers_out_of_range_are_refused_with_their_rule(values):
    ((name, value),) = values.items()
    with pytest.raises(UserError, match=f"{name}={value} must be"):
        SamplingOptions(**values)
