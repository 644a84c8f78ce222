import gzip
import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.download.client import DownloadError
from megatron_biollm.corpus.download.jobs import Selection
from megatron_biollm.corpus.download.manifest import Manifest
from megatron_biollm.corpus.download.run import download, make_plan
from tests.corpus.download_server import Server, busy, cut, hasty_client

FOLDER = "clinical_trials/2026-11-20T090005"
QUERY = "format=json&countTotal=true"


class Registry(Server):
    """API v2 with pages of the size that it is asked for, cut short: the page decides."""

    def publish(self, pages, version="2026-11-20T09:00:05", query=QUERY, total=None):
        studies = [study for page in pages for study in page]
        total = len(studies) if total is None else total
        self.files["/version"] = json.dumps({"dataTimestamp": version}).encode()
        head = {"studies": studies[:1], "totalCount": total, "nextPageToken": "x"}
        self.files[f"/studies?{query}&pageSize=1"] = json.dumps(head).encode()
        for number, page in enumerate(pages):
            token = f"&pageToken=t{number}" if number else ""
            body = {"studies": page}
            if number + 1 < len(pages):
                body["nextPageToken"] = f"t{number + 1}"
            self.files[f"/studies?{query}&pageSize=1000{token}"] = json.dumps(body).encode()


def study(number):
    return {
        "protocolSection": {
            "identificationModule": {"nctId": f"NCT{number:08d}", "briefTitle": f"Trial {number}"},
            "descriptionModule": {"briefSummary": f"What trial {number} is about."},
        }
    }


@pytest.fixture
def registry():
    with Registry() as registry:
        registry.publish([[study(1), study(2)], [study(3), study(4)], [study(5)]])
        yield registry


def run(registry, root, wanted=None):
    with hasty_client() as client:
        manifest = Manifest(root)
        plan = make_plan("clinical_trials", client, registry.url, wanted or Selection(), manifest)
        return download(plan, client, manifest)


def studies(root, folder=FOLDER):
    pages = sorted((root / folder).glob("studies-*.json.gz"))
    found = [json.loads(gzip.decompress(page.read_bytes()))["studies"] for page in pages]
    return [s["protocolSection"]["identificationModule"]["nctId"][-1] for f in found for s in f]


def asked_for_pages(registry):
    return [path for path in registry.paths() if "pageSize=1000" in path]


def test_all_pages_come_and_each_has_its_record(registry, tmp_path):
    report = run(registry, tmp_path)
    assert report.failed == {}
    assert studies(tmp_path) == list("12345")
    record = Manifest(tmp_path).records[f"{FOLDER}/studies-00002.json.gz"]
    assert record.url.endswith("pageToken=t1")
    assert record.licence.startswith("ClinicalTrials.gov terms")
    assert record.version == "2026-11-20T09:00:05"


def test_a_second_run_asks_for_no_page(registry, tmp_path):
    run(registry, tmp_path)
    registry.requests.clear()
    report = run(registry, tmp_path)
    assert report.there == [FOLDER]
    assert asked_for_pages(registry) == []


def test_an_interrupted_run_goes_on_at_the_page_it_lacks(registry, tmp_path):
    third = f"/studies?{QUERY}&pageSize=1000&pageToken=t2"
    registry.faults[third] = [busy()] * 3
    assert "503" in run(registry, tmp_path).failed[FOLDER]
    registry.requests.clear()
    run(registry, tmp_path)
    assert asked_for_pages(registry) == [third]
    assert studies(tmp_path) == list("12345")


def test_a_broken_page_is_asked_for_again(registry, tmp_path):
    first = f"/studies?{QUERY}&pageSize=1000"
    registry.faults[first] = [cut(20), lambda handler, body: cut(len(body) // 2)(handler, body)]
    run(registry, tmp_path)
    assert studies(tmp_path) == list("12345")


def test_a_missing_page_makes_the_run_begin_anew(registry, tmp_path):
    run(registry, tmp_path)
    (tmp_path / FOLDER / "studies-00002.json.gz").unlink()
    registry.requests.clear()
    run(registry, tmp_path)
    assert studies(tmp_path) == list("12345")
    assert len(asked_for_pages(registry)) == 3


def test_a_token_that_the_server_has_forgotten_is_named_and_the_next_run_begins_anew(
    registry, tmp_path
):
    third = f"/studies?{QUERY}&pageSize=1000&pageToken=t2"
    registry.faults[third] = [busy()] * 3 + [busy(400)]
    run(registry, tmp_path)
    assert "forgotten" in run(registry, tmp_path).failed[FOLDER]
    run(registry, tmp_path)
    assert studies(tmp_path) == list("12345")


def test_fewer_studies_than_promised_are_an_error(registry, tmp_path):
    registry.publish([[study(1)], [study(2)]], total=3)
    assert "2 studies came, but there should be 3" in run(registry, tmp_path).failed[FOLDER]


def test_newer_data_come_into_a_folder_of_their_own_and_the_old_one_is_pointed_out(
    registry, tmp_path
):
    run(registry, tmp_path)
    registry.publish([[study(1)], [study(9)]], version="2026-11-21T09:00:00")
    report = run(registry, tmp_path)
    assert studies(tmp_path, "clinical_trials/2026-11-21T090000") == list("19")
    assert len(report.superseded) == 3


def test_updates_since_a_day_are_a_query_and_a_folder_of_their_own(registry, tmp_path):
    since = "filter.advanced=AREA%5BLastUpdatePostDate%5DRANGE%5B2026-11-01%2CMAX%5D"
    registry.publish([[study(7)]], query=f"{QUERY}&{since}")
    run(registry, tmp_path, Selection(first="2026-11-01"))
    assert studies(tmp_path, f"{FOLDER}-updated-2026-11-01") == ["7"]


def test_a_limit_counts_pages(registry, tmp_path):
    assert run(registry, tmp_path, Selection(limit=2)).failed == {}
    assert studies(tmp_path) == list("1234")
    registry.requests.clear()
    assert run(registry, tmp_path, Selection(limit=2)).there == [FOLDER]
    assert asked_for_pages(registry) == []
    run(registry, tmp_path)
    assert studies(tmp_path) == list("12345")


def test_options_that_make_no_sense_for_studies_are_refused(registry, tmp_path):
    with pytest.raises(UserError, match="give it as YYYY-MM-DD"):
        run(registry, tmp_path, Selection(first="NCT0001"))
    with pytest.raises(UserError, match="--include"):
        run(registry, tmp_path, Selection(include="*"))
    with pytest.raises(UserError, match="--parts"):
        run(registry, tmp_path, Selection(parts=("all",)))


def test_an_address_without_the_api_is_an_error(registry, tmp_path):
    registry.files["/version"] = b"<html></html>"
    with pytest.raises(DownloadError, match="no JSON object"):
        run(registry, tmp_path)
    registry.files["/version"] = b'{"dataTimestamp": "../../x"}'
    with pytest.raises(DownloadError, match="must be a date"):
        run(registry, tmp_path)
