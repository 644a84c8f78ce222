"""Items of benchmark files are read from every format they come in."""

import gzip
import json
from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.decontaminate.items import read_items

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "benchmarks"


def items_of(tmp_path, name, content, **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_items([str(path)], **options))


def texts_of(tmp_path, name, content, **options):
    return [item.text for item in items_of(tmp_path, name, content, **options)]


MCQ = {"question": "Which vessel bleeds?", "options": {"A": "Middle meningeal", "B": "Basilar"}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.jsonl", f"{json.dumps(MCQ)}\n{{broken\n"),
        ("list.json", json.dumps([MCQ])),
        ("nested.json", json.dumps({"data": {"7": MCQ}})),
        ("packed.json.gz", gzip.compress(json.dumps([MCQ]).encode())),
        (
            "four.jsonl",
            '{"question":"Which vessel bleeds?","opa":"Middle meningeal","opb":"Basilar"}',
        ),
        ("no_header.csv", "Which vessel bleeds?,Middle meningeal,Basilar,A\n"),
        ("quoted.csv", '"Which vessel bleeds?",Middle meningeal,Basilar,A\n'),
        (
            "python_list.tsv",
            "\tquestion\tanswer_idx\toptions\n0\tWhich vessel bleeds?\tA\t"
            "[{'key': 'A', 'value': 'Middle meningeal'}, {'key': 'B', 'value': 'Basilar'}]\n",
        ),
    ],
)
def test_a_question_comes_with_its_options(tmp_path, name, content):
    (item,) = items_of(tmp_path, name, content)
    assert item.text == "Which vessel bleeds?"
    assert item.options == ("Middle meningeal", "Basilar")
    assert not item.passage
    assert item.name == f"{tmp_path.name}/{name}#0"


def test_contexts_only_on_request(tmp_path):
    record = {"1": {"QUESTION": "Does it help?", "CONTEXTS": ["It was given.", "It was taken."]}}
    content = json.dumps(record)
    assert texts_of(tmp_path, "q.json", content) == ["Does it help?"]
    assert texts_of(tmp_path, "q.json", content, contexts=True) == [
        "Does it help?",
        "It was given.",
        "It was taken.",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.PubTator", "12|t|A title.\n12|a|An abstract.\n12\t0\t5\tTitle\tDisease\tD1\n"),
        ("a.tsv", "A\tO\ntitle\tB-Disease\n.\tO\n\nAn\tO\nabstract\tI-X\n.\tO\n"),
        ("a.iob2", "A O\ntitle O\n. O\n\nAn O\nabstract O\n. O\n"),
        ("a.xml", "<c><passage><text>A title.</text></passage><text>An abstract.</text></c>"),
        ("b.xml", '<d><sentence id="1" text="A title."/><sentence text="An abstract."/></d>'),
        ("a.json", '{"12": {"title": "A title.", "abstract": "An abstract.", "triples": []}}'),
        ("a.csv", "ID,section_text,dialogue\n0,A title.,An abstract.\n"),
    ],
)
def test_sentences_and_abstracts(tmp_path, name, content):
    items = items_of(tmp_path, name, content)
    assert [item.text.replace(" .", ".") for item in items] == ["A title.", "An abstract."]
    assert all(item.passage for item in items)


def test_long_fields_of_a_table_without_names_are_texts(tmp_path):
    table = "11\tA title of five words\tAn abstract, which is longer than that.\n"
    assert texts_of(tmp_path, "a.tsv", table) == table.strip().split("\t")[1:]


def test_a_line_loses_its_number(tmp_path):
    assert texts_of(tmp_path, "a.in", "BC2GM000008491 Phenotypic analysis of trio and Abl.\n") == [
        "Phenotypic analysis of trio and Abl."
    ]


def test_what_lies_beside_the_items_is_left_aside(tmp_path):
    (tmp_path / "README.md").write_text("This folder holds questions of many kinds.")
    (tmp_path / "gold_standard.tsv").write_text("1\tThis is no item but an answer to it\n")
    (tmp_path / "test.jsonl").write_text(json.dumps(MCQ))
    assert [item.text for item in read_items([str(tmp_path)])] == ["Which vessel bleeds?"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("a.json", "{}", "no item"), ("a.json.gz", b"no gzip", "cannot be read")],
)
def test_a_file_without_items_is_refused(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        items_of(tmp_path, name, content)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list(read_items([str(tmp_path / "none.json")]))


@pytest.mark.skipif(not SHARED.exists(), reason="the shared benchmark files are not here")
@pytest.mark.parametrize(
    ("path", "count", "options"),
    [
        ("medqa/phrases_no_exclude_test.jsonl", 1273, 4),
        ("medqa/5_options/test.tsv.gz", 1273, 5),
        ("medmcqa/dev.json", 4183, 4),
        ("pubmedqa/ori_pqal.json", 1000, 0),
        ("mmlu_medical/dev", 45, 4),
        ("mmlu_medical/val", 208, 4),
        ("bc5cdr/CDR_TestSet.PubTator.txt.gz", 1000, 0),
        ("ncbi_disease/conll/devel.tsv.gz", 923, 0),
        ("bc2gm/conll/test.tsv.gz", 5000, 0),
        ("gad/1/test.tsv.gz", 534, 0),
        ("extra_hoc/test.tsv.gz", 315, 0),
        ("biored/Dev.BioC.JSON.gz", 200, 0),
    ],
)
def test_real_files_have_the_items_their_readme_counts(path, count, options):
    items = list(read_items([str(SHARED / path)]))
    assert len(items) == count
    assert sum(len(item.options) == options for item in items) >= 0.98 * count
