import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.finetune.mediqa import mediqa_pairs
from megatron_biollm.finetune.preferences import read_pairs

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared/data/benchmarks/align_mediqa2019_qa"
MADE = """<?xml version="1.0" encoding="UTF-8"?>
<Task><Question QID="7"><QuestionText> What is flu? </QuestionText><AnswerList>
<Answer AID="a" ReferenceScore="2"><AnswerText>A bird.</AnswerText></Answer>
<Answer AID="b" ReferenceScore="4"><AnswerText>A virus &amp; more.</AnswerText></Answer>
<Answer AID="c" ReferenceScore="2"><AnswerText>Bird.</AnswerText></Answer>
<Answer AID="d" ReferenceScore="3"><AnswerText>Ill.</AnswerText></Answer>
</AnswerList></Question></Task>
"""


def made(folder, text=MADE):
    path = folder / "made.xml.gz"
    path.write_bytes(gzip.compress(text.encode()))
    return path


def test_answers_with_different_scores_are_pairs_better_one_first(tmp_path):
    rows = list(mediqa_pairs(made(tmp_path)))
    assert [row["id"] for row in rows] == ["b/a", "d/a", "b/c", "b/d", "d/c"]
    assert rows[0]["prompt"][0]["content"] == "What is flu?"
    assert rows[0]["chosen"][0]["content"] == "A virus & more."
    assert rows[0]["meta"]["score_chosen"] == 4


def test_a_larger_gap_may_be_asked_for(tmp_path):
    assert [row["id"] for row in mediqa_pairs(made(tmp_path), min_gap=2)] == ["b/a", "b/c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no xml", "is not XML"),
        (MADE.replace(' ReferenceScore="4"', ""), "answer b has ReferenceScore None"),
        ("<Task/>", "no two answers with different ReferenceScore"),
    ],
)
def test_files_without_ratings_are_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        list(mediqa_pairs(made(tmp_path, text)))


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the MEDIQA 2019 files beside the checkout")
def test_the_real_files_give_6536_pairs(tmp_path):
    names = {
        "TrainingSet1-LiveQAMed.xml": 1370,
        "TrainingSet2-Alexa.xml": 1989,
        "ValidationSet.xml": 707,
        "TestSet-wLabels.xml": 2470,
    }
    paths = [str(REAL / f"MEDIQA2019-Task3-QA-{name}.gz") for name in names]
    output = tmp_path / "pairs.jsonl"
    command = [sys.executable, ROOT / "tools/prepare_preferences.py", "mediqa2019", *paths]
    done = subprocess.run(
        [*command, "--output", output], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["pairs"]
    assert counts == dict(zip(paths, names.values(), strict=True))
    assert len(read_pairs(output)) == sum(names.values())
