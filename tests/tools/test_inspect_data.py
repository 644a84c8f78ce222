import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.data.sidecar import file_digests, write_sidecar
from megatron_biollm.tokenizer.manifest import TokenizerManifest, save_tokenizer
from megatron_biollm.tokenizer.tokenizer import build_tokenizer
from tests.data.conftest import SENTENCES, hugging_face_model, spelled_out  # noqa: F401

TOOL = Path(__file__).parents[2] / "tools" / "inspect_data.py"


def run_tool(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def corpus(tmp_path, hugging_face_model):  # noqa: F811
    """encoded/pubmed and encoded/pmc as the curation leaves them, their tokenizer beside them."""
    tokenizer = build_tokenizer(hugging_face_model)
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    for source, texts in (("pubmed", SENTENCES), ("pmc", SENTENCES[:2])):
        folder = tmp_path / "encoded" / source
        folder.mkdir(parents=True)
        prefix = str(folder / "00000_text_document")
        ids, index = spelled_out([[[*tokenizer.encode(t), tokenizer.eod]] for t in texts])
        Path(f"{prefix}.bin").write_bytes(ids)
        Path(f"{prefix}.idx").write_bytes(index)
        manifest = TokenizerManifest.from_tokenizer(tokenizer).to_json()
        write_sidecar(prefix, {"tokenizer": manifest, "sha256": file_digests(prefix)})
    return tmp_path


def test_a_folder_of_folders_is_a_table_of_sources(corpus):
    done = run_tool(corpus / "encoded", "--verify", "--json", "--documents", "1")
    assert done.returncode == 0, done.stderr
    pmc, pubmed = json.loads(done.stdout)["inputs"]
    assert (pmc["label"], pubmed["label"]) == ("pmc", "pubmed")
    assert [e["lengths"]["documents"] for e in (pmc, pubmed)] == [2, 5]
    assert pubmed["eod"] | {"id": 2} == {"id": 2, "ended": 5, "not_ended": 0, "inside": 0}
    assert pubmed["documents"][0]["text"] == SENTENCES[1]
    assert pubmed["problems"] == []


def test_the_text_tells_tokens_by_source_and_shows_a_document(corpus):
    done = run_tool(corpus / "encoded", "--sample", "1", "--plot", corpus / "lengths.png")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:4]] == [
        ["pmc", "2"],
        ["pubmed", "5"],
        ["all", "7"],
    ]
    assert "tokens a word" in done.stdout and "\n--- document " in done.stdout
    assert (corpus / "lengths.png").read_bytes().startswith(b"\x89PNG")


def test_a_damaged_file_is_told_with_status_1(corpus):
    file = corpus / "encoded" / "pmc" / "00000_text_document.bin"
    whole = bytearray(file.read_bytes())
    whole[0] ^= 1
    file.write_bytes(bytes(whole))
    done = run_tool(corpus / "encoded" / "pmc", "--verify")
    assert done.returncode == 1
    assert "problem: " in done.stdout and "has the sha256" in done.stdout


def test_another_tokenizer_than_the_one_that_made_it_is_refused(corpus):
    other = corpus / "other"
    shutil.copytree(corpus / "tokenizer", other)
    state = json.loads((other / "tokenizer.json").read_text())
    state["model"]["merges"].pop()
    (other / "tokenizer.json").write_text(json.dumps(state))
    prefix = corpus / "encoded" / "pmc" / "00000_text_document"
    done = run_tool(prefix, "--tokenizer-model", other)
    assert (done.returncode, done.stdout) == (2, "")
    assert "give different ids" in done.stderr


def test_decoding_without_a_tokenizer_asks_for_the_one_that_made_it(corpus):
    (corpus / "tokenizer").rename(corpus / "elsewhere")
    prefix = corpus / "encoded" / "pmc" / "00000_text_document"
    done = run_tool(f"{prefix}.bin", "--sample", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "give it with --tokenizer-model" in done.stderr
    assert run_tool(prefix).returncode == 0
    done = run_tool(prefix, "--sample", 1, "--tokenizer-model", corpus / "elsewhere")
    assert any(sentence in done.stdout for sentence in SENTENCES[:2])


def test_text_is_inspected_by_the_source_its_records_name(corpus):
    lines = [{"text": text, "source": "pmc"} for text in SENTENCES]
    file = corpus / "x.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    done = run_tool(file, "--json", "--tokenizer-model", corpus / "tokenizer", "--documents", "2")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)["inputs"]
    assert entry["label"] == "pmc" and entry["characters"] == sum(map(len, SENTENCES))
    assert entry["ratios"]["documents"] == 5
    assert entry["documents"] == [{"document": 2, "text": SENTENCES[2]}]


def test_a_name_that_is_nothing_is_one_message_and_status_2(tmp_path):
    for name in (tmp_path, tmp_path / "none", tmp_path / "none.jsonl"):
        done = run_tool(name)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_help_shows_examples():
    done = run_tool("--help")
    assert done.returncode == 0
    assert "python tools/inspect_data.py corpus_text_document" in done.stdout
