"""Preference losses against the papers' formulas, by numbers worked out in plain Python."""

import math

import pytest
import torch

from megatron_biollm.config import UserError
from megatron_biollm.finetune.preference_config import PAIR_LOSSES, PreferenceLossConfig
from megatron_biollm.finetune.preference_loss import (
    PairLogps,
    kto_divergence,
    kto_losses,
    pair_losses,
    reward_losses,
    sft_losses,
)
from megatron_biollm.finetune.preference_metrics import pair_metrics, reward_metrics

# h_w = -2, h_l = -7 over 4 and 10 tokens.
H_W, H_L, TOKENS_W, TOKENS_L = -2.0, -7.0, 4, 10


def sigma(x):
    return 1 / (1 + math.exp(-x))


def row(*values):
    return torch.tensor(values, dtype=torch.float64)


def pair(h_w=H_W, h_l=H_L):
    return PairLogps(
        row(-20.0 + h_w), row(-40.0 + h_l), row(-20.0), row(-40.0), row(TOKENS_W), row(TOKENS_L)
    )


def loss(logps, **options):
    return pair_losses(logps, PreferenceLossConfig(**options)).item()


def test_dpo_at_the_reference_is_log_2():
    assert loss(pair(0.0, 0.0)) == pytest.approx(math.log(2), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"loss_type": "sigmoid", "beta": 0.1}, -math.log(sigma(0.5))),
        (
            {"loss_type": "cdpo", "beta": 0.1, "label_smoothing": 0.2},
            -0.8 * math.log(sigma(0.5)) - 0.2 * math.log(sigma(-0.5)),
        ),
        (
            {"loss_type": "robust", "beta": 0.1, "label_smoothing": 0.2},
            (-0.8 * math.log(sigma(0.5)) + 0.2 * math.log(sigma(-0.5))) / 0.6,
        ),
        ({"loss_type": "ipo", "beta": 0.1}, ((-2 / 4 + 7 / 10) - 5) ** 2),
        ({"loss_type": "ipo_sum", "beta": 0.1}, 0.0),  # Delta = 5 = 1 / (2 beta), the optimum
        ({"loss_type": "ipo_sum", "beta": 0.5}, (5 - 1) ** 2),
        ({"loss_type": "sigmoid_norm", "beta": 5.0}, -math.log(sigma(5 * (-2 / 4 + 7 / 10)))),
        ({"loss_type": "hinge", "beta": 0.1}, 0.5),
        ({"loss_type": "hinge", "beta": 1.0}, 0.0),
        ({"beta": 0.1, "sft_weight": 0.3}, -math.log(sigma(0.5)) + 0.3 * 22 / 4),
    ],
)
def test_every_loss_is_the_papers_formula(options, expected):
    assert loss(pair(), **options) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_cdpo_and_robust_without_smoothing_are_dpo():
    for name in ("cdpo", "robust"):
        assert loss(pair(), loss_type=name) == pytest.approx(loss(pair()), rel=1e-12)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_swapping_the_answers_turns_the_sign_of_delta(name):
    one = pair()
    other = PairLogps(
        one.rejected,
        one.chosen,
        one.reference_rejected,
        one.reference_chosen,
        one.rejected_tokens,
        one.chosen_tokens,
    )
    assert other.delta == -one.delta
    assert other.delta_per_token == -one.delta_per_token
    assert loss(other, loss_type=name) > loss(one, loss_type=name)


def test_dpo_s_gradient_weighs_pairs_by_how_wrong_they_are():
    logps = pair()
    logps.chosen.requires_grad_()
    pair_losses(logps, PreferenceLossConfig(beta=0.1)).sum().backward()
    assert logps.chosen.grad.item() == pytest.approx(-0.1 * sigma(-0.5), rel=1e-12)


