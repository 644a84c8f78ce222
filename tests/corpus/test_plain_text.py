import io
from collections import Counter

from megatron_biollm.corpus.readers.plain_text import read_plain_text
from megatron_biollm.corpus.report import FileReport


def read(data, **options):
    report = FileReport("a.txt")
    return list(read_plain_text(io.BytesIO(data), "a.txt", report, **options)), report


def test_a_file_is_one_document():
    documents, _ = read(b"\xef\xbb\xbfone\r\n\r\n  two\n")
    assert [(d.text, d.id) for d in documents] == [("one\n\n  two", "a.txt")]


def test_blank_lines_may_separate_documents():
    documents, _ = read(b"one\nmore\n\n \ntwo\n", blank_line_splits=True)
    assert [(d.text, d.id) for d in documents] == [("one\nmore", "a.txt#1"), ("two", "a.txt#2")]


def test_a_line_that_is_not_utf8_is_named_and_left_out():
    documents, report = read(b"one\ntwo \xff\nthree\n")
    assert documents[0].text == "one\nthree"
    assert report.faults[0].position == "line 2"
    assert "byte 0xff at column 5" in report.faults[0].reason


def test_a_file_of_white_space_is_counted_as_without_text():
    assert read(b" \n\n") == ([], FileReport("a.txt", dropped=Counter(no_text=1)))
