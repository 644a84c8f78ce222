import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.finetune.preferences import read_pairs
from megatron_biollm.recipes.sample_preferences import Judged, read_prompts

USER = [{"role": "user", "content": "What is flu?"}]
ANSWER = [{"role": "assistant", "content": "A virus."}]


def written(folder, *rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_best_and_worst_are_a_pair_that_can_be_trained_on(tmp_path):
    judged = Judged(USER, ["A virus.", "An illness.", "A bird."], [2.0, 1.0, -1.0])
    (pair,) = read_pairs(written(tmp_path, judged.pair()))
    assert (pair.prompt, pair.chosen) == (USER, ANSWER)
    assert pair.rejected[0]["content"] == "A bird."
    assert judged.gap == 3.0
    assert judged.best()["messages"] == USER + ANSWER


def test_prompts_come_from_pairs_and_from_conversations(tmp_path):
    path = written(tmp_path, {"prompt": USER}, {"messages": USER + ANSWER})
    assert read_prompts(path) == [USER, USER]


@pytest.mark.parametrize("row", [{"text": "Flu?"}, {"messages": ANSWER}, {"prompt": "Flu?"}])
def test_a_line_without_a_prompt_is_told_with_its_number(tmp_path, row):
    with pytest.raises(UserError, match="rows.jsonl:2"):
        read_prompts(written(tmp_path, {"prompt": USER}, row))
