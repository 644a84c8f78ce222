import base64
import io
import json
import tarfile

import pytest
from lxml import etree

from megatron_biollm.corpus.read import read_file
from megatron_biollm.corpus.readers import note_table
from megatron_biollm.corpus.readers.clinical_notes import FORMATS
from megatron_biollm.corpus.readers.registry import find_format
from megatron_biollm.corpus.report import FileReport
from tests.corpus.shared_samples import (
    SAMPLES,
    expected_counts,
    needs_samples,
    read_sample,
    word_coverage,
)


def read(data, name, source=None):
    """As the corpus reads a stream: by its content, and by what the user says of it."""
    report = FileReport(name)
    data = data if isinstance(data, bytes) else data.encode()
    form = find_format(data[:65536], name, source)
    return list(form.read(io.BufferedReader(io.BytesIO(data)), name, report)), report


def sections(document):
    return {s.name: document.text[s.start : s.end] for s in document.sections}


def ccda(body, patient="123"):
    return f"""<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3">
    <id root="2.16.1" extension="9"/><title>Progress Note</title>
    <effectiveTime value="20120910112233-0500"/><languageCode code="en-US"/>
    <recordTarget><patientRole><id root="2.16.2" extension="{patient}"/><addr><city>Beaverton</city>
    </addr><patient><name><given>Eve</given><family>Betterhalf</family></name></patient>
    </patientRole></recordTarget>
    <component><structuredBody>{body}</structuredBody></component></ClinicalDocument>"""


PLAN = """<component><section><title>PLAN</title><text><paragraph>Rest and
<content styleCode="Bold">fluids</content>.</paragraph><list><item>one<list><item>inner</item>
</list></item><item>two<br/>lines</item></list><table><caption>Doses</caption><thead><tr><th>Drug</th>
<th>Dose</th></tr></thead><tbody><tr><td ID="d1">Aspirin</td><td>100 mg</td></tr></tbody></table>
</text><entry><act><text><reference value="#d1"/></text></act></entry></section></component>"""


def test_a_ccda_document_is_the_titles_and_narrative_of_its_sections():
    (document,), report = read(ccda(PLAN), "a.xml")
    assert document.text == (
        "Progress Note\n\nPLAN\nRest and fluids.\none\ninner\ntwo\nlines\n"
        "Doses\nDrug | Dose\nAspirin | 100 mg"
    )
    assert [s.name for s in document.sections] == ["title", "plan"]
    assert (document.source, document.date, document.language) == (
        "clinical_notes", "2012-09-10", "en",
    )  # fmt: skip
    assert report.fault_count == 0


def test_the_header_of_a_ccda_document_gives_a_key_and_no_names():
    (first,), _ = read(ccda(PLAN), "Eve_Betterhalf.xml")
    (second,), _ = read(ccda(PLAN).replace('extension="9"', 'extension="8"'), "b.xml")
    (other,), _ = read(ccda(PLAN, patient="124"), "c.xml")
    written = f"{first.text} {first.id} {first.metadata['patient']}"
    assert not any(word in written for word in ("Eve", "Betterhalf", "Beaverton", "123"))
    assert first.metadata["patient_names"] == ["Betterhalf", "Eve"]
    assert first.metadata["patient"] == second.metadata["patient"] != other.metadata["patient"]
    assert first.id != second.id


def test_bodies_of_a_ccda_document_that_are_packed_text():
    data = base64.b64encode("Plain résumé.".encode()).decode()
    body = (
        f'<nonXMLBody><text mediaType="text/plain" representation="B64">{data}</text></nonXMLBody>'
    )
    packed = ccda("").replace("<structuredBody></structuredBody>", body)
    assert sections(read(packed, "a.xml")[0][0])["body"] == "Plain résumé."
    _, report = read(packed.replace(data, "%%%"), "a.xml")
    assert "base64" in report.faults[0].reason
    _, report = read(packed.replace("text/plain", "application/pdf"), "a.xml")
    assert report.dropped == {"no_text": 1}


@pytest.mark.parametrize(
    "broken",
    [
        ccda(PLAN)[:900],
        ccda(PLAN).replace("Rest", "\0"),
        ccda(PLAN).replace('<?xml version="1.0"?>', '<!DOCTYPE x [<!ENTITY a "b">]>'),
    ],
)
def test_a_broken_ccda_document_is_named_and_the_next_one_read(broken):
    documents, report = read(broken + ccda(PLAN), "a.xml")
    assert len(documents) == 1
    assert report.faults[0].position == "a.xml, document 1"


def attachment(text, kind="text/plain", **more):
    data = text if isinstance(text, bytes) else text.encode()
    return {"contentType": kind, "data": base64.b64encode(data).decode(), **more}


def reference(number, *attachments, subject="Patient/7"):
    return {
        "resourceType": "DocumentReference",
        "id": number,
        "type": {"text": "Progress note"},
        "date": "2020-05-06T07:08:09Z",
        "subject": {"reference": subject},
        "content": [{"attachment": a} for a in attachments],
    }


def bundle(*resources, **more):
    entries = [{"resource": resource} for resource in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries, **more}


