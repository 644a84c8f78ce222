import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.download.client import Client, DownloadError
from megatron_biollm.corpus.download.jobs import Selection
from megatron_biollm.corpus.download.manifest import Manifest
from megatron_biollm.corpus.download.run import download, make_plan
from tests.corpus.download_server import HASTY, Server, busy, hasty_client, md5, slowly


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def pubmed(server):
    for number in (1, 2, 3):
        server.add_with_md5(f"/baseline/pubmed26n000{number}.xml.gz", b"base" * 1000 * number)
    server.add_with_md5("/updatefiles/pubmed26n0004.xml.gz", b"update" * 1000)
    server.files["/baseline/README.txt"] = b"read me"
    server.folder("/baseline/")
    server.folder("/updatefiles/")
    return server


def run(source, server, root, wanted=None, **changed):
    with hasty_client(**changed) as client:
        manifest = Manifest(root)
        plan = make_plan(source, client, server.url, wanted or Selection(), manifest)
        return plan, download(plan, client, manifest)


def paths(plan):
    return [job.path for job in plan.jobs]


def test_pubmed_comes_with_its_records(pubmed, tmp_path):
    _, report = run("pubmed", pubmed, tmp_path)
    assert sorted(report.fetched) == [
        "pubmed/baseline/pubmed26n0001.xml.gz",
        "pubmed/baseline/pubmed26n0002.xml.gz",
        "pubmed/baseline/pubmed26n0003.xml.gz",
        "pubmed/updatefiles/pubmed26n0004.xml.gz",
    ]
    record = Manifest(tmp_path).records["pubmed/baseline/pubmed26n0002.xml.gz"]
    assert record.url == f"{pubmed.url}/baseline/pubmed26n0002.xml.gz"
    assert (record.bytes, record.md5) == (8000, md5(b"base" * 2000))
    assert record.licence.startswith("NLM terms")
    assert record.retrieved[:2] == "20"


def test_a_second_run_asks_for_the_listings_only(pubmed, tmp_path):
    run("pubmed", pubmed, tmp_path)
    pubmed.requests.clear()
    _, report = run("pubmed", pubmed, tmp_path)
    assert (report.fetched, len(report.there)) == ([], 4)
    assert pubmed.paths() == ["/baseline/", "/updatefiles/"]


def test_a_file_that_the_source_has_changed_comes_again(pubmed, tmp_path):
    run("pubmed", pubmed, tmp_path)
    pubmed.add_with_md5("/updatefiles/pubmed26n0004.xml.gz", b"corrected")
    listing = pubmed.files["/updatefiles/"].replace(b"2026-01-15", b"2026-02-01")
    pubmed.files["/updatefiles/"] = listing.replace(b"6000\n", b"9\n")
    _, report = run("pubmed", pubmed, tmp_path)
    assert report.fetched == ["pubmed/updatefiles/pubmed26n0004.xml.gz"]
    assert (tmp_path / report.fetched[0]).read_bytes() == b"corrected"


def test_files_without_records_are_proved_by_their_checksum_instead_of_fetched(pubmed, tmp_path):
    run("pubmed", pubmed, tmp_path)
    (tmp_path / "downloads.jsonl").unlink()
    (tmp_path / "pubmed/baseline/pubmed26n0002.xml.gz").write_bytes(b"base" * 1000 + b"torn")
    pubmed.requests.clear()
    run("pubmed", pubmed, tmp_path)
    fetched = [path for path in pubmed.paths() if path.endswith(".gz")]
    assert fetched == ["/baseline/pubmed26n0002.xml.gz"]
    assert len(Manifest(tmp_path).records) == 4


