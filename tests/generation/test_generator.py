import pytest
import torch

from megatron_biollm.config import UserError
from megatron_biollm.generation.forward import inference
from megatron_biollm.generation.generator import Generator
from megatron_biollm.generation.sampling import SamplingOptions
from megatron_biollm.generation.scoring import score_tokens
from tests.generation import small_model
from tests.generation.small_model import CONTEXT, layout, plain

PROMPTS = [[5, 300, 17, 42, 8], [9, 11, 250], [200, 31, 77, 64, 5, 120, 399, 12, 90]]
GREEDY = SamplingOptions(max_new_tokens=30, greedy=True)
SAMPLED = SamplingOptions(max_new_tokens=20, temperature=1.3, top_k=50, top_p=0.9, seed=7)
LAYOUTS = {
    "TP2": (2, layout(tp=2)),
    "PP2": (2, layout(pp=2)),
    "TP2xPP2": (4, layout(tp=2, pp=2)),
    "TP2 in two replicas": (4, layout(tp=2)),
}


def written(folder, parallel, options, prompts, trainable=False, bf16=False):
    generator = small_model.build_generator(folder, parallel, trainable, bf16)
    return plain(generator.generate(prompts, options))


@pytest.fixture(scope="module")
def alone(world, tokenizer_folder):
    """Greedy and sampled continuations of one process."""
    return {
        options: world.run(1, written, tokenizer_folder, layout(), options, PROMPTS)[0]
        for options in (GREEDY, SAMPLED)
    }


def transformers_greedy(vocab_size, prompts, eod):
    model = small_model.transformers_model(vocab_size)
    return [
        model.generate(
            torch.tensor([prompt]), max_new_tokens=30, do_sample=False, eos_token_id=eod,
            pad_token_id=eod,
        )[0, len(prompt):].tolist()
        for prompt in prompts
    ]  # fmt: skip


