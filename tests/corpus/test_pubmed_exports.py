import io
import json

from megatron_biollm.corpus.readers.pubmed_exports import FORMATS
from megatron_biollm.corpus.readers.registry import find_format
from megatron_biollm.corpus.report import FileReport

PUBMEDQA, TABLE, PUBTATOR = FORMATS


def read(form, data, name):
    data = data if isinstance(data, bytes) else data.encode()
    assert find_format(data[: 1 << 16], name) is form
    report = FileReport(name)
    return list(form.read(io.BytesIO(data), name, report)), report


def question(number, contexts=("One.", "Two.")):
    return {
        "QUESTION": f"Is it {number}?", "CONTEXTS": list(contexts), "LABELS": ["AIMS", "RESULTS"],
        "LONG_ANSWER": "It is.", "YEAR": "2011", "MESHES": ["Humans"], "final_decision": "yes",
    }  # fmt: skip


def test_a_question_its_contexts_and_its_long_answer_are_an_abstract():
    documents, _ = read(PUBMEDQA, json.dumps({"17": question(1)}, indent=4), "a.json")
    document = documents[0]
    assert document.text == "Is it 1?\n\nAIMS: One.\n\nRESULTS: Two.\n\nIt is."
    assert [s.name for s in document.sections] == ["title", "aims", "results", "conclusions"]
    assert (document.id, document.date, document.source) == ("17", "2011", "pubmed")
    assert document.metadata == {"pmid": "17", "mesh": ["Humans"]}


def test_many_questions_are_read_piece_by_piece():
    given = {str(i): question(i, ["x" * 5000]) for i in range(500)}
    documents, report = read(PUBMEDQA, json.dumps(given), "a.json")
    assert [d.id for d in documents] == list(given) and report.fault_count == 0


def test_json_that_breaks_off_keeps_what_came_before():
    text = json.dumps({str(i): question(i) for i in range(3)})
    documents, report = read(PUBMEDQA, text[:-30], "a.json")
    assert len(documents) == 2
    assert report.broken and report.faults[0].position == "after record 2"


def test_a_record_of_another_kind_is_named_and_the_rest_is_read():
    given = {"1": question(1), "2": [1], "3": {"QUESTION": "?"}, "4": question(4)}
    documents, report = read(PUBMEDQA, json.dumps(given), "a.json")
    assert [d.id for d in documents] == ["1", "4"]
    assert [f.position for f in report.faults] == ["record '2'", "record '3'"]


def test_a_question_that_is_not_utf8_is_named_and_the_rest_is_read():
    text = json.dumps({"1": question("caf@"), "2": question("\ud800"), "3": question(3)})
    documents, report = read(PUBMEDQA, text.encode().replace(b"@", b"\xe9"), "a.json")
    assert [d.id for d in documents] == ["3"]
    assert [f.reason for f in report.faults] == ["not UTF-8, or half of a surrogate pair"] * 2


def test_rows_of_a_table_are_documents_by_pmid_or_number():
    text = (
        'record_id,pubmedID,Title,authors,abstract,year\r\n1,77,"A, b",X,"Two\nlines",1997.0\r\n'
        "2,,Only a title,,,\n3,78,,Y,,2000\n\n"
    )
    documents, report = read(TABLE, text, "a.csv")
    assert [(d.id, d.text, d.date) for d in documents] == [
        ("77", "A, b\n\nTwo lines", "1997"),
        ("a.csv#2", "Only a title", None),
    ]
    assert report.dropped == {"no_text": 1}


def test_a_row_that_is_not_utf8_or_never_ends_is_named_and_left_out():
    rows = [b"title,abstract", b"one,a", b"caf\xe9,b", b"two,c", b'"' + b"x" * 200_000, b"three,d"]
    documents, report = read(TABLE, b"\n".join(rows), "a.csv")
    assert [d.text for d in documents] == ["one\n\na", "two\n\nc", "three\n\nd"]
    assert [f.position for f in report.faults] == ["line 3", "line 5"]


def test_tables_without_abstracts_are_not_taken():
    assert find_format(b"title,text\n1,2\n", "a.csv") is None


def test_pubtator_blocks_lose_their_annotations():
    text = (
        "26094|t|A title.\n26094|a|Text | more.\n26094\t27\t37\tdepression\tDisease\tD003866\n\n"
        "PMC7|t|Two\nPMC7|a|\n8|t|\n8|a|\n\n"
    )
    documents, report = read(PUBTATOR, text, "sample.txt")
    assert [(d.id, d.text) for d in documents] == [
        ("26094", "A title.\n\nText | more."),
        ("PMC7", "Two"),
    ]
    assert [d.metadata for d in documents] == [{"pmid": "26094"}, {}]
    assert report.dropped == {"no_text": 1}


def test_a_pubtator_line_that_is_not_utf8_is_named():
    documents, report = read(PUBTATOR, b"1|t|One\n1|a|caf\xe9\n", "a.txt")
    assert [d.text for d in documents] == ["One"] and report.fault_count == 1
