import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.budget import blend, token_shares
from megatron_biollm.corpus.config import SourceConfig


def shares(tokens, train_tokens=None, **sources):
    return {s.source: s for s in token_shares(tokens, sources, train_tokens)}


def test_epochs_upsample_a_source_and_what_is_repeated_is_told():
    mixture = shares({"pubmed": 100, "pmc": 300}, pubmed=SourceConfig(epochs=3))
    assert mixture["pubmed"].sampled_tokens == 300 and mixture["pubmed"].repeated_tokens == 200
    assert mixture["pubmed"].weight == mixture["pmc"].weight == 0.5
    assert mixture["pmc"].repeated_tokens == 0


def test_a_budget_caps_a_source():
    mixture = shares({"a": 100, "b": 900}, b=SourceConfig(token_budget=100))
    assert mixture["b"].sampled_tokens == 100 and mixture["b"].weight == 0.5


def test_a_longer_run_repeats_all_sources_alike():
    mixture = shares({"a": 100, "b": 100}, train_tokens=4000)
    assert [s.epochs for s in mixture.values()] == [20, 20]
    assert sum(s.sampled_tokens for s in mixture.values()) == 4000
    assert sum(s.repeated_tokens for s in mixture.values()) == 3800


def test_epochs_0_leave_a_source_out_and_nothing_left_is_refused():
    assert list(shares({"a": 1, "b": 1}, a=SourceConfig(epochs=0))) == ["b"]
    with pytest.raises(UserError, match="no token is left"):
        shares({"a": 1}, a=SourceConfig(epochs=0))
    with pytest.raises(UserError, match="epochs is -1"):
        SourceConfig(epochs=-1)


def test_a_blend_deals_a_sources_weight_out_by_tokens():
    mixture = token_shares({"a": 100, "b": 100}, {}, None)
    assert blend(mixture, {"a": {"a0": 25, "a1": 75, "a2": 0}, "b": {"b0": 100}}) == [
        "0.125", "a0", "0.375", "a1", "0.5", "b0",
    ]  # fmt: skip