PATIENT = {"resourceType": "Patient", "id": "7", "name": [{"family": "Betterhalf"}],
           "text": {"div": "<div>Eve Betterhalf, 123 Main Street</div>"}}  # fmt: skip
WEIGHT = {
    "resourceType": "Observation",
    "code": {"coding": [{"display": "Body Weight"}]},
    "valueQuantity": {"value": 70.123456, "unit": "kg"},
    "effectiveDateTime": "2019-01-02T03:04:05Z",
}
CARE_PLAN = {"resourceType": "CarePlan", "text": {"div": "<div>Wound care.<br/>Daily</div>"}}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (attachment("Line one\nline two"), "Line one\nline two"),
        (attachment("caf\xe9".encode("latin-1"), "text/plain; charset=ISO-8859-1"), "café"),
        (attachment("<html><body><p>One &amp; <b>two</b></p><p>three", "text/html"),
         "One & two\nthree"),
        (attachment("<div xmlns='http://www.w3.org/1999/xhtml'>One<br/>two</div>",
                    "application/xhtml+xml"), "One\ntwo"),
        (attachment(ccda(PLAN), "text/xml"), read(ccda(PLAN), "a.xml")[0][0].text),
    ],
)  # fmt: skip
def test_attached_notes_of_every_kind_of_text(given, text):
    (document,), report = read(json.dumps(reference("1", given)), "a.json")
    assert sections(document)["title"] == "Progress note"
    assert document.text == f"Progress note\n\n{text}"
    assert document.date == "2020-05-06" and document.metadata["patient"]
    assert report.fault_count == 0


def test_attachments_that_are_no_text_or_lie_elsewhere_are_counted_and_broken_ones_named():
    lines = [
        reference("1", attachment(b"%PDF", "application/pdf")),
        reference("2", {"contentType": "text/plain", "url": "Binary/5"}),
        reference("3", {"contentType": "text/plain", "data": "!!!"}),
        reference("4", attachment(b"caf\xe9")),
        reference("5", attachment("a\0b")),
        {"resourceType": "Organization", "name": "Hospital"},
        {"no": "resource"},
        reference("6", attachment("Kept.")),
    ]
    documents, report = read("\n".join(map(json.dumps, lines)), "a.ndjson")
    assert [sections(document)["note"] for document in documents] == ["Kept."]
    assert report.dropped == {"attachment_no_text": 1, "attachment_elsewhere": 1, "no_text": 1}
    assert [fault.position for fault in report.faults] == [
        f"a.ndjson, line {number}" for number in (3, 4, 5, 7)
    ]


def test_notes_of_one_patient_share_a_key_however_the_patient_is_referred_to():
    forms = ("Patient/7", "urn:uuid:7", "https://host/fhir/Patient/7", "Patient/8")
    notes = [reference(str(i), attachment("x"), subject=form) for i, form in enumerate(forms)]
    documents, _ = read(json.dumps(bundle(PATIENT, *notes, WEIGHT)), "a.json")
    keys = [document.metadata["patient"] for document in documents]
    # The fifth document says what the rest of the bundle holds.
    assert len(set(keys[:3])) == 1 and keys[3] != keys[0] == keys[4]
    assert all(document.metadata["patient_names"] == ["Betterhalf"] for document in documents)
    assert "Betterhalf" not in "".join(document.text for document in documents)


def test_a_bundle_without_notes_is_one_document_of_narratives_and_codes():
    (document,), _ = read(json.dumps(bundle(PATIENT, WEIGHT, WEIGHT, CARE_PLAN)), "a.json")
    assert document.text == (
        "Observations\n2019-01-02: Body Weight: 70.12 kg\n\nCare plans\nWound care.\nDaily"
    )
    assert read(json.dumps(bundle(PATIENT)), "a.json")[1].dropped == {"no_text": 1}


def test_a_composition_is_its_sections_and_stands_for_its_bundle():
    composition = {
        "resourceType": "Composition",
        "title": "Discharge summary",
        "section": [
            {"title": "Course", "text": {"div": "<div>Well.</div>"},
             "section": [{"title": "Inner", "text": {"div": "<div>More.</div>"}}]}
        ],
    }  # fmt: skip
    given = bundle(composition, PATIENT, CARE_PLAN, type="document")
    (document,), _ = read(json.dumps(given), "a.json")
    assert document.text == "Discharge summary\n\nCourse\nWell.\n\nInner\nMore."


def test_published_sets_are_known_by_their_columns():
    dialog = 'ID,section_header,section_text,dialogue\n0,GENHX,"Text, and\nmore.",Doctor: Hi\n'
    (document,), _ = read(dialog, "train.csv")
    assert sections(document) == {"genhx": "Text, and\nmore.", "dialogue": "Doctor: Hi"}
    assert document.licence == "CC BY 4.0" and document.source == "clinical_notes"
    (document,), _ = read("label,description,text\n2, Title ,Body\n", "test.csv")
    assert sections(document) == {"title": "Title", "note": "Body"}
    aci = {"data": [{"src": "[doctor] hi", "tgt": "NOTE", "file": "0-aci"}]}
    (document,), _ = read(json.dumps(aci), "train.json")
    assert sections(document) == {"note": "NOTE", "dialogue": "[doctor] hi"}


