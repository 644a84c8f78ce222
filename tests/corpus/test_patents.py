import gzip
import io
import re
import tracemalloc

import pytest
from lxml import etree

from megatron_biollm.config import UserError
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.patent_selection import PatentSelection, PatentSelectionConfig
from megatron_biollm.corpus.readers import xml_documents
from megatron_biollm.corpus.readers.math import _INVISIBLE
from megatron_biollm.corpus.readers.patent_xml import symbol
from megatron_biollm.corpus.readers.patents import read_patents, read_search
from megatron_biollm.corpus.readers.sgml import with_characters
from megatron_biollm.corpus.report import FileReport
from megatron_biollm.corpus.steps import Drop
from tests.corpus.shared_samples import (
    SAMPLES,
    expected_counts,
    needs_samples,
    read_sample,
    word_coverage,
)

DECLARATION = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE us-patent-grant SYSTEM "v4.dtd" [ ]>\n'
)


def grant(number="06836899", body="<p>Text.</p>", claims="<claim-text>1. A thing.</claim-text>"):
    return f"""{DECLARATION}<us-patent-grant lang="EN"><us-bibliographic-data-grant>
    <publication-reference><document-id><country>US</country><doc-number>{number}</doc-number>
    <kind>B2</kind><date>20050104</date></document-id></publication-reference>
    <application-reference><document-id><country>US</country><doc-number>10339710</doc-number>
    </document-id></application-reference>
    <classifications-ipcr><classification-ipcr><section>A</section><class>61</class>
    <subclass>K</subclass><main-group>31</main-group><subgroup>7068</subgroup>
    </classification-ipcr></classifications-ipcr>
    <invention-title>A thing</invention-title></us-bibliographic-data-grant>
    <abstract><p>In short.</p></abstract><description>{body}</description>
    <claims><claim>{claims}</claim></claims></us-patent-grant>
    """


def read(data, name="ipg050104.xml", reader=read_patents):
    report = FileReport(name)
    data = data if isinstance(data, bytes) else data.encode()
    return list(reader(io.BytesIO(data), name, report)), report


def section(document, name):
    return next(document.text[s.start : s.end] for s in document.sections if s.name == name)


def test_a_grant_has_its_number_family_classes_and_sections():
    (document,), _ = read(grant())
    assert (document.id, document.date, document.language) == ("US6836899B2", "2005-01-04", "en")
    assert document.metadata == {
        "family": "US10339710",
        "classification": ["A61K31/7068"],
        "title": "A thing",
        "kind": "grant",
    }
    assert [s.name for s in document.sections] == ["title", "abstract", "description", "claims"]
    assert document.text == "A thing\n\nIn short.\n\nText.\n\n1. A thing."
    assert "public domain" in document.licence


def test_headings_lists_tables_formulas_and_steps_of_claims_stand_on_lines():
    body = """<heading>BACKGROUND</heading><p num="1">Water, H<sub>2</sub>O,
    at 10<sup>6</sup> Pa:<ul><li>hot</li><li>cold</li></ul>as in <figref>FIG. 1</figref>.</p>
    <p><tables><table><tgroup><thead><row><entry>Dose</entry><entry>Effect</entry></row></thead>
    <tbody><row><entry>1 mg</entry><entry>none</entry></row></tbody></tgroup></table></tables></p>
    <p><maths><math><mfrac><mi>a</mi><mi>b</mi></mfrac></math></maths></p>"""
    claims = """<claim-text>1. A method:<claim-text>(a) mixing; and</claim-text>
    <claim-text>(b) the step of <claim-ref>claim 0</claim-ref>, again.</claim-text></claim-text>"""
    (document,), _ = read(grant(body=body, claims=claims))
    assert section(document, "description") == (
        "BACKGROUND\n\nWater, H2O, at 10^6 Pa:\nhot\ncold\nas in FIG. 1.\n\n"
        "Dose | Effect\n1 mg | none\n\na/b"
    )
    assert section(document, "claims") == (
        "1. A method:\n(a) mixing; and\n(b) the step of claim 0, again."
    )


