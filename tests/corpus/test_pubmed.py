import gzip
import io
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from lxml import etree

from megatron_biollm.corpus.read import read_corpus
from megatron_biollm.corpus.readers.pubmed import read_pubmed
from megatron_biollm.corpus.readers.xml import SAFE
from megatron_biollm.corpus.report import CorpusReport, FileReport

PUBMED = Path(__file__).parents[2].parent / "shared" / "data" / "corpus" / "pubmed"
needs_pubmed = pytest.mark.skipif(
    not PUBMED.is_dir(), reason="no sample of real PubMed files beside the checkout"
)


def record(pmid="1", title="A title.", abstract="<AbstractText>Text.</AbstractText>", date=""):
    return (
        f"<PubmedArticle><MedlineCitation><PMID>{pmid}</PMID><Article><Journal><JournalIssue>"
        f"<PubDate>{date}</PubDate></JournalIssue></Journal><ArticleTitle>{title}</ArticleTitle>"
        f"<Abstract>{abstract}</Abstract></Article><CommentsCorrectionsList>"
        "<CommentsCorrections><PMID>999</PMID></CommentsCorrections></CommentsCorrectionsList>"
        "</MedlineCitation></PubmedArticle>\n"
    )


def article_set(*records):
    return f"<PubmedArticleSet>\n{''.join(records)}</PubmedArticleSet>"


def read(xml, name="file.xml"):
    report = FileReport(name)
    stream = io.BytesIO(xml if isinstance(xml, bytes) else xml.encode())
    return list(read_pubmed(stream, name, report)), report


def test_a_record_is_its_title_a_blank_line_and_its_abstract():
    documents, _ = read(article_set(record(pmid="17", date="<Year>2019</Year>")))
    assert documents[0].text == "A title.\n\nText."
    assert (documents[0].id, documents[0].source, documents[0].date) == ("17", "pubmed", "2019")


def test_sections_of_a_structured_abstract_stand_behind_their_labels():
    abstract = (
        '<AbstractText Label="AIMS">To see.</AbstractText>'
        '<AbstractText Label="RESULTS">Seen\n   at <i>p</i>&lt;0.05 in H<sub>2</sub>O.'
        "</AbstractText>"
        "<CopyrightInformation>© A publisher.</CopyrightInformation>"
    )
    documents, _ = read(article_set(record(abstract=abstract)))
    assert documents[0].text == "A title.\n\nAIMS: To see.\n\nRESULTS: Seen at p<0.05 in H2O."
    assert [s.name for s in documents[0].sections] == ["title", "aims", "results"]
    assert documents[0].licence == "© A publisher."


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("<Year>2019</Year><Month>Mar</Month><Day>7</Day>", "2019-03-07"),
        ("<Year>2019</Year><Month>11</Month>", "2019-11"),
        ("<Year>2019</Year><Season>Spring</Season>", "2019"),
        ("<MedlineDate>1998 Dec-1999 Jan</MedlineDate>", "1998-12"),
        ("<MedlineDate>1998-1999</MedlineDate>", "1998"),
        ("<MedlineDate>Winter</MedlineDate>", None),
        ("", None),
    ],
)
def test_dates_are_as_precise_as_the_record(fields, expected):
    documents, _ = read(article_set(record(date=fields)))
    assert documents[0].date == expected


def test_missing_fields_are_tolerated_and_a_record_without_text_is_counted():
    bare = "<PubmedArticle><MedlineCitation><Article/></MedlineCitation></PubmedArticle>"
    xml = article_set(
        record(title=""), record(abstract=""), record(title="", abstract=""), bare,
        record(pmid=""), "<PubmedArticle/>",
    )  # fmt: skip
    documents, report = read(xml)
    assert [d.text for d in documents] == ["Text.", "A title.", "A title.\n\nText."]
    assert documents[2].id == "file.xml#5"
    assert report.dropped == {"no_text": 3} and report.fault_count == 0


def test_a_chapter_of_a_book_is_read():
    xml = article_set(
        "<PubmedBookArticle><BookDocument><PMID>5</PMID><Book><BookTitle>Genes</BookTitle>"
        "<PubDate><Year>2004</Year></PubDate></Book><ArticleTitle>A disease</ArticleTitle>"
        "<Abstract><AbstractText>Rare.</AbstractText></Abstract></BookDocument></PubmedBookArticle>"
    )
    documents, _ = read(xml)
    assert (documents[0].text, documents[0].date) == ("A disease\n\nRare.", "2004")


def test_records_before_a_break_are_kept_and_the_break_is_placed():
    xml = article_set(record("1"), record("2"), record("3"))
    documents, report = read(xml[: xml.index("<PMID>3") + 9])
    assert [d.id for d in documents] == ["1", "2"]
    assert report.fault_count == 1
    assert report.faults[0].position.startswith("line 4,")
    assert "read 2 records" in report.faults[0].reason


def test_bytes_that_are_not_in_the_declared_encoding_are_a_break():
    xml = article_set(record("1"), record("2", title="caf\xe9")).encode("latin-1")
    documents, report = read(xml)
    assert [d.id for d in documents] == ["1"]
    assert report.faults[0].position.startswith("line 3,")


