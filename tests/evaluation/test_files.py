import gzip
from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Source
from megatron_biollm.evaluation.files import (
    field,
    filled,
    read_json,
    read_json_lines,
    read_records,
    read_table,
    read_text,
)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_packed_file_and_one_with_a_byte_order_mark_read_the_same(tmp_path):
    for content in (b"a\r\nb", gzip.compress(b"a\r\nb"), b"\xef\xbb\xbfa\r\nb"):
        assert read_text(write(tmp_path / "a", content)) == "a\r\nb"


def test_a_packed_file_that_was_cut_off_is_refused(tmp_path):
    whole = gzip.compress(b"a" * 10_000)
    for content in (whole[:-12], whole[:30], whole[:-4] + b"\0\0\0\0"):
        path = write(tmp_path / "a.gz", content)
        with pytest.raises(UserError, match=r"a.gz is damaged .* download it again"):
            read_text(path)


def test_a_file_of_another_encoding_is_refused_with_its_line(tmp_path):
    with pytest.raises(UserError, match=r"a:2 is not UTF-8"):
        read_text(write(tmp_path / "a", "x\né".encode("latin-1")))


def test_broken_json_is_refused_with_its_line(tmp_path):
    with pytest.raises(UserError, match=r"a.json:2 is not JSON .*cut off"):
        read_json(write(tmp_path / "a.json", '{"a":\n'))
    rows = read_json_lines(write(tmp_path / "a.jsonl", '{"a": 1}\n\n{"a": '))
    assert next(rows) == (f"{tmp_path}/a.jsonl:1", {"a": 1})
    with pytest.raises(UserError, match=r"a.jsonl:3 is not JSON"):
        next(rows)
    with pytest.raises(UserError, match=r"a.jsonl:1 is a JSON list"):
        list(read_json_lines(write(tmp_path / "a.jsonl", "[1]")))


def test_a_table_has_quoted_fields_across_lines_and_all_its_columns(tmp_path):
    path = write(tmp_path / "a.csv", 'a,"b\nc"\nd,e\nf\n')
    rows = read_table(path, 2)
    assert [next(rows), next(rows)] == [(f"{path}:2", ["a", "b\nc"]), (f"{path}:3", ["d", "e"])]
    with pytest.raises(UserError, match=r"a.csv:4 has 1 columns; it must have 2"):
        next(rows)


def test_a_table_that_ends_within_a_quoted_field_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"a.csv:2 is no table .*cut off"):
        list(read_table(write(tmp_path / "a.csv", 'a,"b\nc'), 2))


def test_records_go_by_the_names_of_their_columns(tmp_path):
    path = write(tmp_path / "a.tsv", "x\ty\n1\t2\n")
    assert list(read_records(path, ["y", "x"], "\t")) == [(f"{path}:2", {"x": "1", "y": "2"})]
    with pytest.raises(UserError, match=r"a.tsv:1 has the columns \['x', 'y'\]; they must be"):
        list(read_records(path, ["x", "z"], "\t"))


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ({"b": 1}, int, "f:3 has no 'a' but 'b'"),
        ([], int, "f:3 has no 'a' but list"),
        ({"a": "1"}, int, "f:3: 'a' is '1'; it must be of type int"),
        ({"a": True}, int, "it must be of type int"),
    ],
)
def test_a_value_of_another_format_is_refused(row, kind, message):
    with pytest.raises(UserError, match=message):
        field(row, "a", kind, "f:3")
    assert field({"a": 1}, "a", int, "f:3") == 1


def test_a_file_is_found_packed_too_and_else_named_with_its_download(tmp_path):
    source = Source(
        tmp_path, {"questions": Path("a/q.json"), "labels": Path()}, "Quiz (https://q.org)"
    )
    with pytest.raises(
        UserError, match=r"a/q.json is missing; it is part of Quiz .*--file BENCHMARK.quest"
    ):
        source.path("questions")
    (tmp_path / "a").mkdir()
    write(tmp_path / "a/q.json.gz", b"")
    assert source.path("questions") == tmp_path / "a/q.json.gz"
    write(tmp_path / "a/q.json", b"")
    assert source.path("questions") == tmp_path / "a/q.json"
    with pytest.raises(UserError, match=r"no usual name for 'labels' of Quiz"):
        source.path("labels")


def test_a_file_without_items_is_refused(tmp_path):
    with pytest.raises(UserError, match="a.csv holds no item; .*cut off"):
        filled([], tmp_path / "a.csv")


def test_another_number_than_published_is_warned_of(tmp_path, caplog):
    published = {"a.csv": 3}
    assert filled([1, 2, 3], tmp_path / "a.csv.gz", published) == [1, 2, 3]
    assert filled([1], tmp_path / "other.csv", published) == [1]
    assert caplog.text == ""
    assert filled([1], tmp_path / "a.csv.gz", published) == [1]
    assert "a.csv.gz holds 1 items, and the published file of that name 3" in caplog.text
