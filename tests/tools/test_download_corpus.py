import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.corpus.download_server import Server, slowly

TOOL = Path(__file__).parents[2] / "tools" / "download_corpus.py"
QUICK = ["--requests-per-second", "1000", "--backoff-s", "0.01", "--attempts", "2"]


@pytest.fixture
def server():
    with Server() as server:
        for number in (1, 2):
            body = bytes(range(256)) * 2000 * number
            server.add_with_md5(f"/baseline/pubmed26n000{number}.xml.gz", body)
        server.folder("/baseline/")
        yield server


def command(server, root, *arguments):
    arguments = ["--output", root, "--base-url", server.url, *QUICK, *arguments]
    return [sys.executable, TOOL, "pubmed", "--parts", "baseline", *map(str, arguments)]


def run(server, root, *arguments, **options):
    return subprocess.run(
        command(server, root, *arguments), capture_output=True, text=True, timeout=60, **options
    )


def finished(root):
    return sorted(path.name for path in root.rglob("pubmed26*"))


def test_it_downloads_reports_and_finds_everything_there_the_second_time(server, tmp_path):
    done = run(server, tmp_path, "--contact", "me@example.org")
    assert (done.returncode, done.stdout) == (0, "2 fetched (1.5 MB), 0 were there, 0 failed\n")
    assert "downloading" in done.stderr
    again = run(server, tmp_path, "--json")
    assert json.loads(again.stdout)["there"] == [
        "pubmed/baseline/pubmed26n0001.xml.gz",
        "pubmed/baseline/pubmed26n0002.xml.gz",
    ]


def test_a_dry_run_lists_sizes_and_fetches_nothing(server, tmp_path):
    done = run(server, tmp_path, "--dry-run")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["0.5", "MB", "pubmed/baseline/pubmed26n0001.xml.gz"]
    assert lines[-1] == "2 files, ~1.5 MB; to fetch: 2 files, ~1.5 MB"
    assert finished(tmp_path) == []
    totals = json.loads(run(server, tmp_path, "--dry-run", "--json").stdout)["totals"]
    assert totals == {"files": 2, "missing": 2, "bytes": 1536000, "missing_bytes": 1536000}


def test_a_failed_file_is_named_and_the_status_tells(server, tmp_path):
    del server.files["/baseline/pubmed26n0002.xml.gz"]
    done = run(server, tmp_path)
    assert done.returncode == 1
    assert "pubmed26n0002.xml.gz: the server answers 404" in done.stderr
    assert finished(tmp_path) == ["pubmed26n0001.xml.gz"]


def test_wrong_options_are_one_message_and_status_2(server, tmp_path):
    cases = {
        "'base' is not one of": ["--parts", "base"],
        "--limit is 0": ["--limit", "0"],
        "--years picks patents": ["--years", "2020"],
        "https://host/path": ["--base-url", "ftp://host"],
        "connections is 0": ["--connections", "0"],
        "answers 404": ["--base-url", server.url + "/nowhere"],
    }
    for message, arguments in cases.items():
        done = run(server, tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ") and message in done.stderr


def test_patents_need_a_key(tmp_path):
    done = subprocess.run(
        [sys.executable, TOOL, "patents", "--output", tmp_path],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(TOOL.parents[1])},
    )
    assert done.returncode == 2
    assert "USPTO_API_KEY" in done.stderr


def test_an_interrupt_leaves_parts_only_and_the_next_run_resumes(server, tmp_path):
    def half(handler, body):
        handler.send_response(200)
        handler.send_header("ETag", '"same"')
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:200_000])
        handler.wfile.flush()
        time.sleep(1)
        handler.close_connection = True

    for number in (1, 2):
        server.faults[f"/baseline/pubmed26n000{number}.xml.gz"] = [half]
    process = subprocess.Popen(command(server, tmp_path), stderr=subprocess.PIPE, text=True)
    parts = [tmp_path / f"pubmed/baseline/.pubmed26n000{n}.xml.gz.part" for n in (1, 2)]
    wait_until(lambda: all(part.exists() and part.stat().st_size for part in parts))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in errors
    assert finished(tmp_path) == []
    assert all(part.exists() for part in parts)
    assert run(server, tmp_path).returncode == 0
    assert finished(tmp_path) == ["pubmed26n0001.xml.gz", "pubmed26n0002.xml.gz"]


def test_a_full_disk_ends_the_run_with_no_half_file_under_a_final_name(server, tmp_path):
    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    done = run(server, tmp_path, preexec_fn=small_files_only)
    assert done.returncode == 2
    assert "cannot write" in done.stderr and "free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert finished(tmp_path) == []
    assert run(server, tmp_path).returncode == 0


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(server, tmp_path):
    listing = server.files["/baseline/"].decode()
    server.files["/baseline/"] = listing.replace("512000", "900T").encode()
    done = run(server, tmp_path)
    assert done.returncode == 2
    assert "GB free; choose fewer files" in done.stderr
    assert server.paths() == ["/baseline/"]


def test_verify_fetches_what_was_damaged_on_disk(server, tmp_path):
    run(server, tmp_path)
    damaged = tmp_path / "pubmed/baseline/pubmed26n0001.xml.gz"
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    assert run(server, tmp_path).stdout.startswith("0 fetched")
    done = run(server, tmp_path, "--verify")
    assert "pubmed26n0001.xml.gz differs from its checksum" in done.stderr
    assert damaged.read_bytes() == server.files["/baseline/pubmed26n0001.xml.gz"]


def test_a_second_process_in_the_same_folder_is_refused(server, tmp_path):
    server.faults["/baseline/"] = [slowly(2)]
    first = subprocess.Popen(command(server, tmp_path), stderr=subprocess.DEVNULL)
    wait_until(lambda: server.requests)
    done = run(server, tmp_path)
    assert done.returncode == 2 and "another process" in done.stderr
    assert first.wait(timeout=30) == 0


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
