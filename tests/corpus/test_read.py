import gzip
import json
import zipfile

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.read import find_files, read_corpus, require_documents
from megatron_biollm.corpus.report import CorpusReport


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.jsonl").write_text('{"text": "b"}\n')
    (tmp_path / "sub" / "c.txt").write_text("c")
    (tmp_path / "a.csv.gz").write_bytes(b"")
    (tmp_path / "notes.PubTator.txt.gz").write_bytes(b"")
    (tmp_path / ".hidden.txt").write_text("h")
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as file:
        file.write('{"text": "d"}\n')
    return tmp_path


def test_files_of_other_kinds_are_named_and_passed_over(folder):
    report = CorpusReport()
    assert [d.text for d in read_corpus([folder], report)] == ["b", "d", "c"]
    assert [f.path for f in report.passed_over] == [
        str(folder / "a.csv.gz"),
        str(folder / "notes.PubTator.txt.gz"),
    ]
    assert "a.csv.gz: none of " in report.to_text()
    assert json.loads(json.dumps(report.to_dict()))["totals"]["documents"] == 3


def test_a_file_named_twice_is_read_once(folder):
    assert find_files([folder / "b.jsonl", folder]).count(folder / "b.jsonl") == 1


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist; give files"):
        list(read_corpus([tmp_path / "nowhere"], CorpusReport()))


def test_an_unknown_way_to_split_text_is_refused(folder):
    with pytest.raises(UserError, match="'page'.*'blank_line'"):
        list(read_corpus([folder], CorpusReport(), text_documents="page"))


def test_a_member_that_breaks_off_takes_no_other_along(tmp_path):
    xml = "<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>{}</PMID><Article><ArticleTitle>"
    xml += "A title</ArticleTitle></Article></MedlineCitation></PubmedArticle></PubmedArticleSet>"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.xml", xml.format(1)[:-30])
        archive.writestr("b.xml", xml.format(2))
    report = CorpusReport()
    assert [d.id for d in read_corpus([tmp_path], report)][-1] == "2"
    assert report.fault_count == 1 and not report.files[0].broken


def test_the_counts_beside_a_shard_are_no_source(tmp_path):
    (tmp_path / "00000.jsonl.zst").write_bytes(b"")
    (tmp_path / "00000.json").write_text("{}")
    (tmp_path / "00001.json").write_text("{}")
    assert [file.name for file in find_files([tmp_path])] == ["00000.jsonl.zst", "00001.json"]


def test_an_empty_corpus_is_refused_and_says_what_its_files_were(tmp_path):
    (tmp_path / "a.csv").write_text("a,b")
    (tmp_path / "b.jsonl").write_text("{}")
    report = CorpusReport()
    assert not list(read_corpus([tmp_path], report))
    with pytest.raises(UserError, match=r"corpus is empty: 2 files.*a\.csv: none of.*line 1"):
        require_documents(0, report)