def test_greedy_continuations_are_those_of_transformers(world, alone, tokenizer):
    (expected,) = world.run(1, transformers_greedy, tokenizer.vocab_size, PROMPTS, tokenizer.eod)
    end = {"eod": [tokenizer.eod], "length": []}
    rows = alone[GREEDY]
    assert [row["tokens"] + end[row["finish_reason"]] for row in rows] == expected
    assert all(len(set(tokens)) > 8 for tokens in expected)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("options", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_every_rank_of_every_layout_writes_the_same(world, alone, tokenizer_folder, name, options):
    size, parallel = LAYOUTS[name]
    assert (
        world.run(size, written, tokenizer_folder, parallel, options, PROMPTS)
        == [alone[options]] * size
    )


def test_a_model_in_training_with_sequence_parallelism_writes_the_same(
    world, alone, tokenizer_folder
):
    parallel = layout(tp=2, sequence_parallel=True)
    rows = world.run(2, written, tokenizer_folder, parallel, GREEDY, PROMPTS, True)
    assert rows == [alone[GREEDY]] * 2


def test_pipeline_stages_write_the_same_in_bf16(world, tokenizer_folder):
    arguments = (GREEDY, PROMPTS, True, True)
    (expected,) = world.run(1, written, tokenizer_folder, layout(), *arguments)
    assert world.run(2, written, tokenizer_folder, layout(pp=2), *arguments) == [expected] * 2


def greedy_by_scores(folder, rows):
    """Whether each written token is the likeliest, computed anew from all tokens before it."""
    generator = small_model.build_generator(folder, layout())
    found = []
    for row in rows:
        tokens = torch.tensor([row["prompt_tokens"] + row["tokens"]])
        scores = score_tokens(generator.model, tokens, generator.tokenizer.vocab_size)
        found.append(scores.is_greedy[0, len(row["prompt_tokens"]) - 1 :].all().item())
    return found


def test_the_cache_changes_no_token(world, alone, tokenizer_folder):
    assert world.run(1, greedy_by_scores, tokenizer_folder, alone[GREEDY]) == [[True] * 3]
    assert world.run(1, greedy_by_scores, tokenizer_folder, alone[SAMPLED]) == [[False] * 3]


@pytest.mark.parametrize("options", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_text_does_not_depend_on_the_rest_of_its_batch(world, alone, tokenizer_folder, options):
    for prompt, row in zip(PROMPTS, alone[options], strict=True):
        assert world.run(1, written, tokenizer_folder, layout(), options, [prompt]) == [[row]]


def test_samples_of_one_prompt_differ_and_another_seed_gives_others(world, tokenizer_folder):
    def texts(seed):
        options = SamplingOptions(max_new_tokens=20, seed=seed)
        (rows,) = world.run(1, written, tokenizer_folder, layout(), options, PROMPTS[:1] * 2)
        return [tuple(row["tokens"]) for row in rows]

    assert len({*texts(1), *texts(2)}) == 4
    assert texts(1) == texts(1)


def with_other_end(folder, eod):
    generator = small_model.build_generator(folder, layout())
    generator.tokenizer.eod = eod
    return plain(generator.generate(PROMPTS[:1], GREEDY))


def test_a_continuation_ends_at_the_end_of_the_document(world, alone, tokenizer_folder):
    tokens = alone[GREEDY][0]["tokens"]
    end = next(i for i, token in enumerate(tokens) if i > 3 and token not in tokens[:i])
    ((row,),) = world.run(1, with_other_end, tokenizer_folder, tokens[end])
    assert (row["tokens"], row["finish_reason"]) == (tokens[:end], "eod")


def stopped_by_caller(folder):
    generator = small_model.build_generator(folder, layout(tp=2))
    pieces = {0: "", 1: ""}

    def on_text(row, piece):
        pieces[row] += piece
        return row == 0 and len(pieces[0]) > 8

    return plain(generator.generate(PROMPTS[:2], GREEDY, on_text)), pieces


def test_the_caller_sees_the_text_as_it_comes_and_may_end_it(world, alone, tokenizer_folder):
    (rows, pieces), same = world.run(2, stopped_by_caller, tokenizer_folder)
    assert (rows, pieces) == same
    assert [row["text"] for row in rows] == list(pieces.values())
    assert rows[0]["finish_reason"] == "stopped" and len(rows[0]["text"]) > 8
    assert alone[GREEDY][0]["text"].startswith(rows[0]["text"]) and rows[1] == alone[GREEDY][1]


def until_the_context_is_full(folder):
    generator = small_model.build_generator(folder, layout(pp=2))
    options = SamplingOptions(max_new_tokens=1000, greedy=True)
    rows = generator.generate([[7] * 3, [7] * (CONTEXT - 1)], options)
    with pytest.raises(UserError) as error:
        generator.generate([[7] * CONTEXT], options)
    return [(len(row.tokens), row.finish_reason) for row in rows], str(error.value)


def test_the_context_ends_a_text_and_refuses_a_prompt_that_fills_it(world, tokenizer_folder):
    for ends, message in world.run(2, until_the_context_is_full, tokenizer_folder):
        assert ends == [(CONTEXT - 3, "length"), (1, "length")]
        assert f"{CONTEXT} tokens" in message and "shorten the prompt" in message


def with_weights_that_are_not_numbers(folder):
    generator = small_model.build_generator(folder, layout(pp=2))
    with torch.no_grad():
        generator.model.chunks[0].decoder.layers[0].mlp.linear_fc2.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="older checkpoint") as error:
        generator.generate(PROMPTS, GREEDY)
    return str(error.value)


def test_a_model_that_has_diverged_is_refused_by_every_rank(world, tokenizer_folder):
    assert len(world.run(2, with_weights_that_are_not_numbers, tokenizer_folder)) == 2


def fp8_within_inference(folder):
    model = small_model.build_generator(folder, layout()).model
    model.config.fp8 = "hybrid"
    with inference(model):
        inside = model.config.fp8
    return inside, model.config.fp8


def test_a_model_that_trains_in_fp8_writes_in_bf16(world, tokenizer_folder):
    # Single tokens do not fill a matrix product of FP8.
    assert world.run(1, fp8_within_inference, tokenizer_folder) == [(None, "hybrid")]


def refusal_of(folder, parallel):
    with pytest.raises(UserError) as error:
        small_model.build_generator(folder, parallel)
    return str(error.value)


def test_layouts_that_cannot_generate_are_refused(world, tokenizer_folder):
    interleaved = layout(pp=2, virtual_pipeline_model_parallel_size=2)
    assert "interleaves" in world.run(2, refusal_of, tokenizer_folder, interleaved)[0]
    sharded = layout(context_parallel_size=2)
    assert "context_parallel_size=2" in world.run(2, refusal_of, tokenizer_folder, sharded)[0]


def encoded(folder, prompts):
    generator = small_model.build_generator(folder, layout())
    assert isinstance(generator, Generator)
    return [generator.encode(prompt) for prompt in prompts]


def test_an_empty_prompt_begins_a_document(world, tokenizer_folder, tokenizer):
    (ids,) = world.run(1, encoded, tokenizer_folder, ["", "the cells"])
    assert ids == [[tokenizer.eod], tokenizer.encode("the cells")]


def written_with(folder, options, batch_size=0):
    generator = small_model.build_generator(folder, layout())
    told = []
    rows = generator.generate(PROMPTS * 2, options, lambda row, _: told.append(row), batch_size)
    return plain(rows), set(told)


def test_the_size_of_batches_changes_no_text(world, tokenizer_folder):
    rows = [world.run(1, written_with, tokenizer_folder, SAMPLED, size)[0] for size in (0, 1, 4)]
    assert rows[0] == rows[1] == rows[2] and max(rows[0][1]) == 5


def test_a_stop_token_ends_a_text_and_is_not_part_of_it(world, alone, tokenizer_folder):
    (row, *_) = alone[GREEDY]
    stop = next(token for token in row["tokens"][5:] if token not in row["tokens"][:5])
    options = SamplingOptions(max_new_tokens=30, greedy=True, stop_ids=(stop,))
    ((rows, _),) = world.run(1, written_with, tokenizer_folder, options)
    assert rows[0]["tokens"] == row["tokens"][: row["tokens"].index(stop)]
    assert rows[0]["finish_reason"] == "eod"