def test_one_bad_file_does_not_keep_the_others_back(pubmed, tmp_path):
    pubmed.files["/baseline/pubmed26n0002.xml.gz.md5"] = b"MD5(x)= " + b"0" * 32
    _, report = run("pubmed", pubmed, tmp_path)
    assert len(report.fetched) == 3
    assert "MD5 is" in report.failed["pubmed/baseline/pubmed26n0002.xml.gz"]
    assert not (tmp_path / "pubmed/baseline/pubmed26n0002.xml.gz").exists()


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Selection(parts=("updatefiles",)), "4"),
        (Selection(first="pubmed26n0002"), "234"),
        (Selection(last="pubmed26n0002"), "12"),
        (Selection(first="pubmed26n0002", last="pubmed26n0003"), "23"),
        (Selection(include="*n000[13]*"), "13"),
        (Selection(parts=("baseline",), limit=2), "12"),
        (Selection(first="pubmed27"), ""),
    ],
)
def test_a_selection_takes_what_it_says(pubmed, tmp_path, wanted, numbers):
    with hasty_client() as client:
        plan = make_plan("pubmed", client, pubmed.url, wanted, Manifest(tmp_path))
    assert [path[-8] for path in paths(plan)] == list(numbers)


def test_an_unknown_part_is_an_error(pubmed, tmp_path):
    with pytest.raises(UserError, match="'base' is not one of baseline, updatefiles"):
        run("pubmed", pubmed, tmp_path, Selection(parts=("base",)))


def test_hostile_names_in_a_listing_are_named_and_not_fetched(pubmed, tmp_path):
    evil = b'<a href="../../../pubmed26n0009.xml.gz">pubmed26n0009.xml.gz</a>'
    pubmed.files["/baseline/"] += evil
    _, report = run("pubmed", pubmed, tmp_path / "raw")
    assert report.refused == ["../../../pubmed26n0009.xml.gz"]
    assert len(report.fetched) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_last_years_baseline_is_pointed_out(pubmed, tmp_path):
    run("pubmed", pubmed, tmp_path)
    for path in list(pubmed.files):
        if path.startswith("/baseline/pubmed26n0001"):
            del pubmed.files[path]
    pubmed.folder("/baseline/")
    _, report = run("pubmed", pubmed, tmp_path)
    assert report.superseded == ["pubmed/baseline/pubmed26n0001.xml.gz"]


def test_no_more_files_are_asked_for_at_once_than_allowed(pubmed, tmp_path):
    for path in list(pubmed.files):
        pubmed.faults[path] = [slowly(0.05)]
    run("pubmed", pubmed, tmp_path, connections=2)
    assert pubmed.most_at_once == 2


def test_packages_of_a_mirror_lie_apart_by_licence(server, tmp_path):
    for part in ("oa_comm", "oa_noncomm"):
        for name in ("PMC000xxxxxx.baseline.2025-06-26", "incr.2025-06-27"):
            server.files[f"/{part}/xml/{part}_xml.{name}.tar.gz"] = part.encode() * 9
            server.files[f"/{part}/xml/{part}_xml.{name}.filelist.csv"] = b"list"
        server.folder(f"/{part}/xml/")
    both = Selection(parts=("oa_comm", "oa_noncomm"))
    _, report = run("pmc_packages", server, tmp_path, both)
    assert len(report.fetched) == 4
    records = Manifest(tmp_path).records
    comm = records["pmc/oa_comm/oa_comm_xml.incr.2025-06-27.tar.gz"]
    noncomm = records["pmc/oa_noncomm/oa_noncomm_xml.incr.2025-06-27.tar.gz"]
    assert comm.licence.startswith("commercial use allowed")
    assert noncomm.licence.startswith("non-commercial use only")


def test_packages_need_a_mirror(tmp_path):
    with hasty_client() as client, pytest.raises(UserError, match="--base-url of a mirror"):
        make_plan("pmc_packages", client, None, Selection(), Manifest(tmp_path))


def patent_api(server, product, names, year=2024, nested=False):
    """The answer of the bulk data API, and the files behind it."""
    rows = []
    for name in names:
        path = f"/files/{product}/{year}/{name}"
        server.files[path] = name.encode() * 10
        uri = f"https://api.uspto.gov/api/v1/datasets/products{path}"
        rows.append({"fileName": name, "fileSize": len(name) * 10, "fileDownloadURI": uri})
    bag = [{"productFileBag": {"fileDataBag": rows}}]
    answer = json.dumps({"count": 1, "bulkDataProductBag": [bag] if nested else bag}).encode()
    span = f"fileDataFromDate={year}-01-01&fileDataToDate={year}-12-31"
    server.files[f"/{product}?includeFiles=true&{span}"] = answer
    server.files[f"/{product}"] = answer


