import json

import pytest
import torch

from megatron_biollm.tokenizer.extend import Extension, load_extension, mean_of_subtokens


def test_new_rows_are_the_mean_of_what_spelt_them():
    weight = torch.arange(12.0, dtype=torch.bfloat16).reshape(4, 3)
    rows = mean_of_subtokens(weight, [[0, 2], [3]])
    assert rows.dtype == torch.bfloat16
    assert rows.tolist() == [[3.0, 4.0, 5.0], [9.0, 10.0, 11.0]]
    assert mean_of_subtokens(weight, []).shape == (0, 3)


def test_means_are_taken_in_float32():
    weight = torch.full((300, 1), 1.0078125, dtype=torch.bfloat16)
    assert mean_of_subtokens(weight, [list(range(300))]).item() == pytest.approx(1.0078125)


def test_an_extension_is_read_back(tmp_path):
    (tmp_path / "extension.json").write_text(
        json.dumps({"base_sha256": "0", "base_vocab_size": 3, "sub_ids": [[1, 2]]})
    )
    assert load_extension(tmp_path) == Extension("0", 3, [[1, 2]])
    assert load_extension(tmp_path / "none") is None
