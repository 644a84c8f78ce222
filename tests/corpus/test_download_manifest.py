import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.download.fetch import digests
from megatron_biollm.corpus.download.manifest import (
    NAME,
    Manifest,
    Record,
    licence_of,
    only_run,
)


def record(path="pubmed/a.gz", **fields):
    fields = {"bytes": 3, "md5": "m", "sha256": "s", "version": "1", **fields}
    return Record(
        url="http://x/a.gz", path=path, licence="free", retrieved="t", source="pubmed", **fields
    )


def put(root, path="pubmed/a.gz", content=b"abc"):
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).write_bytes(content)


def test_records_are_read_back_and_the_last_one_of_a_path_counts(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.add(record())
    manifest.add(record(version="2"))
    assert Manifest(tmp_path).records == {"pubmed/a.gz": record(version="2")}
    assert len((tmp_path / NAME).read_text().splitlines()) == 2


def test_a_torn_line_costs_its_own_record_only(tmp_path):
    Manifest(tmp_path).add(record())
    with (tmp_path / NAME).open("a") as file:
        file.write('{"url": "http://x/b.gz", "pa')
    Manifest(tmp_path).add(record("pubmed/c.gz"))
    assert set(Manifest(tmp_path).records) == {"pubmed/a.gz", "pubmed/c.gz"}


def test_a_file_is_current_if_it_is_there_in_its_size_and_version(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.add(record())
    assert not manifest.current("pubmed/a.gz", "1")
    put(tmp_path)
    assert manifest.current("pubmed/a.gz", "1")
    assert not manifest.current("pubmed/a.gz", "2")
    assert not manifest.current("pubmed/other.gz", "1")
    put(tmp_path, content=b"abcd")
    assert not manifest.current("pubmed/a.gz", "1")


def test_verifying_forgets_files_that_are_gone_or_differ(tmp_path):
    manifest = Manifest(tmp_path)
    for path in ("pubmed/a.gz", "pubmed/b.gz", "pubmed/c.gz"):
        put(tmp_path, path)
        manifest.add(record(path, sha256=digests(tmp_path / path).sha256))
    put(tmp_path, "pubmed/b.gz", b"abX")
    (tmp_path / "pubmed/c.gz").unlink()
    assert manifest.verify(lambda f: digests(f).sha256, "pmc/") == []
    assert manifest.verify(lambda f: digests(f).sha256, "pubmed/") == ["pubmed/b.gz", "pubmed/c.gz"]
    assert set(manifest.records) == {"pubmed/a.gz"}


def test_the_licence_of_a_file_is_found_in_the_folder_above(tmp_path):
    Manifest(tmp_path).add(record())
    put(tmp_path)
    assert licence_of(tmp_path / "pubmed" / "a.gz") == "free"
    assert licence_of(tmp_path / "pubmed" / "unknown.gz") is None


def test_each_line_is_a_plain_json_object(tmp_path):
    Manifest(tmp_path).add(record())
    row = json.loads((tmp_path / NAME).read_text())
    assert row["licence"] == "free"
    assert row["bytes"] == 3


def test_two_runs_of_one_source_into_one_folder_are_refused(tmp_path):
    with (
        only_run(tmp_path / "raw", "pubmed"),
        pytest.raises(UserError, match="another process"),
        only_run(tmp_path / "raw", "pubmed"),
    ):
        pass
    with only_run(tmp_path / "raw", "pubmed"), only_run(tmp_path / "raw", "pmc"):
        pass


def test_records_of_two_runs_at_the_same_time_are_all_kept(tmp_path):
    one, other = Manifest(tmp_path), Manifest(tmp_path)
    for number in range(20):
        one.add(record(f"pubmed/{number}.gz"))
        other.add(record(f"pmc/{number}.gz"))
    assert len(Manifest(tmp_path).records) == 40


def test_an_output_that_is_no_folder_is_an_error(tmp_path):
    (tmp_path / "raw").write_text("")
    with (
        pytest.raises(UserError, match="cannot write into .*raw"),
        only_run(tmp_path / "raw", "pubmed"),
    ):
        pass
