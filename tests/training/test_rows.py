import torch

from megatron_biollm.training.rows import trimmed


def batch(*lengths):
    size = (len(lengths), 64)
    rows = {"tokens": torch.zeros(size), "loss_mask": torch.ones(size)}
    return rows | {"length": torch.tensor(lengths), "margin": torch.zeros(len(lengths))}


def test_columns_of_padding_go_and_the_rest_stays():
    (one, other), columns = trimmed([batch(3, 20), batch(40)], 64, 16, together=False)
    assert (one["tokens"].shape[1], one["loss_mask"].shape[1], columns) == (32, 32, 48)
    assert (other["tokens"].shape[1], one["margin"].shape) == (48, (2,))


def test_the_stages_of_a_pipeline_get_one_width():
    found, columns = trimmed([batch(3, 20), batch(40)], 64, 16, together=True)
    assert {one["tokens"].shape[1] for one in found} == {columns} == {48}


def test_full_rows_and_batches_without_lengths_stay():
    assert trimmed([batch(64)], 64, 48, together=True)[1] == 64
    bare = [{"tokens": torch.zeros(2, 64)}]
    assert trimmed(bare, 64, 16, together=False) == (bare, 64)
