import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from megatron_biollm.config import UserError
from megatron_biollm.finetune.encoded_preferences import (
    EncodingKey,
    encode_preferences,
    encoding_key,
    open_encoded,
)
from megatron_biollm.finetune.preference_dataset import (
    PreferenceSource,
    RowSettings,
    open_blend,
)
from megatron_biollm.tokenizer.chat_template import load_chat_template
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer
from megatron_biollm.tokenizer.train import train_tokenizer

TEXT = "What is flu? A viral infection of the airways. Rest and drink. No idea. A bird."


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = train_tokenizer([TEXT] * 20, 512, tmp_path_factory.mktemp("tokenizer") / "small")
    return load_chat_template(build_tokenizer(TokenizerConfig(tokenizer_model=str(folder))))


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


def written(folder, *rows):
    path = folder / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def pair(chosen="A viral infection.", rejected="A bird.", prompt="What is flu?", **more):
    answers = {"chosen": assistant(chosen), "rejected": assistant(rejected)}
    return {"prompt": user(prompt), **answers, **more}


def encoded(path, template, labelled=False, seq_length=64, too_long="drop"):
    key = encoding_key(path, template, "t", labelled, seq_length, too_long)
    return encode_preferences(path, key, template)


def said(template, data, sample, which):
    tokens, answer = data.row(sample, which)
    return template.decode(tokens[answer].tolist()).strip()


def test_the_answer_and_its_stop_token_are_what_counts(tmp_path, template):
    data = encoded(written(tmp_path, pair(margin=2)), template)
    assert said(template, data, 0, 0) == "A viral infection.</s>"
    assert said(template, data, 0, 1) == "A bird.</s>"
    tokens, answer = data.row(0, 0)
    assert tokens[~answer].tolist() == template.encode_prompt(user("What is flu?"))
    assert (data.margin.tolist(), data.line.tolist()) == ([2.0], [1])


def test_earlier_answers_in_the_prompt_do_not_count(tmp_path, template):
    prompt = [*user("What is flu?"), *assistant("No idea."), *user("Rest?")]
    data = encoded(written(tmp_path, pair() | {"prompt": prompt}), template, seq_length=128)
    assert said(template, data, 0, 0) == "A viral infection.</s>"


def test_what_is_too_long_is_dropped_whole_and_counted(tmp_path, template):
    data = encoded(written(tmp_path, pair(), pair(rejected="A bird. " * 40)), template)
    assert len(data) == 1
    assert data.dropped == {"longer than model.seq_length": 1}


def test_cut_answers_keep_their_prompt(tmp_path, template):
    long = "A viral infection. " * 40
    path = written(tmp_path, pair(), pair(long, "A bird."), pair(prompt=long))
    data = encoded(path, template, too_long="cut")
    assert data.dropped == {"no room for the answer within model.seq_length": 1}
    tokens, answer = data.row(1, 0)
    assert len(tokens) == 64
    assert tokens[~answer].tolist() == template.encode_prompt(user("What is flu?"))


def test_answers_that_are_equal_up_to_the_cut_are_dropped(tmp_path, template):
    long = "A viral infection. " * 40
    path = written(tmp_path, pair(), pair(long + "Rest.", long + "No idea."))
    assert encoded(path, template, too_long="cut").dropped == {
        "answers equal where they are cut": 1
    }


def test_nothing_left_is_an_error(tmp_path, template):
    with pytest.raises(UserError, match=r"no sample of .* fits \(1 longer than model.seq_length"):
        encoded(written(tmp_path, pair()), template, seq_length=8)


def test_kto_joins_every_prompt_with_an_answer_to_another(tmp_path, template):
    rows = [pair(), pair("Rest and drink.", "No idea.", "What helps?")]
    data = encoded(written(tmp_path, *rows), template, labelled=True)
    assert data.label.tolist() == [True, False, True, False]
    for sample, other in enumerate(["Rest and drink."] * 2 + ["A viral infection."] * 2):
        assert said(template, data, sample, 1) == f"{other}</s>"
    prompts = [data.row(sample, 1)[0][~data.row(sample, 1)[1]].tolist() for sample in range(4)]
    assert prompts[0] == template.encode_prompt(user("What is flu?"))


def test_kto_needs_two_prompts(tmp_path, template):
    with pytest.raises(UserError, match="pairs.jsonl:1: KTO .* one prompt alone"):
        encoded(written(tmp_path, pair()), template, labelled=True)


def test_a_second_reading_takes_the_folder_and_a_changed_file_does_not(tmp_path, template):
    path = written(tmp_path, pair())
    first = encoded(path, template)
    before = (first.folder / "tokens.npy").stat().st_mtime_ns
    assert (encoded(path, template).folder / "tokens.npy").stat().st_mtime_ns == before
    assert encoded(written(tmp_path, pair(), pair("Rest.")), template).folder != first.folder


@pytest.mark.parametrize("field", ["file", "tokenizer", "template"])
def test_ids_of_another_file_tokenizer_or_template_are_refused(tmp_path, template, field):
    data = encoded(written(tmp_path, pair()), template)
    with pytest.raises(UserError, match=f"are of another {field} than this run's"):
        open_encoded(data.prefix, data.folder, replace(data.key, **{field: "other"}))


def test_a_damaged_folder_is_told(tmp_path, template):
    data = encoded(written(tmp_path, pair()), template)
    (data.folder / "ends.npy").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read .* delete this folder"):
        open_encoded(data.prefix, data.folder, data.key)


def test_a_missing_file_is_told(tmp_path, template):
    with pytest.raises(UserError, match="absent.jsonl cannot be read"):
        encoded(tmp_path / "absent.jsonl", template)


@pytest.fixture
def source(tmp_path, template):
    rows = [pair(prompt=f"What is flu {number}?") for number in range(5)]
    data = encoded(written(tmp_path, *rows), template)
    return PreferenceSource(data, RowSettings(seq_length=64, pad=2, seed=1))


def test_labels_are_the_next_tokens_and_padding_counts_nothing(source):
    sample = source[0]
    for which, length in enumerate(sample["length"].tolist()):
        tokens, labels = sample["tokens"][which], sample["labels"][which]
        assert torch.equal(labels[: length - 1], tokens[1:length])
        assert set(tokens[length:].tolist()) == {2}
        counted = sample["loss_mask"][which].nonzero()[:, 0]
        # Up to the stop token, which is the last label.
        assert counted[-1] == length - 2
        assert torch.equal(counted, torch.arange(counted[0], length - 1))


def test_every_epoch_has_each_sample_once_in_another_order(source):
    stream = open_blend([source.prefix], {source.prefix: source}, endless=True)
    lines = [stream.provenance(i)["documents"][0] for i in range(10)]
    assert sorted(lines[:5]) == sorted(lines[5:]) == [1, 2, 3, 4, 5]
    assert lines[:5] != lines[5:]


def test_a_reference_is_handed_out_with_its_sample(source):
    source.reference = np.arange(10.0).reshape(5, 2)
    (line,) = source.epoch(0).sequences(3)
    assert source.epoch(0)[3]["reference"].tolist() == [2.0 * line - 2, 2.0 * line - 1]


def test_the_key_names_the_folder():
    one = EncodingKey("f", "t", "c", False, 64, "drop")
    assert one.folder_name() == replace(one).folder_name()
    assert replace(one, seq_length=65).folder_name() != one.folder_name()
