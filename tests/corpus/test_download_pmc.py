import gzip
import json
import tarfile

import pytest

from megatron_biollm.corpus.download.client import DownloadError
from megatron_biollm.corpus.download.jobs import Selection
from megatron_biollm.corpus.download.manifest import Manifest
from megatron_biollm.corpus.download.pmc_articles import subset_of
from megatron_biollm.corpus.download.pmc_inventory import PREFIX
from megatron_biollm.corpus.download.run import download, make_plan
from tests.corpus.download_server import Server, answer, busy, cut, hasty_client, md5

ALL = Selection(parts=("oa_comm", "oa_noncomm", "oa_other", "author_manuscript"))


class Bucket(Server):
    """The cloud service's layout."""

    def put(self, name, licence="CC BY", text="text", **metadata):
        xml = f"<article><body><p>{name} {text}</p></body></article>".encode()
        metadata = {
            "pmcid": name.partition(".")[0],
            "license_code": licence,
            "is_pmc_openaccess": True,
            "xml_url": f"s3://pmc-oa-opendata/{name}/{name}.xml?md5={md5(xml)}",
            **metadata,
        }
        self.files[f"/{name}/{name}.xml"] = xml
        self.files[f"/metadata/{name}.json"] = json.dumps(metadata).encode()

    def publish(self, day="2026-11-20T01-00Z"):
        """Writes the inventory of what is there."""
        rows = [
            f'"pmc-oa-opendata","{path[1:]}","2026-01-08T11:47:59.000Z","{md5(body)}"\n'
            for path, body in self.files.items()
            if path.startswith("/metadata/")
        ]
        body = gzip.compress("".join(rows).encode())
        key = f"{PREFIX}data/{md5(body)}.csv.gz"
        files = [{"key": key, "size": len(body), "MD5checksum": md5(body)}]
        self.files[f"/{key}"] = body
        self.files[f"/{PREFIX}{day}/manifest.json"] = json.dumps({"files": files}).encode()
        days = {day, "data", "hive"}
        folders = "".join(f"<Prefix>{PREFIX}{d}/</Prefix>" for d in sorted(days))
        listing = f"<ListBucketResult>{folders}</ListBucketResult>".encode()
        self.files[f"/?list-type=2&delimiter=/&prefix={PREFIX}"] = listing


@pytest.fixture
def bucket():
    with Bucket() as bucket:
        bucket.put("PMC13901.1")
        bucket.put("PMC13902.1", "CC BY-NC")
        bucket.put("PMC13903.1", "CC0")
        bucket.put("PMC13904.1", "TDM", is_pmc_openaccess=False, is_manuscript=True)
        bucket.put("PMC20001.1", "CC BY-ND")
        bucket.publish()
        yield bucket


def run(bucket, root, wanted=ALL):
    with hasty_client() as client:
        manifest = Manifest(root)
        plan = make_plan("pmc", client, bucket.url, wanted, manifest)
        return download(plan, client, manifest)


def members(package):
    with tarfile.open(package) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}


def packages(root):
    return sorted(p.relative_to(root / "pmc").as_posix() for p in root.glob("pmc/[!.]*/*"))


def test_articles_lie_in_packages_by_licence_and_number(bucket, tmp_path):
    run(bucket, tmp_path)
    assert packages(tmp_path) == [
        "author_manuscript/PMC0001xxxx.tar.gz",
        "oa_comm/PMC0001xxxx.tar.gz",
        "oa_comm/PMC0002xxxx.tar.gz",
        "oa_noncomm/PMC0001xxxx.tar.gz",
    ]
    found = members(tmp_path / "pmc/oa_comm/PMC0001xxxx.tar.gz")
    assert found == {
        f"{name}.xml": bucket.files[f"/{name}/{name}.xml"] for name in ("PMC13901.1", "PMC13903.1")
    }
    records = Manifest(tmp_path).records
    assert records["pmc/oa_comm/PMC0001xxxx.tar.gz"].licence == "CC BY; CC0"
    assert records["pmc/oa_noncomm/PMC0001xxxx.tar.gz"].licence == "CC BY-NC"


