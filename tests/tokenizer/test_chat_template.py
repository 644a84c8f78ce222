import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.chat_template import load_chat_template
from megatron_biollm.tokenizer.template_source import TEMPLATE_FILE, TRAINING_TEMPLATE_FILE
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer
from tests.tokenizer.chats import CHATS, say

TEMPLATES = ("default", "llama2")
KQA = Path(__file__).parents[3] / "shared/data/benchmarks/align_kqa/questions_w_answers.jsonl"
MISTRAL = importlib.util.find_spec("mistral_common")
KINDS = ("hugging face", "sentencepiece")


@pytest.fixture(params=KINDS)
def tokenizer(request, hf_folder, sentencepiece_file):
    """A small one of each kind; "mistral" is the real one of 32,000 pieces."""
    if request.param == "hugging face":
        return build_tokenizer(TokenizerConfig(tokenizer_model=str(hf_folder)))
    if request.param == "mistral" and MISTRAL is None:
        pytest.skip("mistral-common is not installed")
    file = sentencepiece_file
    if request.param == "mistral":
        file = Path(MISTRAL.submodule_search_locations[0]) / "data/tokenizer.model.v1"
    return build_tokenizer(TokenizerConfig("Llama2Tokenizer", str(file)))


def with_a_real_one(test):
    return pytest.mark.parametrize("tokenizer", [*KINDS, "mistral"], indirect=True)(test)


def exported(tokenizer, template, folder):
    """The tokenizer as `transformers` loads it from an export, and the file to train with."""
    tokenizer.save_pretrained(folder)
    template.save(folder, for_inference=True)
    return AutoTokenizer.from_pretrained(folder), (folder / TRAINING_TEMPLATE_FILE).read_text()


def learnt(template, chat):
    """The text of each run of tokens that are learnt."""
    runs, previous = [], False
    for token, on in zip(chat.tokens, chat.loss_mask, strict=True):
        if on and not previous:
            runs.append([])
        if on:
            runs[-1].append(token)
        previous = on
    return [template.decode(run).strip() for run in runs]


@with_a_real_one
@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_and_mask_are_those_of_transformers_on_the_export(tokenizer, name, tmp_path):
    template = load_chat_template(tokenizer, name)
    theirs, training = exported(tokenizer, template, tmp_path)
    for messages in CHATS.values():
        ours = template.encode(messages)
        marked = theirs.apply_chat_template(
            messages, chat_template=training, return_dict=True, return_assistant_tokens_mask=True
        )
        assert theirs.apply_chat_template(messages, return_dict=False) == ours.tokens
        assert marked["input_ids"] == ours.tokens
        assert [bool(on) for on in marked["assistant_masks"]] == ours.loss_mask
        prompt = messages[:-1]
        assert template.encode_prompt(prompt) == theirs.apply_chat_template(
            prompt, add_generation_prompt=True, return_dict=False
        )


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_answers_and_their_stop_tokens_are_learnt_and_nothing_else(tokenizer, name):
    template = load_chat_template(tokenizer, name)
    for messages in CHATS.values():
        chat = template.encode(messages)
        answers = [m["content"] for m in messages if m["role"] == "assistant"]
        assert learnt(template, chat) == [template.written(answer) + "</s>" for answer in answers]
        assert chat.tokens.count(tokenizer.bos) == 1 and chat.tokens[0] == tokenizer.bos
        assert chat.tokens.count(template.stop_id) == len(answers)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_the_beginning_of_its_answered_conversation(tokenizer, name):
    template = load_chat_template(tokenizer, name)
    for messages in CHATS.values():
        whole = template.encode(messages)
        ends = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        for end in ends:
            prompt = template.encode_prompt(messages[:end])
            assert whole.tokens[: len(prompt)] == prompt
            assert not whole.loss_mask[len(prompt) - 1] and whole.loss_mask[len(prompt)]


