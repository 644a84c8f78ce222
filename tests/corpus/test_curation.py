"""The stages together, on small files; what is tested of a single step is tested beside it."""

import gzip
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_biollm.config import UserError, load_config
from megatron_biollm.corpus.curation import CurationConfig, curate
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.download.manifest import Manifest, Record
from megatron_biollm.corpus.shards import read_shard

RECORD = (
    "<PubmedArticle><MedlineCitation><PMID>{pmid}</PMID><Article><ArticleTitle>{title}"
    "</ArticleTitle><Language>eng</Language></Article></MedlineCitation></PubmedArticle>"
)
TITLE = "Aspirin reduces the risk of stroke in patients with atrial fibrillation, trial {}"


def pubmed(path, records, deleted=()):
    body = "".join(RECORD.format(pmid=pmid, title=title) for pmid, title in records)
    gone = "".join(f"<PMID>{pmid}</PMID>" for pmid in deleted)
    gone = f"<DeleteCitation>{gone}</DeleteCitation>" if gone else ""
    path.write_bytes(gzip.compress(f"<PubmedArticleSet>{body}{gone}</PubmedArticleSet>".encode()))


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(1, 5):
        records = [(f"{number}{i:03d}", TITLE.format(f"{number}-{i}")) for i in range(50)]
        pubmed(folder / f"pubmed26n000{number}.xml.gz", records)
    pubmed(folder / "pubmed26n1300.xml.gz", [("1000", TITLE.format("revised"))], ["2000"])
    return folder


def config(sources, output="out", **fields):
    overrides = [f"paths=[{sources}]", f"output_dir={sources.parent / output}", "buckets=3"]
    # The titles are alike; near-duplicates have a test of their own.
    fields = {"near_duplicates.enabled": False, "containment.enabled": False} | fields
    overrides += [f"{name}={value}" for name, value in fields.items()]
    # So small that each file has a task of its own.
    return load_config(CurationConfig, None, [*overrides, "executor.workers=2", "task_mb=0.000001"])


def documents(output) -> dict[str, Document]:
    shards = sorted((Path(output) / "documents").rglob("*.zst"))
    return {d.id: d for shard in shards for d in read_shard(shard)}


