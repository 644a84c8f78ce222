import json

import pytest

from megatron_biollm.data.document_ids import DocumentIds, id_line, ids_path
from megatron_biollm.data.encode import EncodeOptions
from megatron_biollm.data.indexed import merge
from megatron_biollm.data.preprocess import preprocess
from megatron_biollm.tokenizer.tokenizer import build_tokenizer

ODD = ["12345678", 7, "a\\nb", "line\nfeed\r", "", None, 1.5, True, "β ü"]
KEPT = ["12345678", "7", "a\\nb", "line\nfeed\r", "", "", "", "", "β ü"]


def encode(folder, name, records, config, **options):
    source = folder / f"{name}.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    made = EncodeOptions(str(source), str(folder / name), append_eod=True, **options)
    return preprocess(made, build_tokenizer(config))[0].prefix


def test_every_document_keeps_its_own_id(tmp_path, hugging_face_model):
    records = [{"text": f"text {n}", "id": value} for n, value in enumerate(ODD)]
    ids = DocumentIds.open(encode(tmp_path, "corpus", records, hugging_face_model))
    assert [ids[document] for document in range(len(ODD))] == KEPT


def test_a_sequence_is_that_of_its_document(tmp_path, hugging_face_model):
    texts = [["One.", "Two."], [], ["Three."], "", ["Four.", "", "Five."]]
    records = [{"text": text, "id": f"d{n}"} for n, text in enumerate(texts)]
    prefix = encode(tmp_path, "corpus", records, hugging_face_model)
    ids = DocumentIds.open(prefix)
    assert [ids.of_sequence(n) for n in range(5)] == ["d0", "d0", "d2", "d4", "d4"]


@pytest.mark.parametrize("partitions", [1, 3])
def test_ids_follow_the_order_of_the_corpus(tmp_path, hugging_face_model, partitions):
    records = [{"text": f"text {n}", "id": n} for n in range(20)]
    options = {"partitions": partitions, "workers": 1}
    ids = DocumentIds.open(encode(tmp_path, "corpus", records, hugging_face_model, **options))
    expected = [n for part in range(partitions) for n in range(20)[part::partitions]]
    assert [int(ids[document]) for document in range(20)] == expected


def test_many_ids_are_found_without_reading_all(tmp_path, hugging_face_model):
    records = [{"text": "a", "id": "x" * (n % 700) + str(n)} for n in range(3000)]
    ids = DocumentIds.open(encode(tmp_path, "corpus", records, hugging_face_model))
    for document in (0, 1, 1023, 1024, 1025, 2047, 2048, 2999):
        assert ids[document] == records[document]["id"]


def test_documents_without_ids_have_no_file(tmp_path, hugging_face_model):
    records = [{"text": "a", "id": "1"}, {"text": "b", "id": "2"}]
    prefix = encode(tmp_path, "corpus", records, hugging_face_model)
    assert ids_path(prefix).read_text() == "1\n2\n"
    encode(tmp_path, "corpus", [{"text": "a"}], hugging_face_model)
    assert DocumentIds.open(prefix) is None and not ids_path(prefix).exists()


def test_a_line_left_out_leaves_no_id(tmp_path, hugging_face_model):
    records = [{"text": "a", "id": "1"}, {"id": "bad"}, {"text": "b", "id": "2"}]
    ids = DocumentIds.open(
        encode(tmp_path, "corpus", records, hugging_face_model, skip_bad_lines=True)
    )
    assert [ids[0], ids[1]] == ["1", "2"] and ids.count == 2


def test_merged_corpora_keep_their_ids(tmp_path, hugging_face_model):
    prefixes = [
        encode(tmp_path, name, [{"text": "a", "id": f"{name}{n}"} for n in range(3)],
               hugging_face_model) for name in "xy"
    ]  # fmt: skip
    merged = str(tmp_path / "merged")
    merge(prefixes, merged)
    ids = DocumentIds.open(merged)
    assert [ids[n] for n in range(6)] == ["x0", "x1", "x2", "y0", "y1", "y2"]
    ids_path(prefixes[1]).unlink()
    merge(prefixes, merged)
    assert DocumentIds.open(merged) is None


def test_ids_of_another_corpus_are_left_aside(tmp_path, hugging_face_model, caplog):
    records = [{"text": "a", "id": "1"}, {"text": "b", "id": "2"}]
    prefix = encode(tmp_path, "corpus", records, hugging_face_model)
    ids_path(prefix).write_text("1\n")
    assert DocumentIds.open(prefix) is None and "1 lines, but the corpus 2" in caplog.text


def test_an_id_is_one_line():
    assert id_line({"id": "a\n\\b"}) == b"a\\n\\\\b\n" and id_line({}) == b"\n"
