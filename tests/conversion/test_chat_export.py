"""A model that was trained on conversations: its export answers in the same form."""

import json

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from megatron_biollm.config import UserError
from megatron_biollm.generation.sampling import SamplingOptions
from megatron_biollm.recipes.convert import ConversionConfig, export_to_hf, import_from_hf
from megatron_biollm.recipes.generate import generate
from megatron_biollm.tokenizer.chat_template import load_chat_template
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer

CHATS = [
    [{"role": "user", "content": "What is hepatitis?"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hepatitis </s> or not?"},
        {"role": "assistant", "content": "or not"},
        {"role": "user", "content": "and cardiology?"},
    ],
]


def export(model, tokenizer, work):
    """A checkpoint that carries the tokenizer and what it carries, and its export."""
    tokenizer.save_pretrained(work / "tokenizer")
    import_from_hf(ConversionConfig(model, work / "checkpoints", tokenizer=work / "tokenizer"))
    export_to_hf(ConversionConfig(work / "checkpoints", work / "out"))
    return work / "checkpoints", work / "out"


def answers(checkpoints, chats):
    options = SamplingOptions(max_new_tokens=12, greedy=True)
    return [
        (row.prompt_tokens, row.tokens) for row in generate(checkpoints, chats, options, 1, "cpu")
    ]


@pytest.fixture
def tokenizer(tokenizer_folder):
    return build_tokenizer(TokenizerConfig(tokenizer_model=str(tokenizer_folder)))


@pytest.mark.parametrize("name", ["default", "llama2"])
def test_transformers_asks_and_answers_with_the_same_ids(world, make_hf, tokenizer, tmp_path, name):
    load_chat_template(tokenizer, name)
    model = make_hf(vocab_size=tokenizer.vocab_size, max_position_embeddings=256)
    checkpoints, out = export(model, tokenizer, tmp_path)
    (ours,) = world.run(1, answers, checkpoints, CHATS, joined=False)
    theirs, reader = LlamaForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    for chat, (prompt, tokens) in zip(CHATS, ours, strict=True):
        asked = reader.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
        ids = asked["input_ids"]
        assert ids[0].tolist() == prompt
        with torch.no_grad():
            written = theirs.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
        assert written[0, len(prompt) :].tolist() == tokens


def test_a_stop_token_of_its_own_ends_generation_of_the_export(make_hf, tokenizer, tmp_path):
    backend = tokenizer.transformers_tokenizer
    backend.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    backend.save_pretrained(tmp_path / "with_end")
    own = build_tokenizer(TokenizerConfig(tokenizer_model=str(tmp_path / "with_end")))
    source = tmp_path / "own.jinja"
    source.write_text(
        "{{ bos_token }}{% for m in messages %}{{ '[' + m['role'] + ']' }}"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ ' ' + m['content'] + '<|end|>' }}"
        "{% endgeneration %}{% else %}{{ ' ' + m['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
    )
    template = load_chat_template(own, str(source))
    assert template.stop_id == own.vocab_size - 1 != own.eod
    _, out = export(make_hf(vocab_size=own.vocab_size), own, tmp_path)
    ends = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [template.stop_id, own.eod]


def test_a_template_that_came_with_a_model_leaves_as_it_came(make_hf, tokenizer, tmp_path):
    own = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    tokenizer.chat_template = own
    _, out = export(make_hf(vocab_size=tokenizer.vocab_size), tokenizer, tmp_path)
    assert (out / "chat_template.jinja").read_text() == own
    assert json.loads((out / "tokenizer_config.json").read_text())["split_special_tokens"]
    assert not (out / "chat_template_training.jinja").exists()


def test_a_conversation_that_cannot_be_answered_is_refused(world, make_hf, tokenizer, tmp_path):
    model = make_hf(vocab_size=tokenizer.vocab_size)
    checkpoints, _ = export(model, tokenizer, tmp_path)
    answered = [*CHATS[0], {"role": "assistant", "content": "So."}]
    assert (
        "end it with the user's" in world.run(1, refusal, checkpoints, [answered], joined=False)[0]
    )
    long = [{"role": "user", "content": "hepatitis " * 200}]
    assert (
        "the model's context is 128" in world.run(1, refusal, checkpoints, [long], joined=False)[0]
    )


def refusal(checkpoints, chats):
    with pytest.raises(UserError) as error:
        answers(checkpoints, chats)
    return str(error.value)