def digest(output):
    files = sorted((Path(output) / "documents").rglob("*.zst"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def test_the_last_version_stays_and_what_was_withdrawn_goes(sources):
    made = config(sources)
    manifest = curate(made)
    kept = documents(made.output_dir)
    assert len(kept) == 199 == manifest["sources"]["pubmed"]["documents"]
    assert kept["1000"].text == TITLE.format("revised") and "2000" not in kept
    assert manifest["dropped"] == {"identity: superseded_version": 1, "identity: withdrawn": 1}


def test_a_new_file_costs_its_own_work_only(sources):
    made = config(sources)
    curate(made)
    extract = next((Path(made.output_dir) / "stages").glob("1-extract-*"))
    times = {f.name: f.stat().st_mtime_ns for f in (extract / "shards").glob("*.zst")}
    pubmed(sources / "pubmed26n1301.xml.gz", [("9999", TITLE.format("new"))], ["3000"])
    curate(made)
    again = {f.name: f.stat().st_mtime_ns for f in (extract / "shards").glob("*.zst")}
    assert times.items() <= again.items() and len(again) == len(times) + 1
    assert "9999" in documents(made.output_dir) and "3000" not in documents(made.output_dir)


def test_a_removed_file_takes_its_documents_along(sources):
    made = config(sources)
    curate(made)
    (sources / "pubmed26n0004.xml.gz").unlink()
    curate(made)
    assert len(documents(made.output_dir)) == 149


def test_a_broken_file_is_named_and_costs_no_other(sources):
    whole = (sources / "pubmed26n0003.xml.gz").read_bytes()
    (sources / "pubmed26n0003.xml.gz").write_bytes(whole[: len(whole) // 2])
    made = config(sources)
    manifest = curate(made)
    assert [Path(path).name for path in manifest["files"]["faulty"]] == ["pubmed26n0003.xml.gz"]
    assert len(documents(made.output_dir)) == 149
    (sources / "pubmed26n0003.xml.gz").write_bytes(whole)
    assert curate(made)["files"]["faulty"] == {}
    assert len(documents(made.output_dir)) == 199


def test_the_whole_records_of_a_broken_file_are_kept_where_wanted(sources):
    text = gzip.decompress((sources / "pubmed26n0003.xml.gz").read_bytes())
    (sources / "pubmed26n0003.xml.gz").write_bytes(gzip.compress(text[: len(text) // 2]))
    made = config(sources, keep_broken_files=True)
    assert "broken" not in curate(made)["dropped"]
    assert 149 < len(documents(made.output_dir)) < 199


def test_a_wrong_checksum_beside_a_file_quarantines_it(sources):
    (sources / "pubmed26n0002.xml.gz.md5").write_text(f"MD5(pubmed26n0002.xml.gz)= {'0' * 32}\n")
    manifest = curate(config(sources))
    (reason,) = manifest["files"]["faulty"].values()
    assert "its MD5 is" in reason and manifest["sources"]["pubmed"]["documents"] == 150


def test_the_number_of_workers_and_of_buckets_changes_nothing(sources):
    one, other = config(sources, "one"), config(sources, "other", buckets=1)
    other.executor.workers = 1
    curate(one)
    curate(other)
    assert digest(one.output_dir) == digest(other.output_dir)


def test_a_killed_run_resumes_to_the_same_shards(sources, tmp_path):
    whole, killed = config(sources, "whole"), config(sources, "killed")
    curate(whole)
    command = [sys.executable, "-c", _RUN, str(sources), str(tmp_path / "killed")]
    for delay in (0.8, 1.6, 2.4):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(delay)
        os.killpg(process.pid, 9)
        process.wait()
    curate(killed)
    assert digest(whole.output_dir) == digest(killed.output_dir)
    assert [str(p) for p in Path(killed.output_dir).rglob("*.tmp")] == []


_RUN = """
import sys
from pathlib import Path
from tests.corpus.test_curation import config, curate
if __name__ == "__main__":
    curate(config(Path(sys.argv[1]), sys.argv[2]))
"""


def test_a_full_disk_fails_the_task_by_name_and_leaves_no_half_shard(sources, tmp_path):
    records = [(str(10_000 + i), TITLE.format(f"{i} of 4000")) for i in range(4000)]
    pubmed(sources / "pubmed26n0009.xml.gz", records)
    process = subprocess.run(
        [sys.executable, "-c", _RUN, str(sources), str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert process.returncode == 1
    assert "1 of 6 tasks of the stage extract failed" in process.stderr
    assert "task 4: OSError: [Errno 27] File too large" in process.stderr
    assert len(list((tmp_path / "out").glob("stages/1-*/shards/*.zst"))) == 5
    assert not list((tmp_path / "out").rglob("*.tmp"))
    made = config(sources)
    curate(made)
    assert len(documents(made.output_dir)) == 4199


def test_an_output_among_the_sources_is_refused(sources):
    made = config(sources)
    made.output_dir = str(sources)
    shutil.copy(sources / "pubmed26n0001.xml.gz", sources / "x.xml.gz")
    with pytest.raises(UserError, match="lies in output_dir"):
        curate(made)


def test_the_licence_recorded_at_the_download_counts_where_a_record_names_none(sources):
    name = "pubmed26n0001.xml.gz"
    Manifest(sources).add(Record("url", name, 1, "md5", "sha", "NLM terms", "2026", "pubmed"))
    made = config(sources)
    assert curate(made)["files"]["passed_over"] == []
    kept = documents(made.output_dir)
    assert kept["1001"].licence == "NLM terms" and kept["2001"].licence is None


def test_near_duplicates_and_contained_texts_go_and_the_better_document_stays(tmp_path):
    (tmp_path / "in").mkdir()
    words = [f"word{number}" for number in range(400)]
    article, edited = list(words), words[:80]
    edited[40] = "changed"
    texts = {"pmc": article, "pubmed": words[100:200], "text": edited, "other": words[:80]}
    lines = [
        f'{{"text": "{" ".join(text)}", "id": "{source}", "source": "{source}"}}\n'
        for source, text in texts.items()
    ]
    (tmp_path / "in" / "a.jsonl").write_text("".join(lines[:2]))
    (tmp_path / "in" / "b.jsonl").write_text("".join(lines[2:]))
    made = config(tmp_path / "in", **{"near_duplicates.enabled": True, "containment.enabled": True})
    manifest = curate(made)
    assert list(documents(made.output_dir)) == ["pmc"]
    assert manifest["dropped"] == {"near_duplicate: near_duplicate": 1, "contained: contained": 2}
    clusters = json.loads((Path(made.output_dir) / "report.json").read_text())["clusters"]
    assert {s["id"] for s in clusters["near_duplicate"]["samples"]} == {"text", "other"}
