import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.finetune.preferences import read_labelled, read_pairs


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def pair(**changes):
    row = {
        "prompt": [user("What is flu?")],
        "chosen": [assistant("A viral infection.")],
        "rejected": [assistant("A bird.")],
    }
    return row | changes


def written(folder, *rows):
    path = folder / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_pairs_come_in_their_order_with_file_and_line(tmp_path):
    path = written(tmp_path, pair(id="a", margin=2, meta={"x": 1}), pair(margin=None))
    first, second = read_pairs(path)
    assert first.prompt == [user("What is flu?")]
    assert first.answers == ([assistant("A viral infection.")], [assistant("A bird.")])
    assert (first.id, first.margin, second.margin) == ("a", 2.0, 0.0)
    assert second.where == f"{path}:2"


def test_a_system_message_and_earlier_turns_belong_to_the_prompt(tmp_path):
    prompt = [
        {"role": "system", "content": "Be brief."},
        user("Hi"),
        assistant("Hi."),
        user("Flu?"),
    ]
    assert read_pairs(written(tmp_path, pair(prompt=prompt)))[0].prompt == prompt


def test_labelled_answers_come_from_both_forms(tmp_path):
    good = {"prompt": [user("Flu?")], "completion": [assistant("A virus.")], "label": True}
    answers = read_labelled(written(tmp_path, good, pair()))
    said = [(answer.completion[0]["content"], answer.label) for answer in answers]
    assert said == [("A virus.", True), ("A viral infection.", True), ("A bird.", False)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (pair(rejected=[assistant("A viral infection.")]), "chosen and rejected are equal"),
        (pair(chosen=[assistant(" \n")]), r"chosen: message 1 of 1 \(assistant\) is empty"),
        (pair(rejected=[]), r"rejected: messages is \[\]; it must be a list"),
        (pair(prompt=[]), r"prompt: messages is \[\]"),
        (pair(prompt=[user("Hi"), assistant("Hi.")]), "prompt ends with assistant"),
        (
            pair(prompt=[{"role": "doctor", "content": "Hi"}]),
            "prompt: message 1 of 1 has role 'doctor'; it must be one of",
        ),
        (pair(chosen=[user("no")]), "chosen begins with user and ends with user"),
        (
            pair(chosen="A viral infection."),
            "chosen: messages is 'A viral infection.'; it must be a list",
        ),
        (pair(chosen=[{"role": "assistant", "content": None}]), "content None; it must be text"),
        (pair(margin=-1), "margin is -1; write a number of 0 or more"),
        ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "has no prompt, but chosen"),
        ([1], r"is \[1\]; write an object"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path, row, message):
    with pytest.raises(UserError, match=f"pairs.jsonl:2.*{message}"):
        read_pairs(written(tmp_path, pair(), row))


def test_a_torn_line_is_told_with_its_number(tmp_path):
    path = written(tmp_path, pair())
    path.write_text(path.read_text() + '{"prompt": [')
    with pytest.raises(UserError, match="pairs.jsonl:2 is not JSON"):
        read_pairs(path)


def test_a_label_is_true_or_false(tmp_path):
    row = {"prompt": [user("Flu?")], "completion": [assistant("A virus.")], "label": "good"}
    with pytest.raises(UserError, match="label is 'good'; write true for good"):
        read_labelled(written(tmp_path, row))


def test_no_file_and_no_line_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        read_pairs(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match="holds no line"):
        read_pairs(written(tmp_path))
