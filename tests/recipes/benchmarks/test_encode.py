import json
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.recipes.benchmarks.encode import EncodeBenchmark, repeat_text

TOOL = Path(__file__).parents[3] / "tools" / "benchmark.py"


@pytest.fixture
def text(tmp_path):
    lines = [json.dumps({"text": f"Case {n}: aspirin was given, {n} mg."}) for n in range(200)]
    path = tmp_path / "text.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def model(tmp_path, text):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "m"),
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return str(tmp_path / "m.model")


def test_text_is_repeated_to_its_size_and_dealt_to_parts(tmp_path, text):
    whole = repeat_text(str(text), tmp_path / "t", 1, 2)
    assert 1_000_000 <= whole.stat().st_size < 1_000_100
    lines = whole.read_bytes().splitlines()
    parts = [(tmp_path / f"t.{part}").read_bytes().splitlines() for part in (0, 1)]
    assert parts == [lines[0::2], lines[1::2]]
    assert set(lines) == set(text.read_bytes().splitlines())


def test_every_side_is_a_row_and_the_scratch_folder_stays_empty(tmp_path, text, model):
    (tmp_path / "scratch").mkdir()
    command = [
        *(sys.executable, str(TOOL), "encode", "--input", str(text), "--tokenizer-model", model),
        *("--sizes-mb", "1", "--repeats", "2", "--scratch", str(tmp_path / "scratch"), "--json"),
        *("--peers", "megatron_biollm", "sentencepiece"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert [row["name"] for row in report["rows"]] == ["megatron_biollm", "sentencepiece"]
    ours = report["rows"][0]
    assert 0 < ours["fastest_s"] <= ours["seconds"] <= ours["slowest_s"]
    assert ours["million_tokens_per_second"] > 0 and ours["peak_rss_mb"] > 30
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"input": "nowhere"}, "nowhere is no file"),
        ({"repeats": 0}, "at least 1"),
        ({"peers": ["x"]}, "unknown peer x"),
    ],
)
def test_impossible_benchmarks_are_named(text, model, given, said):
    with pytest.raises(UserError, match=said):
        EncodeBenchmark(**{"input": str(text), "tokenizer_model": model, **given})
