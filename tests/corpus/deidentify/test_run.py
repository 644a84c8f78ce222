"""Files of notes to JSONL: every form, nothing half-written, the recall beside the word."""

import gzip
import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.deidentify.config import DeidentifyConfig
from megatron_biollm.corpus.deidentify.run import deidentify_file

SECRET = "correct horse battery staple 42"


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("BIOLLM_DEID_SECRET", SECRET)


def run(source, **options):
    target = source.with_name("clean.jsonl")
    report, text = deidentify_file(source, target, DeidentifyConfig(**options), audit=True)
    return [json.loads(line) for line in target.read_text().splitlines()], report, text


def test_a_csv_is_read_by_its_columns(tmp_path):
    source = tmp_path / "notes.csv"
    source.write_text("patient,text\np1,Mrs. Okafor slept.\np1,Mrs. Okafor woke.\np2,\n")
    records, report, _ = run(source)
    first, second = (record["text"] for record in records)
    assert "Okafor" not in first
    assert first.replace("slept", "woke") == second
    assert report["written"] == 2


def test_jsonl_goes_on_after_a_broken_line(tmp_path):
    source = tmp_path / "notes.jsonl.gz"
    lines = '{"text": "Dr. Okafor came.", "id": "a"}\nnot json\n{"text": "Well.", "id": "b"}\n'
    source.write_bytes(gzip.compress(lines.encode()))
    records, report, _ = run(source)
    assert len(records) == 2
    assert report["broken_records"] == 1
    assert {record["source"] for record in records} == {"clinical_notes"}


def test_a_text_file_is_one_note(tmp_path):
    source = tmp_path / "okafor.txt"
    source.write_text("Seen by Dr. Okafor\non 03/04/2014.")
    records, report, text = run(source)
    assert "Okafor" not in json.dumps(records) and "okafor" not in json.dumps(records)
    assert report["replaced"] == {"date": 1, "name": 1}
    assert "measured recall" in text and SECRET not in text


def test_what_was_dropped_and_what_the_audit_found_is_counted(tmp_path):
    source = tmp_path / "notes.csv"
    source.write_text("text\nHe came at Christmas.\n" + "x" * 200 + "\n")
    records, report, _ = run(source, max_chars=100)
    assert len(records) == 1
    assert report["dropped"] == {"deidentify_failed": 1}
    assert report["audit"]["residuals"] == {"holiday": 1}


def test_a_missing_column_is_named_and_nothing_is_left(tmp_path):
    source = tmp_path / "notes.csv"
    source.write_text("note\nwell\n")
    with pytest.raises(UserError, match="--text-column"):
        run(source)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.csv"]
