import email.utils
import json
import time

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.download.client import (
    Cancelled,
    Client,
    DownloadError,
    Politeness,
    check_base_url,
)
from megatron_biollm.corpus.download.fetch import RemoteFile, expected_md5, fetch_file
from tests.corpus.download_server import (
    HASTY,
    Server,
    answer,
    busy,
    cut,
    etag,
    hasty_client,
    ignoring_ranges,
    md5,
)

BODY = bytes(range(256)) * 1000


@pytest.fixture
def server():
    with Server() as server:
        server.files["/a.gz"] = BODY
        yield server


@pytest.fixture
def client():
    with hasty_client() as client:
        yield client


def remote(server, **fields):
    fields = {"md5": md5(BODY), "licence": "free", "source": "test", **fields}
    return RemoteFile(f"{server.url}/a.gz", "a.gz", **fields)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def leave_part(target, content, validator):
    target.with_name(".a.gz.part").write_bytes(content)
    target.with_name(".a.gz.part.json").write_text(json.dumps({"validator": validator}))


def test_a_file_comes_whole_with_both_checksums(server, client, tmp_path):
    found = fetch_file(client, remote(server), tmp_path / "a.gz")
    assert (tmp_path / "a.gz").read_bytes() == BODY
    assert (found.bytes, found.md5) == (len(BODY), md5(BODY))
    assert names(tmp_path) == ["a.gz"]


def test_a_cut_connection_is_resumed_where_it_broke(server, client, tmp_path):
    server.faults["/a.gz"] = [cut(100_000)]
    counted = []
    fetch_file(client, remote(server), tmp_path / "a.gz", counted.append)
    assert server.ranges("/a.gz") == [None, "bytes=100000-"]
    assert (tmp_path / "a.gz").read_bytes() == BODY
    assert sum(counted) == len(BODY)


def test_the_part_of_an_earlier_run_is_resumed(server, client, tmp_path):
    leave_part(tmp_path / "a.gz", BODY[:70_000], etag(BODY))
    counted = []
    fetch_file(client, remote(server), tmp_path / "a.gz", counted.append)
    (headers,) = [headers for _, headers in server.requests]
    assert (headers["Range"], headers["If-Range"]) == ("bytes=70000-", etag(BODY))
    assert headers["Accept-Encoding"] == "identity"
    assert (tmp_path / "a.gz").read_bytes() == BODY
    assert sum(counted) == len(BODY)
    assert names(tmp_path) == ["a.gz"]


def test_a_part_that_is_already_whole_is_not_fetched_again(server, client, tmp_path):
    leave_part(tmp_path / "a.gz", BODY, etag(BODY))
    fetch_file(client, remote(server), tmp_path / "a.gz")
    assert (tmp_path / "a.gz").read_bytes() == BODY


@pytest.mark.parametrize("validator", ['"of another file"', None])
def test_the_part_of_a_file_that_changed_is_thrown_away(server, client, tmp_path, validator):
    leave_part(tmp_path / "a.gz", b"older content" * 99, validator)
    fetch_file(client, remote(server, md5=None), tmp_path / "a.gz")
    assert (tmp_path / "a.gz").read_bytes() == BODY


def test_a_file_that_changes_between_attempts_is_never_a_mixture(server, client, tmp_path):
    newer = BODY[::-1] + b"more"

    def change_after(handler, body):
        cut(100_000)(handler, body)
        server.files["/a.gz"] = newer

    server.faults["/a.gz"] = [change_after]
    fetch_file(client, remote(server, md5=None), tmp_path / "a.gz")
    assert (tmp_path / "a.gz").read_bytes() == newer


def test_a_server_that_ignores_if_range_is_found_out_by_its_etag(server, client, tmp_path):
    def careless(handler, body):
        span = f"bytes 500-{len(body) - 1}/{len(body)}"
        answer(handler, 206, body[500:], ETag=etag(body), Content_Range=span)

    leave_part(tmp_path / "a.gz", b"x" * 500, '"of another file"')
    server.faults["/a.gz"] = [careless]
    fetch_file(client, remote(server, md5=None), tmp_path / "a.gz")
    assert (tmp_path / "a.gz").read_bytes() == BODY


