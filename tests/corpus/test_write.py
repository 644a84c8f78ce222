import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.read import read_corpus
from megatron_biollm.corpus.report import CorpusReport
from megatron_biollm.corpus.write import refuse_faults, refuse_output_among, write_jsonl


def test_the_output_is_one_object_per_line(tmp_path):
    documents = [Document("β\n2", "1", "pubmed"), Document("b", "2", "text", date="2000")]
    assert write_jsonl(documents, tmp_path / "new" / "out.jsonl", CorpusReport()) == 2
    lines = (tmp_path / "new" / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"text": "β\n2", "id": "1", "source": "pubmed"},
        {"text": "b", "id": "2", "source": "text", "date": "2000"},
    ]


def test_an_empty_corpus_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("a,b")
    (tmp_path / "in" / "b.jsonl").write_text("{}")
    report = CorpusReport()
    with pytest.raises(UserError, match=r"corpus is empty: 2 files.*a\.csv: none of.*line 1"):
        write_jsonl(read_corpus([tmp_path / "in"], report), tmp_path / "out.jsonl", report)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_break_while_writing_leaves_the_former_output(tmp_path):
    def documents():
        yield Document("new", "1", "text")
        raise RuntimeError("stopped")

    (tmp_path / "out.jsonl").write_text("former")
    with pytest.raises(RuntimeError, match="stopped"):
        write_jsonl(documents(), tmp_path / "out.jsonl", CorpusReport())
    assert (tmp_path / "out.jsonl").read_text() == "former"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*out\.jsonl"):
        write_jsonl([Document("a", "1", "text")], tmp_path / "file" / "out.jsonl", CorpusReport())


def test_faults_may_be_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\nbroken\n')
    report = CorpusReport()
    with pytest.raises(UserError, match=r"1 faults in 1 files[\s\S]*line 2: not valid JSON"):
        list(refuse_faults(read_corpus([tmp_path], report), report))


def test_an_output_among_the_inputs_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    refuse_output_among([tmp_path], tmp_path / "b.jsonl")
    with pytest.raises(UserError, match="come twice"):
        refuse_output_among([tmp_path], tmp_path / "a.jsonl")
