import torch

from megatron_biollm.generation.scoring import score_places, score_tokens
from tests.generation import small_model
from tests.generation.small_model import layout

VOCABULARY = 301
TOKENS = torch.randint(0, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(3))


def scores(parallel, tokens):
    model = small_model.build_model(VOCABULARY, parallel)
    found = score_tokens(model, tokens, VOCABULARY)
    return found.log_probs, found.is_greedy


def scores_by_transformers(tokens):
    with torch.no_grad():
        logits = small_model.transformers_model(VOCABULARY)(tokens).logits[:, :-1]
    log_probs = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return log_probs, logits.argmax(-1) == tokens[:, 1:]


def likeliest_second_tokens(tokens):
    with torch.no_grad():
        return small_model.transformers_model(VOCABULARY)(tokens[:, :1]).logits[:, 0].argmax(-1)


def test_scores_are_those_of_transformers_in_every_layout(world):
    tokens = TOKENS.clone()
    (tokens[:, 1],) = world.run(1, likeliest_second_tokens, TOKENS)
    ((expected, is_greedy),) = world.run(1, scores_by_transformers, tokens)
    assert is_greedy[:, 0].all() and not is_greedy.all()
    for size, parallel in [(1, layout()), (2, layout(tp=2)), (4, layout(tp=2, pp=2))]:
        for found in world.run(size, scores, parallel, tokens):
            torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=1e-4)
            assert torch.equal(found[1], is_greedy)


def test_what_follows_a_token_does_not_change_its_score(world):
    other_end = TOKENS.clone()
    other_end[:, 8:] = 0
    ((log_probs, _),) = world.run(1, scores, layout(), TOKENS)
    ((others, _),) = world.run(1, scores, layout(), other_end)
    torch.testing.assert_close(log_probs[:, :7], others[:, :7])
    assert not torch.equal(log_probs, others)


def states_before_and_after(tokens):
    parallel = layout(tp=2, sequence_parallel=True)
    model = small_model.build_model(VOCABULARY, parallel, trainable=True)
    model.chunks[0].train()

    def state():
        modules = model.bare_chunks[0].modules()
        switches = [(m.training, getattr(m, "sequence_parallel", None)) for m in modules]
        return switches, model.config.sequence_parallel, torch.is_grad_enabled()

    before = state()
    found = score_tokens(model, tokens, VOCABULARY)
    assert any(sharded for _, sharded in before[0])
    return before == state(), found.log_probs


def test_a_model_in_training_goes_on_as_it_was(world):
    ((expected, _),) = world.run(1, scores, layout(), TOKENS)
    for same, log_probs in world.run(2, states_before_and_after, TOKENS):
        assert same
        torch.testing.assert_close(log_probs, expected, atol=1e-4, rtol=1e-4)


def scores_at_places(parallel, tokens, bf16):
    model = small_model.build_model(VOCABULARY, parallel, bf16=bf16)
    whole = score_tokens(model, tokens, VOCABULARY)
    rows, columns = [0, 0, 2, 1], [4, 4, 10, 0]
    targets = [int(tokens[0, 5]), 7, int(tokens[2, 11]), int(tokens[1, 1])]
    found = score_places(model, tokens, (rows, columns), targets, VOCABULARY)
    own = [0, 2, 3]
    expected = whole.log_probs[[0, 2, 1], [4, 10, 0]]
    greedy = whole.is_greedy[[0, 2, 1], [4, 10, 0]]
    return found.log_probs[own], expected, torch.equal(found.is_greedy[own], greedy)


def test_tokens_at_chosen_places_score_as_among_all(world):
    for bf16, parallel in [(False, layout(tp=2, pp=2)), (True, layout(tp=2))]:
        size = 4 if parallel.pipeline_model_parallel_size > 1 else 2
        for found, expected, alike in world.run(size, scores_at_places, parallel, TOKENS, bf16):
            torch.testing.assert_close(found, expected, atol=1e-4 if not bf16 else 2e-2, rtol=0)
            assert alike
