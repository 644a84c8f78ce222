import json
from types import SimpleNamespace

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data.encode import BatchEncoder, EncodeOptions, parse_line
from megatron_biollm.data.lines import Shard


class Letters:
    """One id per letter; a space gives none."""

    plan = SimpleNamespace(eod=0, fast=None, control_tokens=("<end>",))

    def encode(self, texts):
        for text in texts:
            yield np.array([ord(letter) for letter in text if letter != " "], np.uint32)

    def bound_memory(self):
        pass


def encode(*values, number=0, dtype="<u2", **options):
    lines = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    options = {"append_eod": True, "skip_bad_lines": True, **options}
    encoder = BatchEncoder(Letters(), EncodeOptions("x", "y", **options), dtype)
    return encoder.encode(Shard("f.jsonl", "lines", first_line=10), number, lines)


def parts(column):
    return [
        values.tolist()
        for values in (column.tokens, column.sequence_lengths, column.sequences_per_document)
    ]


def test_a_document_ends_with_eod_and_counts_it():
    column = encode({"text": "AB"}, {"text": "C"}).columns[0, 0]
    assert parts(column) == [[65, 66, 0, 67, 0], [3, 2], [1, 1]]
    assert column.tokens.dtype == np.uint16


def test_a_document_without_tokens_stays_without_eod():
    column = encode({"text": ""}, {"text": " "}, {"text": "A"}).columns[0, 0]
    assert parts(column) == [[65, 0], [2], [0, 0, 1]]


def test_without_append_eod_there_is_none():
    column = encode({"text": "AB"}, {"text": ""}, append_eod=False).columns[0, 0]
    assert parts(column) == [[65, 66], [2], [1, 0]]


def test_a_list_of_texts_is_one_document_of_several_sequences():
    column = encode({"text": ["AB", " ", "C"]}, {"text": []}).columns[0, 0]
    assert parts(column) == [[65, 66, 67, 0], [2, 2], [2, 0]]


def test_documents_are_dealt_to_streams_in_turn_and_bad_lines_take_a_turn():
    texts = [{"text": letter} for letter in "ABCD"]
    batch = encode(*texts[:2], b"{", *texts[2:], number=1, partitions=2)
    assert batch.columns[0, 1].tokens.tolist() == [65, 0, 68, 0]
    assert batch.columns[0, 0].tokens.tolist() == [66, 0, 67, 0]


def test_each_key_has_its_column():
    batch = encode({"text": "A", "title": "T"}, json_keys=["title", "text"])
    assert [batch.columns[key, 0].tokens.tolist() for key in (0, 1)] == [[84, 0], [65, 0]]


def test_ends_that_the_text_itself_gives_are_counted():
    assert encode({"text": "A\0B"}, {"text": "C"}).columns[0, 0].false_ends == 1


def test_an_id_too_large_for_the_dtype_is_refused_not_wrapped():
    with pytest.raises(UserError, match="the id 70000, which uint16 cannot hold"):
        encode({"text": chr(70000)})
    assert encode({"text": chr(70000)}, dtype="<i4").columns[0, 0].tokens[0] == 70000


def test_bad_lines_are_told_with_file_and_number_and_left_out():
    batch = encode({"text": "A"}, b"{", {"text": "B"})
    assert batch.bad == [
        "f.jsonl, line 11: not JSON (Expecting property name enclosed in double quotes at "
        "character 1)"
    ]
    assert batch.columns[0, 0].tokens.tolist() == [65, 0, 66, 0] and batch.lines == 3


def test_a_bad_line_ends_the_run_unless_it_may_be_left_out():
    with pytest.raises(UserError, match="f.jsonl, line 11: not JSON.*--skip-bad-lines"):
        encode({"text": "A"}, b"{", skip_bad_lines=False)


def test_control_tokens_in_a_text_can_be_refused():
    batch = encode({"text": "A<end>"}, {"text": "B"}, literal_control_tokens="refuse")
    assert batch.columns[0, 0].tokens.tolist() == [66, 0]
    assert batch.bad == ["f.jsonl, line 10: 'text' holds the control token '<end>' as text"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "\xff"}', "byte 0xff at 10 is not UTF-8"),
        (b"", "not JSON"),
        (b"[1]", "object is expected, not list"),
        (b'{"body": "x", "id": 1}', "'text' is missing; there are 'body', 'id'"),
        (b'{"text": 3}', "'text' holds int"),
        (b'{"text": null}', "'text' holds NoneType"),
        (b'{"text": ["a", 1]}', "'text' holds int"),
        (rb'{"text": "\ud800"}', "half a surrogate"),
        (b'\xef\xbb\xbf{"text": "a"}', "BOM"),
        (b'{"text": "a\0"}', "not JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b', "text": "x"}', "nested too deeply"),
    ],
)
def test_every_kind_of_bad_line_says_why(line, said):
    with pytest.raises(ValueError, match=said):
        parse_line(line, ["text"])


@pytest.mark.parametrize(
    "line",
    [
        b'{"text": "a", "score": NaN}',
        b'{"text": "a", "n": 123456789012345678901234567890}',
        b' {"text": "b", "text": "a"}\r',
        rb'{"text": "\u0061", "x": "\ud800"}',
        bytearray(b'{"text": "a"}'),
    ],
)
def test_lines_are_taken_that_pythons_json_takes(line):
    assert parse_line(line, ["text"]) == {"text": ["a"]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": 0}, "--workers is 0"),
        ({"json_keys": ["a", "a"]}, "each key once"),
        ({"dtype": "int8"}, "--dtype is int8; give auto, uint16, int32"),
        ({"literal_control_tokens": "x"}, "--literal-control-tokens is x; give as-tokenizer"),
    ],
)
def test_impossible_options_are_named(given, said):
    with pytest.raises(UserError, match=said):
        EncodeOptions("x", "y", **given)