def test_commercial_use_is_the_default_and_nothing_else_is_fetched(bucket, tmp_path):
    run(bucket, tmp_path, Selection())
    assert packages(tmp_path) == ["oa_comm/PMC0001xxxx.tar.gz", "oa_comm/PMC0002xxxx.tar.gz"]
    assert "/PMC13902.1/PMC13902.1.xml" not in bucket.paths()


def test_a_second_run_reads_the_inventory_and_no_article(bucket, tmp_path):
    run(bucket, tmp_path)
    bucket.requests.clear()
    report = run(bucket, tmp_path)
    assert (report.fetched, len(report.there)) == ([], 2)
    assert not [path for path in bucket.paths() if path.startswith(("/PMC", "/metadata"))]


def test_another_licence_group_needs_no_metadata_again(bucket, tmp_path):
    run(bucket, tmp_path, Selection())
    bucket.requests.clear()
    run(bucket, tmp_path, Selection(parts=("oa_noncomm",)))
    assert [p for p in bucket.paths() if p.startswith(("/PMC", "/metadata"))] == [
        "/PMC13902.1/PMC13902.1.xml"
    ]


def test_what_changed_is_fetched_and_the_rest_taken_from_the_old_package(bucket, tmp_path):
    run(bucket, tmp_path)
    bucket.put("PMC13901.1", text="corrected")
    bucket.put("PMC13905.1")
    bucket.publish("2026-11-21T01-00Z")
    bucket.requests.clear()
    run(bucket, tmp_path)
    fetched = [path for path in bucket.paths() if path.startswith("/PMC")]
    assert fetched == ["/PMC13901.1/PMC13901.1.xml", "/PMC13905.1/PMC13905.1.xml"]
    found = members(tmp_path / "pmc/oa_comm/PMC0001xxxx.tar.gz")
    assert sorted(found) == ["PMC13901.1.xml", "PMC13903.1.xml", "PMC13905.1.xml"]
    assert b"corrected" in found["PMC13901.1.xml"]


def test_an_article_that_is_withdrawn_leaves_its_package(bucket, tmp_path):
    run(bucket, tmp_path)
    del bucket.files["/metadata/PMC13904.1.json"]
    bucket.publish("2026-11-21T01-00Z")
    run(bucket, tmp_path)
    assert "author_manuscript/PMC0001xxxx.tar.gz" not in packages(tmp_path)


def test_an_article_gone_since_the_inventory_is_left_out(bucket, tmp_path):
    del bucket.files["/PMC13901.1/PMC13901.1.xml"]
    del bucket.files["/metadata/PMC20001.1.json"]
    report = run(bucket, tmp_path)
    assert report.failed == {}
    assert list(members(tmp_path / "pmc/oa_comm/PMC0001xxxx.tar.gz")) == ["PMC13903.1.xml"]


def test_an_interrupted_package_goes_on_with_what_it_has(bucket, tmp_path):
    bucket.faults["/PMC13903.1/PMC13903.1.xml"] = [busy()] * 3
    report = run(bucket, tmp_path, Selection())
    assert "503" in report.failed["pmc/oa_comm/PMC0001xxxx.tar.gz"]
    assert packages(tmp_path) == ["oa_comm/PMC0002xxxx.tar.gz"]
    bucket.requests.clear()
    run(bucket, tmp_path, Selection())
    assert [p for p in bucket.paths() if p.startswith(("/PMC", "/metadata"))] == [
        "/PMC13903.1/PMC13903.1.xml"
    ]
    assert not list(tmp_path.glob("pmc/.*.parts"))