def test_tables_and_texts_are_notes_only_where_the_user_says_so():
    table = "note_id,subject_id,charttime,text\n5-DS-1,5,2180-01-02 03:04:05,Seen.\n"
    assert find_format(table.encode(), "notes.csv") is None
    (document,), _ = read(table, "notes.csv", source="clinical_notes")
    assert (document.text, document.date) == ("Seen.", "2180-01-02")
    assert document.metadata["patient"] and "5-DS-1" not in document.to_json()
    (document,), _ = read("Seen again.\n", "Eve_Betterhalf.txt", source="clinical_notes")
    assert (document.text, document.source) == ("Seen again.", "clinical_notes")
    assert "Eve" not in document.to_json()
    lines = '{"patient_id": 5, "note_text": "One"}\n{"note_text": ""}\n'
    (document,), report = read(lines, "notes.jsonl", source="clinical_notes")
    assert document.text == "One" and report.dropped == {"no_text": 1}


def test_a_table_without_a_column_for_notes_is_passed_over():
    documents, report = read("name,age\nEve,38\n", "people.csv", source="clinical_notes")
    assert not documents and "name, age" in report.passed_over


def test_broken_rows_are_named_by_their_line_and_the_rest_is_read():
    rows = [b"note_id,text", b"1,good", b"2,caf\xe9", b"3,a\0b", b"4", b"5,x,y", b"6,", b"7,end"]
    documents, report = read(b"\n".join(rows), "n.csv", source="clinical_notes")
    assert [document.text for document in documents] == ["good", "end"]
    assert [fault.position for fault in report.faults] == [
        f"n.csv, line {number}" for number in (3, 4, 5, 6)
    ]
    assert report.dropped == {"no_text": 1}


def test_a_note_may_be_long_and_a_quote_that_never_closes_is_given_up(monkeypatch):
    long = "word " * 100_000
    (document,), _ = read(f'text\n"{long}"\n', "n.csv", source="clinical_notes")
    assert document.text == long.strip()
    monkeypatch.setattr(note_table, "LONGEST_FIELD", 1000)
    documents, report = read(f'text\ngood\n"{long}', "n.csv", source="clinical_notes")
    assert [document.text for document in documents] == ["good"]
    assert report.broken


def test_members_of_an_archive_do_not_lose_the_next_member(tmp_path):
    path = tmp_path / "notes.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(3):
            data = f"label,description,text\n1,Title,Text {number}\n".encode()
            member = tarfile.TarInfo(f"{number}.csv")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    documents = list(read_file(path, FileReport(str(path))))
    assert [sections(document)["note"] for document in documents] == ["Text 0", "Text 1", "Text 2"]
    assert len({document.id for document in documents}) == 3


@needs_samples
@pytest.mark.parametrize(("file", "count"), expected_counts("notes"))
def test_real_files_give_as_many_documents_as_they_hold(file, count):
    documents, report = read_sample(file)
    assert len(documents) == count
    assert report.fault_count == 0 and not report.dropped
    assert {document.source for document in documents} == {"clinical_notes"}
    assert len({document.id for document in documents}) == count
    assert report.format in {form.name for form in FORMATS}


@needs_samples
def test_no_narrative_of_real_ccda_documents_is_lost():
    file = "notes/hl7_ccda_examples.tar.gz"
    documents, _ = read_sample(file)
    with tarfile.open(SAMPLES / file) as archive:
        roots = [etree.parse(archive.extractfile(m)).getroot() for m in archive if m.isfile()]
    for root, document in zip(roots, documents, strict=True):
        texts = root.iterfind(".//{urn:hl7-org:v3}section/{urn:hl7-org:v3}text")
        wanted = " ".join(piece for text in texts for piece in text.itertext("*"))
        assert word_coverage(wanted, document.text) >= 0.99
        patient = root.find(".//{*}recordTarget/{*}patientRole/{*}addr/{*}streetAddressLine")
        assert patient.text not in document.text


@needs_samples
def test_no_narrative_of_real_fhir_bundles_is_lost():
    file = "notes/synthea_fhir_r4.tar.gz"
    documents, _ = read_sample(file)
    with tarfile.open(SAMPLES / file) as archive:
        bundles = [json.load(archive.extractfile(m)) for m in archive if m.isfile()]
    for given, document in zip(bundles, documents, strict=True):
        resources = [entry["resource"] for entry in given["entry"]]
        plans = {r["text"]["div"] for r in resources if r["resourceType"] == "CarePlan"}
        wanted = " ".join(" ".join(etree.fromstring(div).itertext()) for div in plans)
        assert word_coverage(wanted, document.text) >= 0.99
        codes = {r["code"]["text"] for r in resources if r["resourceType"] == "Observation"}
        assert all(code in document.text for code in codes)
        name = next(r for r in resources if r["resourceType"] == "Patient")["name"][0]["family"]
        assert name not in document.text
