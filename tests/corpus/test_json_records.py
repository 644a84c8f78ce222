import gzip
import io
import random

import orjson
import pytest

from megatron_biollm.corpus.read import read_file
from megatron_biollm.corpus.readers import json_records as module
from megatron_biollm.corpus.readers.json_records import json_records
from megatron_biollm.corpus.report import FileReport


def read(data, name="file.json", wrappers=()):
    report = FileReport(name)
    data = data if isinstance(data, bytes) else data.encode()
    records = [record for _, record in json_records(io.BytesIO(data), name, report, wrappers)]
    return records, report


TRICKY = {"text": 'brackets ]}[{ and "quotes" and a \\', "inner": [{"a": [1, {"b": None}]}, []]}


@pytest.mark.parametrize(
    "data",
    [
        orjson.dumps([TRICKY, {"second": 2}]),
        orjson.dumps([TRICKY, {"second": 2}], option=orjson.OPT_INDENT_2),
        b"\xef\xbb\xbf" + orjson.dumps([TRICKY, {"second": 2}]),
        orjson.dumps(TRICKY) + b"\n" + orjson.dumps({"second": 2}),
        orjson.dumps({"studies": [TRICKY, {"second": 2}], "nextPageToken": "x"}),
        orjson.dumps({"meta": {"n": [1]}, "page": {"studies": [TRICKY, {"second": 2}]}}),
    ],
)
def test_records_are_found_alone_in_lists_in_pages_and_one_after_another(data):
    records, report = read(data, wrappers=("studies",))
    assert records == [TRICKY, {"second": 2}]
    assert report.fault_count == 0


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_records_do_not_depend_on_where_reads_end(chunk, monkeypatch):
    monkeypatch.setattr(module, "_READ_BYTES", chunk)
    data = orjson.dumps({"studies": [TRICKY] * 3 + [{"é": "ü"}], "next": [1]})
    records, report = read(data, wrappers=("studies",))
    assert records == [TRICKY] * 3 + [{"é": "ü"}]
    assert report.fault_count == 0


def test_a_broken_record_costs_no_other():
    records, report = read('[{"a": 1}, {"b": nope}, {"c": 3}, 7, {"d": "\\ud800"}, {"e": 5}]')
    assert records == [{"a": 1}, {"c": 3}, {"e": 5}]
    assert report.fault_count == 3


@pytest.mark.parametrize("end", ['{"c": [1', '{"c": "tex', '{"c": 3}'])
def test_a_list_that_ends_too_early_keeps_what_came_before(end):
    records, report = read('[{"a": 1}, {"b": 2}, ' + end)
    assert records[:2] == [{"a": 1}, {"b": 2}]
    assert report.broken and "ends too early" in report.faults[-1].reason


def test_bytes_that_are_not_utf_8_and_nul_bytes_cost_their_record():
    records, report = read(b'[{"a": "\xe9"}, {"b": "\0"}, {"c": 3}]')
    assert records == [{"c": 3}]
    assert [fault.position for fault in report.faults] == [
        "file.json, record 1",
        "file.json, record 2",
    ]


def test_in_json_lines_a_broken_line_ends_at_its_end():
    records, report = read('{"a": 1}\n{"b": [\n{"c": "\n\n{"d": 4}', name="file.ndjson")
    assert records == [{"a": 1}, {"d": 4}]
    assert [fault.position for fault in report.faults] == [
        "file.ndjson, line 2",
        "file.ndjson, line 3",
    ]


def test_what_is_no_json_is_a_fault_and_an_empty_file_is_empty():
    assert read("plain words")[1].fault_count == 1
    assert read("")[1].fault_count == 0


def test_brackets_that_never_close_are_given_up(monkeypatch):
    monkeypatch.setattr(module, "LONGEST_RECORD", 1 << 20)
    monkeypatch.setattr(module, "_READ_BYTES", 1 << 16)
    records, report = read(b'[{"a": 1}, {"b": [' + b"1," * (1 << 20))
    assert records == [{"a": 1}]
    assert report.broken


def test_records_before_a_break_of_the_stream_are_kept(tmp_path):
    noise = random.Random(5).randbytes
    studies = [
        {"protocolSection": {"descriptionModule": {"briefSummary": noise(500).hex()}}}
        for _ in range(2000)
    ]
    path = tmp_path / "studies.json.gz"
    whole = gzip.compress(orjson.dumps(studies))
    path.write_bytes(whole[: len(whole) // 2])
    report = FileReport("a")
    assert 950 < len(list(read_file(path, report))) <= 1000
    assert report.broken