def test_a_hopeless_pair_has_a_finite_loss_and_gradient():
    logps = pair(-1e6, 0.0)
    logps.chosen.requires_grad_()
    value = pair_losses(logps, PreferenceLossConfig(beta=1.0)).sum()
    value.backward()
    assert value.item() == pytest.approx(1e6)
    assert logps.chosen.grad.item() == pytest.approx(-1.0)


def test_kto_is_the_papers_formula_for_good_and_for_bad_answers():
    config = PreferenceLossConfig(
        loss_type="kto", beta=0.5, desirable_weight=1.5, undesirable_weight=0.7
    )
    losses = kto_losses(row(-9.0, -9.0), row(-11.0, -11.0), row(1, 0).bool(), row(0.4)[0], config)
    expected = [1.5 * (1 - sigma(0.5 * (2 - 0.4))), 0.7 * (1 - sigma(0.5 * (0.4 - 2)))]
    assert losses.tolist() == pytest.approx(expected, rel=1e-12)


def test_kto_s_divergence_is_never_negative_and_has_no_gradient():
    logps = row(-10.0, -12.0).requires_grad_()
    assert kto_divergence(logps, row(-11.0, -14.0)).item() == 1.5
    assert not kto_divergence(logps, row(-11.0, -14.0)).requires_grad
    assert kto_divergence(logps, row(0.0, 0.0)).item() == 0.0


def test_kto_on_pairs_is_refused():
    with pytest.raises(UserError, match="kto does not work on pairs"):
        loss(pair(), loss_type="kto")


def test_the_reward_loss_is_the_hand_formula_with_margin_and_centering():
    chosen, rejected = row(1.2, -0.3), row(0.2, 0.4)
    expected = [-math.log(sigma(1.0)), -math.log(sigma(-0.7))]
    assert reward_losses(chosen, rejected).tolist() == pytest.approx(expected, abs=1e-12)
    with_more = reward_losses(chosen, rejected, margin=row(0.5, 0.0), center_weight=0.01)
    expected = [-math.log(sigma(0.5)) + 0.01 * 1.4**2, -math.log(sigma(-0.7)) + 0.01 * 0.1**2]
    assert with_more.tolist() == pytest.approx(expected, abs=1e-12)


def test_an_empty_answer_does_not_divide_by_zero():
    assert sft_losses(row(0.0), row(0)).item() == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "dpo"}, "loss_type='dpo' is unknown; use one of sigmoid"),
        ({"beta": 0.0}, "beta=0.0 must be above 0"),
        ({"loss_type": "robust", "label_smoothing": 0.5}, "0 to below 0.5"),
        ({"label_smoothing": 0.1}, "use cdpo or robust"),
        ({"sft_weight": -1.0}, "sft_weight=-1.0 is a weight"),
    ],
)
def test_constants_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        PreferenceLossConfig(**options)


def test_metrics_add_up_over_pairs():
    two = PairLogps(
        row(-22.0, -9.0),
        row(-47.0, -9.0),
        row(-20.0, -10.0),
        row(-40.0, -12.0),
        row(4, 2),
        row(10, 6),
    )
    means = {n: (total / weight).item() for n, (total, weight) in pair_metrics(two, 0.1).items()}
    assert means == pytest.approx(
        {
            "rewards/chosen": 0.1 * (-2 + 1) / 2,
            "rewards/rejected": 0.1 * (-7 + 3) / 2,
            "rewards/margins": 0.1 * (5 - 2) / 2,
            "rewards/accuracies": 0.5,
            "logps/chosen": -15.5,
            "logps/rejected": -28.0,
            "logps/chosen_falling": 0.5,
            "lengths/chosen": 3.0,
            "lengths/rejected": 8.0,
            "kl": (-4.5 + 2.0) / 2,
        }
    )


def test_reward_metrics_count_pairs_ranked_as_people_do():
    metrics = reward_metrics(row(1.0, 0.0, 2.0), row(0.5, 0.0, 3.0))
    assert [x.item() for x in metrics["accuracy"]] == [1.0, 3.0]  # a tie is no hit
    assert metrics["margin"][0].item() == pytest.approx(-0.5)