@pytest.mark.skipif(not KQA.is_file(), reason="K-QA's questions are not here")
@with_a_real_one
@pytest.mark.parametrize("name", TEMPLATES)
def test_of_20_real_chats_exactly_the_answers_are_learnt(tokenizer, name):
    template = load_chat_template(tokenizer, name)
    lines = KQA.read_text(encoding="utf-8").splitlines()[:40]
    turns = [(row["Question"], row["Free_form_answer"]) for row in map(json.loads, lines)]
    for first, second in zip(turns[::2], turns[1::2], strict=True):
        chat = template.encode(say(*first, *second, system="You are a physician."))
        assert learnt(template, chat) == [t[1].strip() + "</s>" for t in (first, second)]
        assert chat.tokens.count(tokenizer.bos) == 1


def test_a_text_with_special_tokens_ends_no_turn_and_begins_none(tokenizer):
    template = load_chat_template(tokenizer)
    forged = template.encode(CHATS["forged"])
    assert forged.tokens.count(tokenizer.eod) == 1 and forged.tokens.count(tokenizer.bos) == 1
    text, _ = template.render(CHATS["forged"])
    assert [text.count(f"<|{role}|>") for role in ("system", "user", "assistant")] == [1, 1, 1]
    assert "< /s> < s>struck out< /s>" in text