def test_a_server_that_sends_less_than_was_asked_for_is_asked_for_the_rest(
    server, client, tmp_path
):
    def a_slice(handler, body):
        span = f"bytes 500-999/{len(body)}"
        answer(handler, 206, body[500:1000], ETag=etag(body), Content_Range=span)

    leave_part(tmp_path / "a.gz", BODY[:500], etag(BODY))
    server.faults["/a.gz"] = [a_slice]
    fetch_file(client, remote(server, md5=None), tmp_path / "a.gz")
    assert server.ranges("/a.gz") == ["bytes=500-", "bytes=1000-"]
    assert (tmp_path / "a.gz").read_bytes() == BODY


def test_a_server_that_ignores_ranges_starts_the_file_again(server, client, tmp_path):
    server.faults["/a.gz"] = [cut(100_000), ignoring_ranges]
    counted = []
    fetch_file(client, remote(server), tmp_path / "a.gz", counted.append)
    assert (tmp_path / "a.gz").read_bytes() == BODY
    assert sum(counted) == len(BODY)


def test_a_wrong_checksum_is_tried_again_then_reported_and_nothing_kept(server, client, tmp_path):
    with pytest.raises(DownloadError, match=f"MD5 is {md5(BODY)}, but must be {'0' * 32}"):
        fetch_file(client, remote(server, md5="0" * 32), tmp_path / "a.gz")
    assert len(server.requests) == HASTY.attempts
    assert names(tmp_path) == []


def test_a_body_damaged_once_comes_right_at_the_second_attempt(server, client, tmp_path):
    server.faults["/a.gz"] = [lambda handler, body: answer(handler, 200, b"\0" + body[1:])]
    fetch_file(client, remote(server), tmp_path / "a.gz")
    assert (tmp_path / "a.gz").read_bytes() == BODY


def test_a_size_other_than_the_listed_one_is_reported(server, client, tmp_path):
    with pytest.raises(DownloadError, match="256,000 bytes came, but the source lists 7"):
        fetch_file(client, remote(server, md5=None, size=7, exact=True), tmp_path / "a.gz")
    assert names(tmp_path) == []


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(server, client, tmp_path):
    server.faults["/a.gz"] = [busy(429, Retry_After="1")]
    start = time.monotonic()
    fetch_file(client, remote(server), tmp_path / "a.gz")
    assert time.monotonic() - start >= 1
    assert (tmp_path / "a.gz").read_bytes() == BODY


def test_a_run_that_ended_asks_no_more(server, client):
    client.stop.set()
    with pytest.raises(Cancelled):
        client.open(f"{server.url}/a.gz")
    assert server.requests == []


def test_the_date_form_of_retry_after_is_understood(server, client, tmp_path):
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    server.faults["/a.gz"] = [busy(503, Retry_After=date)]
    with pytest.raises(DownloadError, match=r"for 3[56]\d\d s"):
        fetch_file(client, remote(server), tmp_path / "a.gz")


def test_a_wait_longer_than_allowed_ends_the_file_and_is_named(server, client, tmp_path):
    server.faults["/a.gz"] = [busy(503, Retry_After="3600")]
    with pytest.raises(DownloadError, match="503 .* for 3600 s; waits last at most 2 s"):
        fetch_file(client, remote(server), tmp_path / "a.gz")


def test_a_server_that_stays_busy_is_given_up(server, client, tmp_path):
    server.faults["/a.gz"] = [busy()] * 9
    with pytest.raises(DownloadError, match="503 .*given up after 3 attempts"):
        fetch_file(client, remote(server), tmp_path / "a.gz")
    assert len(server.requests) == 3


def test_attempts_that_bring_bytes_do_not_count_as_failures(server, client, tmp_path):
    def some_more(handler, body):
        first = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        handler.send_response(206 if first else 200)
        handler.send_header("ETag", etag(body))
        handler.send_header("Content-Length", str(len(body) - first))
        handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        handler.end_headers()
        handler.wfile.write(body[first : first + 30_000])
        handler.close_connection = True

    server.faults["/a.gz"] = [some_more] * 8
    fetch_file(client, remote(server), tmp_path / "a.gz")
    assert (tmp_path / "a.gz").read_bytes() == BODY
    assert len(server.requests) == 9