@pytest.mark.parametrize("chunk", [1, 2, 100, 1 << 20])
def test_a_bulk_file_is_many_documents_wherever_reads_end(chunk, monkeypatch):
    monkeypatch.setattr(xml_documents, "_READ_BYTES", chunk)
    listing = '<?xml version="1.0"?>\n<sequence-cwu id="S"><number>1</number></sequence-cwu>\n'
    documents, report = read(grant("0001") + listing + grant("0002"))
    assert [document.id for document in documents] == ["US1B2", "US2B2"]
    assert report.dropped == {"sequence_listing": 1}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (grant("0002").partition("<abstract>")[0], "ends too early"),
        (grant("0002", body="<p>open<b></p>"), "not well-formed"),
        (grant("0002", body="<p>\0</p>"), "not well-formed"),
        (grant("0002", body="<p>caf\udce9</p>"), "not well-formed"),
        (grant("0002").replace("[ ]", '[<!ENTITY a "b"><!ENTITY c "&a;&a;">]'), "refused"),
        ('<?xml version="1.0"?><html><p>No patent.</p></html>', "no patent"),
    ],
)
def test_a_broken_document_in_a_bulk_file_costs_no_other(broken, reason):
    data = (grant("0001") + broken + "\n" + grant("0003")).encode("utf-8", "surrogateescape")
    documents, report = read(data)
    assert [document.id for document in documents] == ["US1B2", "US3B2"]
    assert report.faults[0].position == "ipg050104.xml, document 2"
    assert reason in report.faults[0].reason


def test_a_patent_of_a_title_alone_has_no_text():
    bare = re.sub(r"<(abstract|description|claims)>.*?</\1>", "", grant(), flags=re.DOTALL)
    documents, report = read(bare)
    assert not documents and report.dropped == {"no_text": 1}


PATDOC = """<!DOCTYPE PATDOC PUBLIC "-//USPTO//DTD ST.32 US PATENT GRANT V2.4//EN" [
<!ENTITY P1.TIF SYSTEM "P1.TIF" NDATA TIF> ]>
<PATDOC DTD="2.4"><SDOBI><B100><B110><DNUM><PDAT>06336130</PDAT></DNUM></B110>
<B130><PDAT>B1</PDAT></B130><B140><DATE><PDAT>20020101</PDAT></DATE></B140></B100>
<B200><B210><DNUM><PDAT>09343526</PDAT></DNUM></B210></B200>
<B500><B510><B511><PDAT>A61K  902</PDAT></B511><B512><PDAT>C12N 1509</PDAT></B512></B510>
<B540><STEXT><PDAT>Cells</PDAT></STEXT></B540></B500></SDOBI>
<SDODE><BTEXT><PARA ID="P1"><PTEXT><PDAT>Take 5 &mgr;g at 10</PDAT>
<HIL><SP><PDAT>6</PDAT></SP></HIL>
<PDAT> &lt; &alpha; &unknown; R&D</PDAT></PTEXT></PARA>%s</BTEXT></SDODE></PATDOC>
"""


def test_grants_of_2001_keep_their_named_characters():
    (document,), report = read(PATDOC.replace("R&D", "R") % "")
    assert section(document, "description") == "Take 5 μg at 10^6 < α &unknown; R"
    assert (document.id, document.metadata["family"]) == ("US6336130B1", "US9343526")
    assert document.metadata["classification"] == ["A61K9/02", "C12N15/09"]
    assert report.fault_count == 0


def test_sgml_that_is_no_xml_is_read_too_and_files_without_declarations_are_split():
    empty = '<EMI ID="E1" FILE=P1.TIF WI=10><PARA ID=P2><PTEXT><PDAT>More.</PDAT></PTEXT></PARA>'
    documents, report = read(PATDOC % empty + PATDOC % empty)
    assert [section(document, "description") for document in documents] == [
        "Take 5 μg at 10^6 < α &unknown; R&D\n\nMore."
    ] * 2
    assert report.fault_count == 0


