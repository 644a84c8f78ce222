import gzip
import json

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data.encode import (
    EncodeOptions,
    Encoder,
    LineBatch,
    find_inputs,
    parse_line,
    read_batches,
)


class Letters:
    """One id per letter; a space gives none."""

    eod = 0

    def encode_batch(self, texts):
        return [[ord(letter) for letter in text if letter != " "] for text in texts]


def encode(*values, partitions=1, append_eod=True, first_document=0):
    lines = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    encoder = Encoder(Letters(), ["text"], append_eod, partitions, "<u2")
    return encoder(LineBatch("f.jsonl", 10, first_document, lines))


def parts(column):
    return [
        values.tolist()
        for values in (column.tokens, column.sequence_lengths, column.sequences_per_document)
    ]


def test_a_document_ends_with_eod_and_counts_it():
    column = encode({"text": "AB"}, {"text": "C"}).columns["text", 0]
    assert parts(column) == [[65, 66, 0, 67, 0], [3, 2], [1, 1]]
    assert column.tokens.dtype == np.uint16


def test_a_document_without_tokens_stays_without_eod():
    column = encode({"text": ""}, {"text": " "}, {"text": "A"}).columns["text", 0]
    assert parts(column) == [[65, 0], [2], [0, 0, 1]]


def test_a_list_of_texts_is_one_document_of_several_sequences():
    column = encode({"text": ["AB", " ", "C"]}).columns["text", 0]
    assert parts(column) == [[65, 66, 67, 0], [2, 2], [2]]


def test_documents_are_dealt_to_partitions_in_turn():
    batch = encode(*({"text": letter} for letter in "ABCDE"), partitions=2, first_document=1)
    assert batch.columns["text", 1].tokens.tolist() == [65, 0, 67, 0, 69, 0]
    assert batch.columns["text", 0].tokens.tolist() == [66, 0, 68, 0]


def test_bad_lines_are_told_with_file_and_number_and_left_out():
    batch = encode({"text": "A"}, b"{", {"text": "B"})
    assert batch.bad == [
        "f.jsonl, line 11: not JSON (Expecting property name enclosed in double quotes at "
        "character 1)"
    ]
    assert batch.columns["text", 0].tokens.tolist() == [65, 0, 66, 0] and batch.lines == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "\xff"}', "byte 0xff at 10 is not UTF-8"),
        (b"\n", "not JSON"),
        (b"[1]", "object is expected, not list"),
        (b'{"body": "x", "id": 1}', "'text' is missing; there are 'body', 'id'"),
        (b'{"text": 3}', "'text' holds int"),
        (b'{"text": null}', "'text' holds NoneType"),
        (b'{"text": ["a", 1]}', "'text' holds int"),
        (rb'{"text": "\ud800"}', "half a surrogate"),
        (b'\xef\xbb\xbf{"text": "a"}', "BOM"),
    ],
)
def test_every_kind_of_bad_line_says_why(line, said):
    with pytest.raises(ValueError, match=said):
        parse_line(line, ["text"])


def test_batches_number_the_lines_of_every_file(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"1\n2\r\n" * 400 + b"last")
    with gzip.open(tmp_path / "b.jsonl.gz", "wb") as file:
        file.write(b"x\ny\n")
    batches = list(read_batches(find_inputs(str(tmp_path / "*.jsonl*"))))
    numbers = [(b.first_line, b.first_document, len(b.lines)) for b in batches]
    assert numbers == [(1, 0, 512), (513, 512, 289), (1, 801, 2)]
    assert batches[1].lines[-1] == b"last"


def test_a_torn_gzip_file_is_named(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"some line\n" * 100)[:-12])
    with pytest.raises(UserError, match="a.jsonl.gz is not a complete gzip file"):
        list(read_batches([str(path)]))


def test_a_pattern_without_a_file_is_named(tmp_path):
    with pytest.raises(UserError, match="names no file"):
        find_inputs(str(tmp_path / "*.jsonl"))


@pytest.mark.parametrize(
    ("given", "said"),
    [({"workers": 0}, "--workers is 0"), ({"json_keys": ["a", "a"]}, "each key once")],
)
def test_impossible_options_are_named(given, said):
    with pytest.raises(UserError, match=said):
        EncodeOptions("x", "y", **given)