@pytest.mark.parametrize("nested", [False, True])
def test_patents_come_by_year_with_their_listed_size(server, tmp_path, nested):
    patent_api(server, "PTGRXML", ["ipg240102.zip", "ipg240109.zip", "notes.pdf"], nested=nested)
    wanted = Selection(parts=("grants",), years=(2024,))
    _, report = run("patents", server, tmp_path, wanted)
    assert report.fetched == [
        "patents/grants/2024/ipg240102.zip",
        "patents/grants/2024/ipg240109.zip",
    ]
    assert (tmp_path / report.fetched[0]).read_bytes() == b"ipg240102.zip" * 10


def test_patent_files_of_all_eras_are_known(server, tmp_path):
    names = ["pg010102.zip", "ipg050104.zip", "ipg240102_r1.zip"]
    patent_api(server, "PTGRXML", names)
    patent_api(server, "APPXML", ["pa010315.zip", "ipa050106.zip"])
    plan, _ = run("patents", server, tmp_path)
    assert sorted(paths(plan)) == [
        "patents/applications/2001/pa010315.zip",
        "patents/applications/2005/ipa050106.zip",
        "patents/grants/2001/pg010102.zip",
        "patents/grants/2005/ipg050104.zip",
        "patents/grants/2024/ipg240102_r1.zip",
    ]


@pytest.mark.parametrize(
    "path", ["/files/x", "/datasets/products/files/../../elsewhere/ipg240102.zip"]
)
def test_the_key_goes_to_no_address_that_a_list_names(server, tmp_path, path):
    with Server() as thief, Client(HASTY, api_key="secret") as client:
        row = {
            "fileName": "ipg240102.zip",
            "fileSize": 3,
            "fileDownloadURI": f"{thief.url}{path}",
        }
        bag = {"bulkDataProductBag": [{"productFileBag": {"fileDataBag": [row]}}]}
        server.files["/PTGRXML"] = json.dumps(bag).encode()
        server.files["/files/PTGRXML/ipg240102.zip"] = b"zip"
        manifest = Manifest(tmp_path)
        plan = make_plan("patents", client, server.url, Selection(parts=("grants",)), manifest)
        report = download(plan, client, manifest)
        assert report.fetched == ["patents/grants/2024/ipg240102.zip"]
        assert thief.requests == []
        assert server.paths()[1:] == ["/files/PTGRXML/ipg240102.zip"]


def test_years_count_even_where_the_api_tells_of_all(server, tmp_path):
    patent_api(server, "PTGRXML", ["ipg230103.zip", "ipg240102.zip"])
    plan, _ = run("patents", server, tmp_path, Selection(parts=("grants",), years=(2024,)))
    assert paths(plan) == ["patents/grants/2024/ipg240102.zip"]


def test_hostile_names_in_an_api_answer_are_refused(server, tmp_path):
    patent_api(server, "PTGRXML", ["../../ipg240102.zip"])
    _, report = run("patents", server, tmp_path, Selection(parts=("grants",)))
    assert report.fetched == []
    assert report.refused == ["../../ipg240102.zip"]


def test_a_wrong_key_is_said_at_once(server, tmp_path):
    server.files["/PTGRXML"] = b"{}"
    server.faults["/PTGRXML?includeFiles=true"] = [busy(403)]
    with pytest.raises(DownloadError, match="403 .*check the API key"):
        run("patents", server, tmp_path)


def test_an_answer_that_is_no_list_is_an_error(server, tmp_path):
    server.files["/PTGRXML"] = b"<html>sign in</html>"
    with pytest.raises(DownloadError, match="no list of files"):
        run("patents", server, tmp_path)
