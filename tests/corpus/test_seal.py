import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.config import SourceConfig
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.seal import SAMPLES, Seal, read_manifest, read_sidecars
from megatron_biollm.corpus.shards import WriteCounts, WriteShard, WriteSources
from megatron_biollm.corpus.steps import DocumentStep, Drop, to_datatrove


class DropShort:
    """Stands for any step that drops documents."""

    name = "short"

    def __call__(self, document):
        return document if len(document.text) > 3 else Drop("too_short")


DOCUMENTS = [
    Document("a long text", "1", "pubmed", language="en", date="2020-01"),
    Document("abc", "2", "pubmed"),
    Document("John Doe", "3", "clinical_notes"),
]


@pytest.fixture
def seal(tmp_path):
    """A corpus of one task, ready to be sealed."""
    step = DropShort()
    first, last = DocumentStep(step), DocumentStep(step)
    files = [file("a.xml", "PubMed XML", 2), file("n.csv", "CSV of notes", 1)]
    documents = iter([to_datatrove(document) for document in DOCUMENTS])
    extract, finish = tmp_path / "1-extract", tmp_path / "8-finish"
    kept = WriteShard(extract / "shards", [first], lambda: {"files": files}).run(
        first.run(documents)
    )
    sorted_out = WriteSources(tmp_path / "documents").run(last.run(kept))
    list(WriteCounts(finish / "counts", [last]).run(sorted_out))
    return Seal(tmp_path, extract, finish, 1, sources={"pubmed": SourceConfig(epochs=3)})


def file(path, form, documents):
    names = {"passed_over": None, "fault_count": 0, "faults": [], "broken": False, "dropped": {}}
    return {"path": path, "format": form, "documents": documents, "size": 10, **names}


def test_manifest_report_and_page_tell_the_same(seal):
    list(seal.run())
    manifest = read_manifest(seal.output)
    assert manifest["sources"]["pubmed"]["documents"] == 1
    assert manifest["dropped"] == {"short: too_short": 1}
    report = json.loads((seal.output / "report.json").read_text())
    assert [(f["path"], f["source"]) for f in report["files"]] == [
        ("a.xml", "pubmed"),
        ("n.csv", "clinical_notes"),
    ]
    assert report["profiles"]["pubmed"]["languages"] == {"en": 1}
    page = (seal.output / "report.html").read_text()
    assert "pubmed: 1 of 2 records kept, 50.00%" in page
    assert "too short 1" in page and "3.00" in page


def test_notes_that_were_not_de_identified_are_in_no_report(seal):
    list(seal.run())
    for name in ("report.json", "report.html"):
        assert "John" not in (seal.output / name).read_text()
    assert "did not pass the de-identification" in (seal.output / "report.html").read_text()


def test_a_document_that_got_lost_is_noticed(seal):
    sidecar = seal.finish / "counts" / "00000.json"
    counts = json.loads(sidecar.read_text())
    counts["flows"][0]["left"]["pubmed"] -= 1
    sidecar.write_text(json.dumps(counts))
    with pytest.raises(UserError, match="documents are missing in finish task 0, short"):
        list(seal.run())
    assert not (seal.output / "manifest.json").exists()


def test_samples_of_many_tasks_are_as_few_as_those_of_one(tmp_path):
    sample = {"source": "pubmed", "reason": "too_short", "id": "1", "text": "abc", "detail": ""}
    for task in range(30):
        flow = {"name": "short", "samples": [sample] * 5}
        (tmp_path / f"{task:05d}.json").write_text(json.dumps({"flows": [flow]}))
    sidecars = read_sidecars(tmp_path, 30)
    assert sum(len(sidecar["flows"][0]["samples"]) for sidecar in sidecars) == SAMPLES
