import gzip
import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.finetune.conversations import Conversation, read_conversations

ASKED = {"role": "user", "content": "What is it?"}
ANSWERED = {"role": "assistant", "content": "Hepatitis."}


def write(path, *rows):
    text = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    packed = gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode()
    path.write_bytes(packed)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_conversations_are_read_with_their_places(tmp_path, name):
    more = {"messages": [ASKED, ANSWERED], "id": 7, "meta": {"source": "x"}}
    file = write(tmp_path / name, {"messages": [ASKED, ANSWERED]}, "", more)
    assert list(read_conversations(file)) == [
        Conversation([ASKED, ANSWERED], f"{file}:1"),
        Conversation([ASKED, ANSWERED], f"{file}:3", "7", {"source": "x"}),
    ]


def test_files_follow_each_other(tmp_path):
    files = [write(tmp_path / name, {"messages": [ASKED, ANSWERED]}) for name in "ba"]
    assert [c.where for c in read_conversations(files)] == [f"{file}:1" for file in files]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", 'has no "messages", but list'),
        ({"conversations": []}, "but conversations; .*prepare_conversations.py"),
        ({"messages": []}, "at least one message"),
        ({"messages": [ASKED]}, "no message of role assistant"),
        ({"messages": [{"role": "human", "content": "x"}]}, "role 'human'; it must be one of"),
        (
            {"messages": [ASKED, {"role": "assistant", "content": " "}]},
            "message 2 of 2 .* is empty",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    file = write(tmp_path / "a.jsonl", {"messages": [ASKED, ANSWERED]}, line)
    read = read_conversations(file)
    next(read)
    with pytest.raises(UserError, match=rf"^{file}:2.*{message}"):
        next(read)


def test_an_absent_or_empty_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        next(read_conversations(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="holds no line"):
        next(read_conversations(write(tmp_path / "a.jsonl", "", " ")))
