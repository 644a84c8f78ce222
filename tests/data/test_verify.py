import json
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.data.sidecar import file_digests, write_sidecar
from megatron_biollm.data.verify import verify_prefix

TOOL = Path(__file__).parents[2] / "tools" / "verify_data.py"


def described(prefix, **changes):
    report = verify_prefix(prefix)
    contents = {name: getattr(report, name) for name in ("documents", "tokens", "max_token_id")}
    contents["tokenizer"] = {"vocab_size": 99, "sha256": "1"}
    write_sidecar(prefix, contents | {"sha256": file_digests(prefix)} | changes)
    return prefix


def test_a_whole_corpus_is_fine(write_corpus):
    report = verify_prefix(described(write_corpus(documents=60)))
    assert report.fine and report.documents == 60 and report.max_token_id == 98


def test_one_changed_byte_is_found_by_the_digest(write_corpus):
    prefix = described(write_corpus())
    path = Path(f"{prefix}.bin")
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(bytes(content))
    problems = verify_prefix(prefix).problems
    assert len(problems) == 1 and f"{prefix}.bin has the sha256" in problems[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": 3}, "says tokens 3"),
        ({"tokenizer": {"vocab_size": 50}}, "token id 98, but the vocabulary has 50"),
        ({"sha256": {}}, "the sidecar recorded None"),
    ],
)
def test_a_sidecar_that_does_not_fit_is_told(write_corpus, changes, said):
    problems = verify_prefix(described(write_corpus(), **changes)).problems
    assert any(said in problem for problem in problems)


def test_empty_documents_are_counted(tmp_path, spelled_out):
    for suffix, content in zip((".bin", ".idx"), spelled_out([[[1]], [], [[2]]]), strict=True):
        (tmp_path / f"c{suffix}").write_bytes(content)
    report = verify_prefix(str(tmp_path / "c"))
    assert report.fine and report.empty_documents == 1


def test_the_tools_status_is_0_only_if_every_corpus_is_fine(write_corpus):
    good, bad = described(write_corpus("good")), write_corpus("bad")
    Path(f"{bad}.bin").write_bytes(b"")
    command = [sys.executable, str(TOOL), "--json"]
    assert subprocess.run([*command, good], capture_output=True).returncode == 0
    done = subprocess.run([*command, good, bad], capture_output=True, text=True)
    reports = json.loads(done.stdout)
    assert done.returncode == 1 and [report["fine"] for report in reports] == [True, False]
    assert "truncated" in reports[1]["problems"][0]
