"""Texts to be foretold come from JSON lines, packed or not; what is no text is named."""

import gzip
import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import MissingFile
from megatron_biollm.recipes.texts import read_documents


def lines(*texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def test_documents_are_read_in_order_and_named_by_file_and_line(tmp_path, caplog):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jsonl").write_bytes(lines("One.", " \n", "Two."))
    (tmp_path / "a" / "2.jsonl.gz").write_bytes(gzip.compress(lines("Three.")))
    found = read_documents(str(tmp_path / "*" / "*.jsonl*"))
    assert [(one.id, one.text) for one in found] == [
        ("1.jsonl:1", "One."),
        ("1.jsonl:3", "Two."),
        ("2.jsonl.gz:1", "Three."),
    ]
    assert "1 documents without a word are left out" in caplog.text


def test_zstandard_is_read_too(tmp_path):
    zstandard = pytest.importorskip("zstandard", reason="packs the file")
    (tmp_path / "1.jsonl.zst").write_bytes(zstandard.compress(lines("One.", "Two.")))
    assert [one.text for one in read_documents(str(tmp_path / "1.jsonl.zst"))] == ["One.", "Two."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no document with a word"),
        (lines("", " "), "holds no document with a word"),
        (b'{"text": "a"}\n{"body": "b"}\n', r"a\.jsonl:2 has no text in 'text'"),
        (b'{"text": 3}\n', r"a\.jsonl:1 has no text in 'text'"),
        (b'{"text": "a"}\n{"te', r"a\.jsonl:2 is not JSON"),
    ],
)
def test_files_without_texts_are_refused(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_documents(str(tmp_path / "a.jsonl"))


def test_a_pattern_that_names_no_file_is_a_missing_file(tmp_path):
    with pytest.raises(MissingFile, match=r"\*\.jsonl names no file; give JSON lines"):
        read_documents(str(tmp_path / "*.jsonl"))
