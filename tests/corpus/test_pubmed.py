import gzip
import io
import tracemalloc
from pathlib import Path

import pytest

from megatron_biollm.corpus.read import read_corpus
from megatron_biollm.corpus.readers.pubmed import read_pubmed
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
    assert documents[0].text == "A title.\n\nAIMS: To see.\nRESULTS: Seen at p<0.05 in H2O."
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
    assert report.dropped == {"no_text": 2} and report.fault_count == 0


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


def test_an_empty_file_is_a_break_and_another_root_is_passed_over():
    assert read("")[1].fault_count == 1
    documents, report = read("<article><front/></article>")
    assert documents == [] and "<article>" in report.passed_over


def test_memory_does_not_grow_with_the_number_of_records():
    def peak(count):
        xml = article_set(*(record(str(i), abstract="x" * 1000) for i in range(count))).encode()
        stream, report = io.BytesIO(xml), FileReport("big.xml")
        tracemalloc.start()
        assert sum(1 for _ in read_pubmed(stream, "big.xml", report)) == count
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(2000) < 1.5 * peak(200)


@needs_pubmed
def test_the_real_sample_is_read_whole_but_for_what_is_named():
    report = CorpusReport()
    documents = list(read_corpus([PUBMED], report))
    totals = report.to_dict()["totals"]
    assert totals == {
        "files": 26, "passed_over": 6, "documents": 1079, "dropped": {"no_text": 7},
        "faults": 1,
    }  # fmt: skip
    assert [Path(file.path).name for file in report.broken] == [
        "BAD_truncated_pubmed_sample.xml.gz"
    ]
    assert len({document.id for document in documents}) == len(documents) - 12


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