def test_a_packed_file_is_kept_packed_whatever_the_server_calls_it(server, client, tmp_path):
    server.faults["/a.gz"] = [
        lambda handler, body: answer(handler, 200, body, Content_Encoding="gzip")
    ]
    fetch_file(client, remote(server), tmp_path / "a.gz")
    assert (tmp_path / "a.gz").read_bytes() == BODY


def test_a_missing_file_is_not_asked_for_again(server, client, tmp_path):
    del server.files["/a.gz"]
    with pytest.raises(DownloadError, match=r"/a.gz: the server answers 404 .*base address"):
        fetch_file(client, remote(server), tmp_path / "a.gz")
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_named(client, tmp_path):
    gone = RemoteFile("http://127.0.0.1:9/a.gz", "a.gz", "free", "test")
    with pytest.raises(DownloadError, match=r"127.0.0.1:9/a.gz: .*[Cc]onnection refused"):
        fetch_file(client, gone, tmp_path / "a.gz")


def test_the_end_of_a_run_leaves_the_part_for_the_next_one(server, client, tmp_path):
    def stop_soon(count):
        if count:
            client.stop.set()

    with pytest.raises(Cancelled):
        fetch_file(client, remote(server), tmp_path / "a.gz", stop_soon)
    assert names(tmp_path) == [".a.gz.part", ".a.gz.part.json"]
    with hasty_client() as another:
        fetch_file(another, remote(server), tmp_path / "a.gz")
    assert (tmp_path / "a.gz").read_bytes() == BODY
    assert server.ranges("/a.gz")[-1] is not None


def test_an_old_file_stays_until_the_new_one_is_whole(server, client, tmp_path):
    (tmp_path / "a.gz").write_bytes(b"old")
    server.faults["/a.gz"] = [cut(1000)] * 9
    with pytest.raises(DownloadError):
        fetch_file(client, remote(server), tmp_path / "a.gz")
    assert (tmp_path / "a.gz").read_bytes() == b"old"


@pytest.mark.parametrize(
    "text", ["MD5(a.gz)= {}\n", "{}  a.gz\n", "MD5 (a.gz) = {}"], ids=["NLM", "md5sum", "BSD"]
)
def test_checksum_files_of_all_tools_are_read(server, client, text):
    server.files["/a.gz.md5"] = text.format(md5(BODY).upper()).encode()
    assert expected_md5(client, remote(server, md5_url=f"{server.url}/a.gz.md5")) == md5(BODY)


def test_a_checksum_file_without_a_checksum_is_an_error(server, client):
    server.files["/a.gz.md5"] = b"<html>not here</html>"
    with pytest.raises(DownloadError, match="32 hexadecimal digits"):
        expected_md5(client, remote(server, md5_url=f"{server.url}/a.gz.md5"))


def test_the_tool_names_itself_and_whom_to_write_to(server):
    with Client(HASTY, contact="me@example.org") as client:
        client.get(f"{server.url}/a.gz")
    assert server.requests[0][1]["User-Agent"] == "megatron-biollm-download (me@example.org)"


def test_the_api_key_stays_with_the_host_it_is_for(server, tmp_path):
    with Server() as other, Client(HASTY, api_key="secret") as client:
        other.files["/signed"] = BODY
        there = f"{other.url.replace('127.0.0.1', 'localhost')}/signed"
        server.faults["/a.gz"] = [busy(302, Location=there)]
        assert client.get(f"{server.url}/a.gz") == BODY
        assert server.requests[0][1]["X-API-KEY"] == "secret"
        assert "X-API-KEY" not in other.requests[0][1]


def test_requests_keep_their_distance(server):
    with hasty_client(requests_per_second=20) as client:
        start = time.monotonic()
        for _ in range(5):
            client.get(f"{server.url}/a.gz")
        assert time.monotonic() - start >= 4 / 20


@pytest.mark.parametrize("url", ["ftp://host/x", "/folder", "host.org/x", ""])
def test_a_base_address_must_be_one(url):
    with pytest.raises(UserError, match="https://host/path"):
        check_base_url(url)


def test_politeness_cannot_be_zero():
    with pytest.raises(UserError, match="connections is 0"):
        Politeness(connections=0)
