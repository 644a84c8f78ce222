import itertools
import json
import random

import orjson
import pytest

from megatron_biollm.data import long_text
from megatron_biollm.data.long_text import LongText, loads_long


@pytest.fixture(autouse=True)
def _short_is_long(monkeypatch):
    monkeypatch.setattr(long_text, "LONG_BYTES", 12)
    monkeypatch.setattr(long_text, "_PIECE_BYTES", 7)


def plain(value):
    if isinstance(value, LongText):
        assert "".join(value.pieces()) == str(value)
        return str(value)
    if isinstance(value, list):
        return [plain(part) for part in value]
    return {key: plain(part) for key, part in value.items()} if isinstance(value, dict) else value


PARTS = [
    "\n",
    '"',
    "\\",
    "þ b",
    "\u00ad",
    "a b",
    "some words here ",
    "\U0001f9ec",
    "\x01",
    "\\u",
    "é",
]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_line_means_the_same_with_and_without_its_long_strings(ascii_only):
    dice = random.Random(0)

    def text():
        return "".join(dice.choices(PARTS, k=dice.randrange(30)))

    found = 0
    for _ in range(500):
        value = {
            "a": text(),
            "b": 1,
            "list": [text(), 2, None],
            "deep": {"x": "short", "y": [1]},
        }
        line = json.dumps(value, ensure_ascii=ascii_only).encode()
        loaded = loads_long(bytearray(line))
        found += isinstance(loaded["a"], LongText)
        assert plain(loaded) == value
    assert found > 100


def test_pieces_end_before_a_space_between_letters():
    text = "the first words of many\\n more words\\u00fe eps \\u00e9 its word or two"
    loaded = loads_long(f'{{"a": "{text}"}}'.encode())["a"]
    pieces = list(loaded.pieces())
    assert len(pieces) > 2 and "".join(pieces) == json.loads(f'"{text}"')
    for left, right in itertools.pairwise(pieces):
        assert left[-1].isascii() and left[-1].isalpha()
        assert right[0] == " " and right[1].isascii() and right[1].isalpha()


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": "some long long string',
        b'{"a": "some long long string" "b"}',
        b'{"a": "some long long \xff string"}',
        b'{"a": "some long long \\x string"}',
        b'{"a": "some long long \\ud800 string"}',
        b'{"a": "some long long \n string"}',
    ],
)
def test_what_is_not_json_is_refused(line):
    with pytest.raises(orjson.JSONDecodeError):
        loads_long(line)