def test_search_results_lose_their_paragraph_numbers_but_not_those_of_lists():
    result = """[{"guid": "US-20230009372-A1", "type": "US-PGPUB", "inventionTitle": "A &amp; B",
    "datePublished": "2023-01-12T00:00:00Z", "applicationNumber": "17/647036",
    "cpcInventiveFlattened": "A61B5/11;G06F3/00",
    "descriptionHtml": "FIELD<br />(1) <b>5</b> &lt; 6.<br />(2) Do:<br />(1) one<br />(3) E.",
    "claimsHtml": "1. A claim."}, {"guid": 5}]"""
    (document,), report = read(result, "search.json", read_search)
    assert document.id == "US20230009372A1" and document.date == "2023-01-12"
    assert document.metadata["family"] == "US17647036"
    assert document.metadata["kind"] == "application"
    assert section(document, "title") == "A & B"
    assert section(document, "description") == ("FIELD\n\n5 < 6.\n\nDo:\n\n(1) one\n\nE.")
    assert report.fault_count == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("A61K 31/7068 20060101", "A61K31/7068"),
        ("A61K031/7068", "A61K31/7068"),
        ("A61K 317068", "A61K31/7068"),
        ("A61K  902", "A61K9/02"),
        ("G01N33/53", "G01N33/53"),
        ("A61K", "A61K"),
        ("428 641", ""),
    ],
)
def test_classes_have_one_spelling(code, expected):
    assert symbol(code) == expected


def patent(*classes, source="patents"):
    return Document("text", "1", source, metadata={"classification": list(classes)})


@pytest.mark.parametrize(
    ("classes", "kept"),
    [
        (["A61K31/70"], True),
        (["H01L21/00", "C12N15/09"], True),
        (["G01N33/5308"], True),
        (["G01N33/02"], False),
        (["A61K8/02", "A61Q1/00"], False),
        (["A61K310/00"], False),
        (["C07D495/04", "H05B33/14"], False),
        ([], False),
    ],
)
def test_biomedical_patents_are_those_of_biomedical_classes(classes, kept):
    outcome = PatentSelection(PatentSelectionConfig())(patent(*classes))
    assert isinstance(outcome, Document) if kept else outcome.reason == "not_biomedical"


def test_selection_takes_the_users_classes_and_leaves_other_sources_alone():
    selection = PatentSelection(PatentSelectionConfig(classes=["H05B"]))
    assert isinstance(selection(patent("A61K31/00")), Drop)
    assert isinstance(selection(patent("H05B33/14")), Document)
    assert isinstance(selection(patent(source="pubmed")), Document)
    with pytest.raises(UserError, match="A61 K"):
        PatentSelectionConfig(classes=["A61 K"])


def test_memory_does_not_grow_with_a_bulk_file():
    one = grant(body=f"<p>{'word ' * 4000}</p>").encode()

    def peak(count):
        stream = io.BytesIO(one * count)
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_patents(stream, "a.xml", FileReport("a"))) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # 4 MB and 16 MB.
    assert peak(800) < 1.1 * peak(200)


@needs_samples
@pytest.mark.parametrize(("file", "count"), expected_counts("patents"))
def test_real_files_give_as_many_documents_as_they_hold(file, count):
    documents, report = read_sample(file)
    assert len(documents) + report.dropped["sequence_listing"] == count
    assert report.fault_count == 0 and report.dropped["no_text"] == 0
    assert all(document.licence and document.date for document in documents)


BODY = ("abstract", "description", "claims", "subdoc-abstract", "subdoc-description",
        "subdoc-claims", "SDOAB", "SDODE", "SDOCL")  # fmt: skip


@needs_samples
@pytest.mark.parametrize("file", [file for file, _ in expected_counts("patents") if ".xml" in file])
def test_no_text_of_real_patents_is_lost(file):
    """Against all text that lxml finds, without the numbers of paragraphs and tables."""
    documents, _ = read_sample(file)
    data = gzip.decompress((SAMPLES / file).read_bytes())
    parser = etree.XMLParser(resolve_entities=False, huge_tree=True, remove_pis=True)
    roots = [
        etree.fromstring(with_characters(part.strip()), parser)
        for part in re.split(rb"(?=<\?xml\s)", data)
        if part.strip() and b"<sequence-cwu" not in part[:500]
    ]
    assert len(roots) == len(documents)
    for root, document in zip(roots, documents, strict=True):
        for number in root.iter("number"):
            number.text = None
        body = (element for name in BODY for element in root.iterfind(name))
        wanted = " ".join("".join(e.itertext()).translate(_INVISIBLE) for e in body)
        assert word_coverage(wanted, document.text) >= 0.99, document.id
