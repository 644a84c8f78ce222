import gzip
import json

import pytest
import zstandard

from megatron_biollm.config import UserError
from megatron_biollm.data.inspect_lines import ratios, survey_lines
from megatron_biollm.tokenizer.tokenizer import build_tokenizer

RECORDS = [{"text": f"word {'x' * i}", "source": "pmc" if i % 4 else "pubmed"} for i in range(400)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def write(tmp_path, data=LINES, name="a.jsonl"):
    path = tmp_path / name
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(data))
    return str(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_documents_are_counted_by_the_source_they_name(tmp_path, name):
    found, _ = survey_lines([write(tmp_path, name=name)], "here")
    assert {source: own.documents for source, own in found.items()} == {"pubmed": 100, "pmc": 300}
    assert found["pubmed"].lengths.total == sum(len(r["text"]) for r in RECORDS[::4])
    assert found["pubmed"].words == 199


def test_parquet_is_read_too(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(RECORDS), tmp_path / "a.parquet")
    found, _ = survey_lines([str(tmp_path / "a.parquet")], "here")
    assert found["here"].documents == 400


def test_what_is_no_document_is_counted_and_the_rest_goes_on(tmp_path):
    bad = b'{"text": 5}\n[1]\nnot json\n{"other": "x"}\n\xff\xfe\n\n'
    found, _ = survey_lines([write(tmp_path, bad + b'{"text": ["One.", "Two."]}\n')], "here")
    assert (found["here"].bad, found["here"].documents, found["here"].words) == (5, 1, 2)


def test_wanted_documents_come_back_whole_and_numbered_through_all_files(tmp_path):
    files = [write(tmp_path), write(tmp_path, name="b.jsonl.gz")]
    _, texts = survey_lines(files, "here", wanted=frozenset({0, 401}))
    assert texts == {0: RECORDS[0]["text"], 401: RECORDS[1]["text"]}


def test_every_document_has_the_same_chance_to_be_drawn(tmp_path):
    file = write(tmp_path)
    drawn = [
        number
        for seed in range(60)
        for own in survey_lines([file], "here", sample=10, seed=seed)[0].values()
        for number, _ in own.sample
    ]
    assert len(drawn) == 60 * 20
    quarters = [sum(q * 100 <= n < q * 100 + 100 for n in drawn) for q in range(4)]
    assert all(240 < count < 360 for count in quarters), quarters


def test_ratios_come_from_the_sample(tmp_path, sentencepiece_model):
    tokenizer = build_tokenizer(sentencepiece_model)
    (own,) = survey_lines([write(tmp_path, b'{"text": "aspirin inhibits"}\n')], "here")[0].values()
    found = ratios(own, tokenizer)
    tokens = len(tokenizer.encode("aspirin inhibits"))
    assert found == {
        "documents": 1,
        "tokens": tokens,
        "tokens_per_word": tokens / 2,
        "characters_per_token": 16 / tokens,
    }


def test_a_cut_file_is_named(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(LINES)[:-20])
    with pytest.raises(UserError, match=r"a.jsonl.zst is not a complete Zstandard file"):
        survey_lines([str(path)], "here")