def test_an_article_damaged_on_disk_between_two_runs_is_fetched_again(bucket, tmp_path):
    bucket.faults["/PMC13903.1/PMC13903.1.xml"] = [busy()] * 3
    run(bucket, tmp_path, Selection())
    (tmp_path / "pmc/.PMC0001xxxx.parts/PMC13901.1.xml").write_bytes(b"<article><bo")
    run(bucket, tmp_path, Selection())
    found = members(tmp_path / "pmc/oa_comm/PMC0001xxxx.tar.gz")
    assert found["PMC13901.1.xml"] == bucket.files["/PMC13901.1/PMC13901.1.xml"]


def test_a_damaged_article_never_gets_into_a_package(bucket, tmp_path):
    path = "/PMC13901.1/PMC13901.1.xml"
    bucket.faults[path] = [cut(10), lambda handler, body: answer(handler, 200, body[:-1])]
    run(bucket, tmp_path)
    found = members(tmp_path / "pmc/oa_comm/PMC0001xxxx.tar.gz")
    assert found["PMC13901.1.xml"] == bucket.files[path]


def test_an_article_that_changes_during_the_run_comes_in_its_new_state(bucket, tmp_path):
    def changed(handler, body):
        bucket.put("PMC13901.1", text="changed meanwhile")
        answer(handler, 200, bucket.files["/PMC13901.1/PMC13901.1.xml"])

    bucket.faults["/PMC13901.1/PMC13901.1.xml"] = [changed]
    assert run(bucket, tmp_path).failed == {}
    found = members(tmp_path / "pmc/oa_comm/PMC0001xxxx.tar.gz")
    assert b"changed meanwhile" in found["PMC13901.1.xml"]


def test_the_newest_version_of_an_article_is_taken(bucket, tmp_path):
    bucket.put("PMC13901.2")
    bucket.put("PMC13901.10")
    bucket.publish()
    run(bucket, tmp_path)
    assert sorted(members(tmp_path / "pmc/oa_comm/PMC0001xxxx.tar.gz")) == [
        "PMC13901.10.xml",
        "PMC13903.1.xml",
    ]


def test_the_same_articles_make_the_same_bytes(bucket, tmp_path):
    run(bucket, tmp_path / "a")
    run(bucket, tmp_path / "b")
    name = "pmc/oa_comm/PMC0001xxxx.tar.gz"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_inventory_of_yesterday_serves_while_todays_is_made(bucket, tmp_path):
    listing = f"/?list-type=2&delimiter=/&prefix={PREFIX}"
    today = f"<Prefix>{PREFIX}2026-11-21T01-00Z/</Prefix>".encode()
    bucket.files[listing] += today
    assert len(run(bucket, tmp_path).fetched) == 2


def test_an_inventory_with_another_layout_is_an_error(bucket, tmp_path):
    bucket.files = {p: b for p, b in bucket.files.items() if not p.startswith("/metadata/")}
    bucket.publish()
    with pytest.raises(DownloadError, match="names no article"):
        run(bucket, tmp_path)


def test_a_bucket_without_an_inventory_is_an_error(bucket, tmp_path):
    bucket.files[f"/?list-type=2&delimiter=/&prefix={PREFIX}"] = b"<ListBucketResult/>"
    with pytest.raises(DownloadError, match="has no inventory"):
        run(bucket, tmp_path)


@pytest.mark.parametrize(
    ("metadata", "subset"),
    [
        ({"license_code": "CC BY"}, "oa_comm"),
        ({"license_code": "CC-BY-SA"}, "oa_comm"),
        ({"license_code": "CC0"}, "oa_comm"),
        ({"license_code": "CC BY-NC-ND"}, "oa_noncomm"),
        ({"license_code": "TDM", "is_pmc_openaccess": False}, "author_manuscript"),
        ({"license_code": None, "is_pmc_openaccess": True}, "oa_other"),
        ({"license_code": None, "is_pmc_openaccess": "yes"}, "oa_other"),
        ({"license_code": None, "is_pmc_openaccess": "no"}, None),
        ({}, None),
    ],
)
def test_licence_codes_are_sorted_into_nlms_groups(metadata, subset):
    assert subset_of(metadata) == subset
