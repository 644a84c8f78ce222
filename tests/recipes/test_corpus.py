import json
import random
import shutil
from pathlib import Path

import pytest
import yaml

from megatron_biollm.config import UserError, load_config
from megatron_biollm.data.sidecar import read_sidecar
from megatron_biollm.data.verify import verify_prefix
from megatron_biollm.recipes.corpus import CorpusConfig, build_corpus
from megatron_biollm.tokenizer.manifest import load_tokenizer
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer
from megatron_biollm.tokenizer.train import train_tokenizer

NOTE = "Patient {} was seen for hypertension and started on lisinopril 10 mg daily, number {}."
WORDS = [
    "the",
    "of",
    "in",
    "patients",
    "renal",
    "hepatic",
    "acute",
    "chronic",
    "dose",
    "serum",
    "cells",
    "mice",
    "risk",
    "study",
]
ABSTRACT = "We studied nephritis and hepatitis in {} mice; interleukin-{} was measured by ELISA."


def article(source, number, sentences):
    dice = random.Random(f"{source} {number}")
    words = [" ".join(dice.choices(WORDS, k=12)) for _ in range(sentences)]
    return "".join(f"{ABSTRACT.format(number, dice.random())} {some}. " for some in words)


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for source, sentences in {"pubmed": 1, "pmc": 12}.items():
        records = (
            {"text": article(source, number, sentences), "id": str(number), "source": source}
            for number in range(30)
        )
        lines = "".join(f"{json.dumps(record)}\n" for record in records)
        (folder / f"{source}.jsonl").write_text(lines)
    (folder / "note.txt").write_text(NOTE.format("Mary Johnson", 1))
    return folder


def opened(folder):
    return build_tokenizer(TokenizerConfig(tokenizer_model=str(folder)))


def config(sources, **fields):
    base = {
        "sources.text.paths": f"[{sources}/pubmed.jsonl,{sources}/pmc.jsonl]",
        "output_dir": sources.parent / "out",
        "executor.workers": 2,
        "buckets": 1,
        "near_duplicates.enabled": False,
        "containment.enabled": False,
    }
    return load_config(CorpusConfig, None, [f"{k}={v}" for k, v in (base | fields).items()])


def test_source_files_become_a_tokenizer_corpora_and_their_blend(sources, tmp_path):
    base = train_tokenizer(["the patients of the clinic"], 512, tmp_path / "base")
    fields = {"vocabulary.base": base, "vocabulary.add": 8, "sources.pmc.epochs": 2}
    manifest = build_corpus(config(sources, **fields, train_tokens=10_000))
    output = tmp_path / "out"
    tokenizer = load_tokenizer(output / "tokenizer")
    assert tokenizer.vocab_size == opened(base).vocab_size + 8
    prefixes = sorted(output.glob("encoded/*/*.bin"))
    assert [file.parent.name for file in prefixes] == ["pmc", "pubmed"]
    for file in prefixes:
        prefix = str(file.with_suffix(""))
        assert verify_prefix(prefix).fine
        assert read_sidecar(prefix)["tokens"] == manifest["tokens"][file.parent.name]
    shares = {share["source"]: share for share in manifest["shares"]}
    assert sum(share["sampled_tokens"] for share in shares.values()) == pytest.approx(10_000)
    weights = yaml.safe_load((output / "blend.yaml").read_text())["data"]["data_path"][::2]
    assert sum(map(float, weights)) == pytest.approx(1)
    tokens = manifest["tokens"]
    assert float(weights[0]) == pytest.approx(
        2 * tokens["pmc"] / (2 * tokens["pmc"] + tokens["pubmed"])
    )
    assert "Corpus out" in (output / "report.html").read_text()


def test_without_a_tokenizer_the_corpus_stays_text(sources, tmp_path):
    assert "tokens" not in build_corpus(config(sources))
    assert not (tmp_path / "out" / "encoded").exists()
    assert (tmp_path / "out" / "report.html").exists()


def test_another_tokenizer_encodes_again_and_leaves_the_text_alone(sources, tmp_path):
    for name in ("one", "two"):
        train_tokenizer([ABSTRACT, name * 9], 512, tmp_path / name)
        build_corpus(config(sources, **{"encode.tokenizer_model": tmp_path / name}))
        sidecar = read_sidecar(str(tmp_path / "out" / "encoded" / "pubmed" / "00000_text_document"))
        assert sidecar["tokenizer"]["sha256"] == opened(tmp_path / name).sha256
    assert len(list((tmp_path / "out" / "stages").glob("1-extract-*"))) == 1


@pytest.mark.parametrize("field", ["encode.tokenizer_model", "vocabulary.base"])
def test_another_tokenizer_at_the_same_path_encodes_again(sources, tmp_path, field):
    fields = {field: tmp_path / "base", "vocabulary.add": 8, "vocabulary.min_frequency": 2}
    digests = set()
    for text in (ABSTRACT, "the kidneys of mice " * 9):
        shutil.rmtree(tmp_path / "base", ignore_errors=True)
        train_tokenizer([text], 512, tmp_path / "base")
        build_corpus(config(sources, **fields))
        sidecar = read_sidecar(str(tmp_path / "out" / "encoded" / "pubmed" / "00000_text_document"))
        digests.add(sidecar["tokenizer"]["sha256"])
    assert len(digests) == 2


def test_a_shard_that_is_no_more_takes_its_binaries_along(sources, tmp_path):
    base = train_tokenizer([ABSTRACT], 512, tmp_path / "base")
    fields = {"encode.tokenizer_model": base, "task_mb": 0.000001}
    build_corpus(config(sources, **fields))
    (sources / "pmc.jsonl").unlink()
    only = {"sources.text.paths": f"[{sources}/pubmed.jsonl]"}
    assert set(build_corpus(config(sources, **fields, **only))["tokens"]) == {"pubmed"}
    assert not list((tmp_path / "out" / "encoded" / "pmc").glob("*.bin"))


def test_notes_without_a_secret_stop_the_run_and_with_one_lose_their_names(
    sources, tmp_path, monkeypatch
):
    fields = {"sources.text.paths": "[]", "sources.clinical_notes.paths": f"[{sources}/note.txt]"}
    monkeypatch.delenv("BIOLLM_DEID_SECRET", raising=False)
    with pytest.raises(UserError, match="the secret of the de-identification"):
        build_corpus(config(sources, **fields))
    assert not list((tmp_path / "out" / "documents").rglob("*.zst"))
    monkeypatch.setenv("BIOLLM_DEID_SECRET", "0123456789abcdef0123456789abcdef")
    assert build_corpus(config(sources, **fields))["sources"]["clinical_notes"]["documents"] == 1
    for file in Path(tmp_path / "out").rglob("*"):
        assert not file.is_file() or b"Mary Johnson" not in file.read_bytes()


def test_two_tokenizers_are_refused(sources):
    with pytest.raises(UserError, match=r"give\s+one of the two"):
        config(sources, **{"vocabulary.base": "a", "encode.tokenizer_model": "b"})
