import json

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.finetune.token_cache import COUNTS, ensure_tokens
from tests.finetune.sft_files import Numbers, chat, chats_of_lengths, write_chats


@pytest.fixture
def file(tmp_path):
    return write_chats(tmp_path / "chats.jsonl", chats_of_lengths(17, 9, 40, 23))


def test_ids_and_mask_of_every_conversation_that_fits(file):
    cache = ensure_tokens(file, Numbers(), "tokenizer", 32)
    assert cache.lengths.tolist() == [17, 9, 23]
    assert cache.lines.tolist() == [1, 2, 4]
    ids, mask = cache[1]
    assert ids.tolist() == [1, 13, 14, 15, 16, 14, 14, 14, 14, 2]
    assert mask.tolist() == [0] * 5 + [1] * 5


def test_what_is_too_long_is_left_out_whole_and_counted(file):
    cache = ensure_tokens(file, Numbers(), "tokenizer", 32)
    counts = json.loads((cache.path / COUNTS).read_text())
    assert (counts["conversations"], counts["kept"], counts["too_long"]) == (4, 3, 1)
    assert (counts["tokens"], counts["longest"]) == (17 + 9 + 23, 41)
    assert counts["learnt_tokens"] == sum(int(cache[i][1][1:].sum()) for i in range(3))


def test_the_ids_are_made_once(file):
    template = Numbers()
    first, second = (ensure_tokens(file, template, "tokenizer", 32) for _ in range(2))
    assert template.calls == 4 and first.path == second.path
    assert np.array_equal(first.tokens, second.tokens)


def test_another_file_tokenizer_template_or_length_has_ids_of_its_own(file, tmp_path):
    other = write_chats(tmp_path / "other.jsonl", chats_of_lengths(17, 9, 22))
    keys = [
        (file, Numbers(), "tokenizer", 32),
        (other, Numbers(), "tokenizer", 32),
        (file, Numbers("another"), "tokenizer", 32),
        (file, Numbers(), "another", 32),
        (file, Numbers(), "tokenizer", 64),
    ]
    folders = {ensure_tokens(*key, str(tmp_path / "cache")).path for key in keys}
    assert len(folders) == len(keys)


def test_nothing_is_left_of_a_file_that_is_refused(tmp_path):
    file = write_chats(tmp_path / "bad.jsonl", [*chats_of_lengths(9), chat([5], [0])])
    with pytest.raises(UserError, match=r"bad.jsonl:2: 0 is no number"):
        ensure_tokens(file, Numbers(), "tokenizer", 32, str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").iterdir())


def test_a_file_of_which_nothing_fits_is_refused(file):
    with pytest.raises(UserError, match=r"none of the 4 conversations .* longest has 41"):
        ensure_tokens(file, Numbers(), "tokenizer", 8)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"bad.jsonl:2 is not JSON"),
        ('{"text": "x"}', r'bad.jsonl:2 has no "messages"'),
        ('{"messages": [{"role": "user", "content": "5"}]}', r"bad.jsonl:2: .*role assistant"),
        ('{"messages": [{"role": "doctor", "content": "5"}]}', r"bad.jsonl:2: .*'doctor'"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{json.dumps(chats_of_lengths(9)[0])}\n{line}\n")
    with pytest.raises(UserError, match=message):
        ensure_tokens(str(path), Numbers(), "tokenizer", 32)