def test_an_empty_file_is_a_break():
    assert read("")[1].broken


def test_a_citation_whose_record_is_cut_behind_it_is_kept():
    xml = article_set(record("1"), record("2"))
    documents, report = read(xml[: xml.rindex("</PubmedArticle>")])
    assert [d.id for d in documents] == ["1", "2"]
    assert report.fault_count == 1


def test_identifiers_journal_and_headings_go_to_the_metadata():
    xml = article_set(
        '<PubmedArticle><MedlineCitation><PMID Version="3">7</PMID><Article><Journal>'
        "<Title>The  Journal</Title></Journal><ArticleTitle>T.</ArticleTitle>"
        '<ELocationID EIdType="doi" ValidYN="N">10.1/NO</ELocationID>'
        '<ELocationID EIdType="doi">10.1/ABC</ELocationID></Article><MeshHeadingList><MeshHeading>'
        "<DescriptorName>Humans</DescriptorName><QualifierName>blood</QualifierName></MeshHeading>"
        "</MeshHeadingList></MedlineCitation><PubmedData><ArticleIdList>"
        '<ArticleId IdType="doi">10.1/other</ArticleId><ArticleId IdType="pmc">PMC5</ArticleId>'
        "</ArticleIdList><ReferenceList><Reference><ArticleIdList>"
        '<ArticleId IdType="pmc">PMC6</ArticleId></ArticleIdList></Reference></ReferenceList>'
        "</PubmedData></PubmedArticle>"
    )
    documents, _ = read(xml)
    assert documents[0].metadata == {
        "pmid": "7", "version": 3, "doi": "10.1/abc", "pmcid": "PMC5",
        "journal": "The Journal", "mesh": ["Humans"],
    }  # fmt: skip


def test_withdrawn_records_are_named_in_the_report():
    xml = article_set(record("1"), "<DeleteCitation><PMID>5</PMID><PMID>6</PMID></DeleteCitation>")
    documents, report = read(xml)
    assert len(documents) == 1 and report.deleted == ["5", "6"]


@pytest.mark.parametrize(
    ("fields", "retracted"),
    [
        ('<CommentsCorrections RefType="RetractionIn"/>', True),
        ('<CommentsCorrections RefType="RetractionOf"/>', None),
        ('<CommentsCorrections RefType="CommentIn"/>', None),
    ],
)
def test_retracted_articles_are_marked_and_their_notices_are_not(fields, retracted):
    xml = article_set(record()).replace("<CommentsCorrections>", fields + "<CommentsCorrections>")
    assert read(xml)[0][0].metadata.get("retracted") == retracted
    kind = '<PublicationTypeList><PublicationType UI="D1">Retracted Publication</PublicationType>'
    xml = article_set(record()).replace("</Article>", f"{kind}</PublicationTypeList></Article>")
    assert read(xml)[0][0].metadata["retracted"] is True


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("[A translated title].", "A translated title."),
        ("[A translated title.]", "A translated title."),
        ("[Is it [really] translated?].", "Is it [really] translated?"),
        ("[A title (author's transl)]", "A title"),
        ("[3H]thymidine and [14C]urea", "[3H]thymidine and [14C]urea"),
        ("[Never closed.", "[Never closed."),
        ("[Not Available].", "Sans titre"),
        ("[In process citation]", "Sans titre"),
    ],
)
def test_brackets_of_a_translation_go_and_the_original_stands_in_for_no_title(title, expected):
    vernacular = "</ArticleTitle><VernacularTitle>Sans titre</VernacularTitle><ArticleTitle>"
    documents, _ = read(article_set(record(title=title + vernacular)))
    assert documents[0].text == f"{expected}\n\nText."
    assert documents[0].metadata["vernacular_title"] == "Sans titre"


@pytest.mark.parametrize(
    ("codes", "title", "abstract", "expected"),
    [
        ("eng", "Title", "Text", "en"),
        ("fre", "[Title]", "", "en"),
        ("fre", "Titre", "Text", "en"),
        ("fre", "Titre", "", "fr"),
        ("fre eng", "Title", "", "en"),
        ("und", "Title", "", None),
        ("", "Title", "", None),
    ],
)
def test_the_language_is_that_of_the_text(codes, title, abstract, expected):
    languages = "".join(f"<Language>{code}</Language>" for code in codes.split())
    given = record(title=title, abstract=f"<AbstractText>{abstract}</AbstractText>")
    xml = article_set(given.replace("</Article>", f"{languages}</Article>"))
    document = read(xml)[0][0]
    assert document.language == expected
    assert document.metadata.get("article_language") == ("fr" if codes == "fre" else None)


def other(language, kind, text):
    return (
        f'<OtherAbstract Language="{language}" Type="{kind}"><AbstractText>{text}</AbstractText>'
        "</OtherAbstract>"
    )


