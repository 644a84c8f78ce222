import io
import json

from megatron_biollm.corpus.readers.jsonl import read_jsonl
from megatron_biollm.corpus.report import SHOWN_FAULTS, FileReport


def read(data):
    report = FileReport("a.jsonl")
    return list(read_jsonl(io.BytesIO(data), "a.jsonl", report)), report


def test_known_keys_are_kept_and_the_id_is_made_up_where_missing():
    line = {"text": "Some text.", "id": 7, "source": "trials", "license": "CC0", "date": "2020"}
    documents, _ = read(f'{json.dumps(line)}\n\n{{"text": "b", "meta": 1}}'.encode())
    first, second = documents
    assert (first.id, first.source, first.licence, first.date) == ("7", "trials", "CC0", "2020")
    assert (second.id, second.source) == ("a.jsonl#3", "jsonl")


def test_a_title_comes_before_its_text_once():
    documents, _ = read(
        b'{"title": "T.", "text": "body"}\n{"title": "T.", "text": "T.\\n\\nbody"}\n'
    )
    assert [d.text for d in documents] == ["T.\n\nbody", "T.\n\nbody"]


def test_what_was_written_reads_back_equal():
    documents, _ = read('{"text": "β-catenin\\n≥ 5 µg", "id": "x", "date": "1999-01"}'.encode())
    again, _ = read(documents[0].to_json().encode())
    assert again == documents


def test_each_broken_line_is_named_and_the_others_are_kept():
    lines = [
        b'{"text": "one"}', b'{"text": "caf\xe9"}', b'{"text": "cut', b'{"txt": "x"}', b"[1]",
        b'{"text": 5}', b'{"text": "\\ud800"}', b'{"text": "  "}', b'{"text": "two"}',
    ]  # fmt: skip
    documents, report = read(b"\n".join(lines))
    assert [d.text for d in documents] == ["one", "two"]
    assert [f.position for f in report.faults] == [f"line {i}" for i in (2, 3, 4, 5, 6, 7)]
    assert report.faults[0].reason == "not UTF-8: byte 0xe9 at column 14"
    assert report.dropped == {"no_text": 1}


def test_faults_beyond_those_shown_are_still_counted():
    _, report = read(b"bad\n" * 1000)
    assert report.fault_count == 1000 and len(report.faults) == SHOWN_FAULTS