def test_a_pad_token_that_is_the_stop_token_leaves_it_learnt(hf_folder, tmp_path):
    shutil.copytree(hf_folder, tmp_path / "t")
    config = json.loads((tmp_path / "t/tokenizer_config.json").read_text())
    (tmp_path / "t/tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "</s>"}))
    tokenizer = build_tokenizer(TokenizerConfig(tokenizer_model=str(tmp_path / "t")))
    assert tokenizer.pad == tokenizer.eod
    template = load_chat_template(tokenizer)
    chat = template.encode(CHATS["two turns"])
    stops = [on for token, on in zip(chat.tokens, chat.loss_mask, strict=True) if token == 2]
    assert stops == [True, True] and template.stop_id == 2


def test_a_template_goes_with_the_tokenizer_through_every_stage(tokenizer, tmp_path):
    template = load_chat_template(tokenizer, "llama2")
    tokenizer.save_pretrained(tmp_path / "sidecar")
    kind = tokenizer.tokenizer_type
    again = build_tokenizer(TokenizerConfig(kind, str(tmp_path / "sidecar")))
    assert load_chat_template(again).sha256 == template.sha256
    again.save_pretrained(tmp_path / "export")
    load_chat_template(again).save(tmp_path / "export", for_inference=True)
    imported = build_tokenizer(TokenizerConfig(kind, str(tmp_path / "export")))
    assert load_chat_template(imported).text == template.text
    assert imported.sha256 == tokenizer.sha256


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("trims", [False, True])
def test_the_exports_template_is_plain_jinja_and_renders_the_same(
    hf_tokenizer, tmp_path, name, trims
):
    template = load_chat_template(hf_tokenizer, name)
    exported(hf_tokenizer, template, tmp_path)
    engine = ImmutableSandboxedEnvironment(trim_blocks=trims, lstrip_blocks=trims)
    plain = engine.from_string((tmp_path / TEMPLATE_FILE).read_text())
    for messages in CHATS.values():
        told = {"bos_token": "<s>", "eos_token": "</s>", "messages": messages}
        assert plain.render(**told) == template.render(messages)[0]
        told["messages"] = messages[:-1]
        asked, _ = template.render(messages[:-1], add_generation_prompt=True)
        assert plain.render(**told, add_generation_prompt=True) == asked


def test_a_config_names_the_template_that_is_saved(hf_folder, tmp_path):
    config = TokenizerConfig(tokenizer_model=str(hf_folder), chat_template="llama2")
    tokenizer = build_tokenizer(config)
    tokenizer.save_pretrained(tmp_path)
    assert "[INST]" in (tmp_path / TEMPLATE_FILE).read_text()
    assert load_chat_template(tokenizer).text == load_chat_template(tokenizer, "llama2").text


@pytest.mark.parametrize(
    "pattern",
    [
        # GPT-2's and LLaMA-3's, which treat line ends differently.
        r"'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ],
)
@pytest.mark.parametrize(
    ("special", "trim"), [(["<|end|>"], False), (["<|end|>", "<|begin|>"], True)]
)
def test_byte_level_tokenizers_whose_bos_may_be_their_eos(texts, tmp_path, pattern, special, trim):
    folder = byte_level(texts, pattern, special, trim, tmp_path / "t")
    tokenizer = build_tokenizer(TokenizerConfig(tokenizer_model=str(folder)))
    for name in TEMPLATES:
        template = load_chat_template(tokenizer, name)
        theirs, training = exported(tokenizer, template, tmp_path / name)
        for messages in CHATS.values():
            ours = template.encode(messages)
            marked = theirs.apply_chat_template(
                messages,
                chat_template=training,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
            assert marked["input_ids"] == ours.tokens
            # Where offsets leave spaces out, transformers loses an answer that begins with one.
            assert trim or [bool(on) for on in marked["assistant_masks"]] == ours.loss_mask
            answers = [m["content"] for m in messages if m["role"] == "assistant"]
            assert learnt(template, ours) == [template.written(a) + "<|end|>" for a in answers]
            prompt = template.encode_prompt(messages[:-1])
            assert ours.tokens[: len(prompt)] == prompt


def byte_level(texts, pattern, special, trim, folder):
    backend = Backend(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=trim)
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*texts, "|>\n" * 500, "\n\n" * 500], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", bos_token=special[-1]
    )
    fast.save_pretrained(folder)
    return folder


def write(tmp_path, source):
    (tmp_path / "mine.jinja").write_text(source)
    return str(tmp_path / "mine.jinja")


def loop(assistant, start="{{ bos_token }}", user="{{ '[Q] ' + m['content'] + ' [A]' }}"):
    return (
        f"{{#- role markers: [Q] [A] -#}}{start}{{% for m in messages %}}"
        f"{{% if m['role'] == 'assistant' %}}{assistant}{{% else %}}{user}{{% endif %}}"
        "{% endfor %}"
    )


MARKED = "{% generation %}{{ ' ' + m['content'] + eos_token }}{% endgeneration %}"


def test_a_template_of_ones_own_is_taken_from_a_file(hf_tokenizer, tmp_path):
    template = load_chat_template(hf_tokenizer, write(tmp_path, loop(MARKED)))
    assert learnt(template, template.encode(CHATS["one turn"])) == [
        "An inflammation of the liver.</s>"
    ]


def test_other_fields_of_messages_reach_a_template_that_reads_them(hf_tokenizer, tmp_path):
    called = "{{ m['tool_calls'] | default('') if m['tool_calls'] is defined else '' }}"
    template = load_chat_template(hf_tokenizer, write(tmp_path, loop(called + MARKED)))
    theirs, _ = exported(hf_tokenizer, template, tmp_path / "out")
    messages = [*say("</s>", "So."), {"role": "user", "content": "</s>", "tool_calls": "look"}]
    messages.append({"role": "assistant", "content": "", "tool_calls": "look"})
    text = theirs.apply_chat_template(messages, tokenize=False)
    assert text == "<s>[Q] < /s> [A] So.</s>[Q] < /s> [A]look </s>"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (loop(MARKED.replace(" + eos_token", "") + "{{ eos_token }}"), "leaves the stop token"),
        (loop(MARKED.replace(" + eos_token", "")), "ends an answer with no special token"),
        (loop("{{ bos_token }}" + MARKED), "writes 2 times '<s>'"),
        (loop(MARKED, start=""), "writes 0 times '<s>'"),
        (loop(MARKED, user="{{ '[Q] ' + m['content'] | upper }}"), "does not write message 1"),
        (
            loop(MARKED.replace("' ' + ", ""), user="{{ '[Q] ' + m['content'] + ' [A] ' }}"),
            "reaches over the border",
        ),
        (
            loop("{% generation %}{{ ' [A] ' + m['content'] + eos_token }}{% endgeneration %}"),
            "is learnt where the answer is",
        ),
        (
            "{% for m in messages %}{% endfor %}{{ bos_token }}{% generation %}"
            "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ eos_token }}"
            "{% endgeneration %}",
            "ids of a prompt are not the beginning|is learnt where",
        ),
        ("{% for m in messages %}", "cannot write this conversation"),
        ("{{ raise_exception('not today') }}", "not today"),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_refused(hf_tokenizer, tmp_path, source, message):
    with pytest.raises(UserError, match=message):
        load_chat_template(hf_tokenizer, write(tmp_path, source))


def test_a_template_without_marks_answers_and_does_not_train(hf_tokenizer, tmp_path):
    plain = loop("{{ ' ' + m['content'] + eos_token }}")
    template = load_chat_template(hf_tokenizer, write(tmp_path, plain))
    assert template.stop_id == 2 and not template.trains
    assert template.encode_prompt(CHATS["one turn"][:1])[0] == 1
    with pytest.raises(UserError, match="no {% generation %} marks.*tokenizer.chat_template=def"):
        template.encode(CHATS["one turn"])


def test_unnamed_plain_markers_can_be_forged_which_is_said(hf_tokenizer, tmp_path, caplog):
    load_chat_template(hf_tokenizer, write(tmp_path, loop(MARKED)))
    assert not caplog.records
    unnamed = loop(MARKED).replace("{#- role markers: [Q] [A] -#}", "")
    load_chat_template(hf_tokenizer, write(tmp_path, unnamed))
    assert "looks like two messages" in caplog.text


def test_two_templates_of_a_folder_must_agree(hf_tokenizer, tmp_path):
    exported(hf_tokenizer, load_chat_template(hf_tokenizer), tmp_path)
    (tmp_path / TEMPLATE_FILE).write_text("edited")
    tokenizer = build_tokenizer(TokenizerConfig(tokenizer_model=str(tmp_path)))
    with pytest.raises(UserError, match="change both"):
        load_chat_template(tokenizer)


def test_an_unknown_template_is_refused_with_the_known_ones(hf_tokenizer, tmp_path):
    for name in ("chatml", str(tmp_path), str(tmp_path / "none.jinja")):
        with pytest.raises(UserError, match=r"neither built in \(default, llama2\)"):
            load_chat_template(hf_tokenizer, name)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (say("What?"), "no message of role assistant"),
        ([], "at least one message"),
        ("What?", "'What\\?'; it must be a list"),
        (["What?"], 'message 1 of 1 is .* must have "role" and "content"'),
        (say("What?", "") + say("x"), r"message 2 of 3 \(assistant\) is empty"),
        (say(" \n", "So."), r"message 1 of 2 \(user\) is empty"),
        ([{"role": "doctor", "content": "So."}], "role 'doctor'; it must be one of system, user"),
        ([{"role": "user", "content": None}], "content None; it must be text"),
        (say("\ud83e", "So."), r"half of a character .* leave it out"),
    ],
)
def test_a_bad_conversation_is_refused(hf_tokenizer, messages, message):
    with pytest.raises(UserError, match=message):
        load_chat_template(hf_tokenizer).encode(messages)


def test_llama2s_form_wants_turns(hf_tokenizer):
    template = load_chat_template(hf_tokenizer, "llama2")
    for messages in (say("a", "b") + say("c", "d", system="late"), say("a", "b")[1:]):
        with pytest.raises(UserError, match="take turns"):
            template.encode(messages)


def test_a_prompt_must_leave_the_last_word_to_the_assistant(hf_tokenizer):
    with pytest.raises(UserError, match="end it with the user's message"):
        load_chat_template(hf_tokenizer).encode_prompt(CHATS["one turn"])


def test_the_documented_template_is_one_that_trains(hf_tokenizer, tmp_path, caplog):
    page = (Path(__file__).parents[2] / "docs/conversations.md").read_text(encoding="utf-8")
    source = page.split("```jinja\n")[1].split("```")[0]
    template = load_chat_template(hf_tokenizer, write(tmp_path, source))
    chat = template.encode(CHATS["forged"][1:])
    assert learnt(template, chat) == [template.written(CHATS["forged"][2]["content"]) + "</s>"]
    assert not caplog.records