def test_another_abstract_is_kept_where_it_adds_english_or_is_the_only_one():
    others = other("eng", "plain-language-summary", "Plain.") + other("spa", "Publisher", "Llano.")
    with_one = record().replace("</MedlineCitation>", f"{others}</MedlineCitation>")
    without = record(abstract="").replace("</MedlineCitation>", f"{others}</MedlineCitation>")
    first, second = read(article_set(with_one, without))[0]
    assert first.text == "A title.\n\nText.\n\nPlain."
    assert first.sections[2].name == "plain-language-summary"
    assert second.text == "A title.\n\nPlain.\n\nLlano."


def test_formulas_and_exponents_stay_readable():
    abstract = (
        '<AbstractText>At 10<sup>6</sup> cells, <mml:math xmlns:mml="urn:m"><mml:msub>'
        "<mml:mi>x</mml:mi><mml:mn>1</mml:mn></mml:msub></mml:math> fell.</AbstractText>"
    )
    assert read(article_set(record(abstract=abstract)))[0][0].text.endswith(
        "At 10^6 cells, x_1 fell."
    )


def test_resident_memory_does_not_grow_with_the_file(tmp_path):
    # The tree is libxml2's, which tracemalloc does not see: a process of its own is measured.
    script = (
        "import resource, sys\n"
        "from megatron_biollm.corpus.readers.pubmed import read_pubmed\n"
        "from megatron_biollm.corpus.report import FileReport\n"
        "count = sum(1 for _ in read_pubmed(open(sys.argv[1], 'rb'), 'a', FileReport('a')))\n"
        "print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )

    def peak(count):
        path = tmp_path / "a.xml"
        with path.open("w") as file:
            file.write("<PubmedArticleSet>")
            file.writelines(record(str(i), abstract="x" * 1000) for i in range(count))
            file.write("</PubmedArticleSet>")
        given = subprocess.run(
            [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
        )
        read_count, size = map(int, given.stdout.split())
        assert read_count == count
        return size

    assert peak(20_000) < 1.1 * peak(2_000)


def readme_counts():
    """File name to number of records, out of the samples' own table."""
    readme = PUBMED.parent / "README.md"
    if not readme.is_file():
        return {}
    rows = re.findall(r"^\| pubmed/(\S+) \|(.*)", readme.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: int(rest.split("|")[-6]) for name, rest in rows}


@needs_pubmed
@pytest.mark.parametrize(("name", "count"), readme_counts().items())
def test_every_record_of_a_real_file_is_a_document_or_a_named_drop(name, count):
    report = CorpusReport()
    documents = list(read_corpus([PUBMED / name], report))
    # The table counts articles; chapters of books among them come on top.
    chapters = sum("book" in document.metadata for document in documents)
    assert len(documents) + report.dropped.total() == count + chapters
    assert set(report.dropped) <= {"no_text"}
    assert report.fault_count == name.startswith("BAD_")
    assert all(d.text[s.start : s.end].strip() for d in documents for s in d.sections)


def real_records(path):
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    root = etree.fromstring(data, etree.XMLParser(**SAFE, recover=True))
    return list(root.iter("PubmedArticle", "PubmedBookArticle"))


@needs_pubmed
@pytest.mark.parametrize("path", sorted(PUBMED.glob("*.xml*")), ids=lambda path: path.name)
def test_no_title_and_no_abstract_of_a_real_file_loses_a_character(path):
    texts = Counter(d.id for d in read_corpus([path], CorpusReport()))
    documents = {d.id: re.sub(r"[\s^_]", "", d.text) for d in read_corpus([path], CorpusReport())}
    for record in real_records(path):
        number = record.findtext(".//PMID")
        if texts[number] != 1:
            continue
        article = next(record.iter("Article", "BookDocument"))
        for element in article.xpath("./ArticleTitle | ./Abstract/AbstractText"):
            # Brackets of a translation and the translator's note are NLM's.
            given = "".join(element.itertext()).removesuffix(" (author's transl)].")
            bare = re.sub(r"[\s^_]", "", given)
            inner = bare.removeprefix("[").removesuffix(".").removesuffix("]")
            assert bare in documents[number] or inner in documents[number]


@needs_pubmed
def test_mutilated_records_keep_what_they_have():
    documents = list(read_corpus([PUBMED / "ODD_missing_fields_scicopia.xml"], CorpusReport()))
    ids = [document.id for document in documents]
    assert len(ids) == 15 and len(set(ids)) == 3
    assert sum("pmid" not in document.metadata for document in documents) == 2


@needs_pubmed
def test_a_gzip_file_cut_short_keeps_what_came_before(tmp_path):
    whole = (PUBMED / "pubmed21n1004.xml.gz").read_bytes()
    (tmp_path / "cut.xml.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "not.xml.gz").write_bytes(b"<PubmedArticleSet/>")
    report = CorpusReport()
    count = sum(1 for _ in read_corpus([tmp_path], report))
    assert 0 < count < 88
    assert [file.fault_count for file in report.files] == [1, 1]


def test_xml_may_be_packed(tmp_path):
    with gzip.open(tmp_path / "a.xml.gz", "wt") as file:
        file.write(article_set(record("1")))
    assert [d.id for d in read_corpus([tmp_path], CorpusReport())] == ["1"]
