import dataclasses

from megatron_biollm.data.epoch_index import EpochKey

KEY = EpochKey("digest", 0, 5, seq_length=8, seed=1, epoch=0)


def test_folders_of_earlier_versions_keep_their_names():
    assert KEY.name == "epoch0000-69047d2823f6fc914d016e70"


def test_epochs_have_seeds_of_their_own_and_the_first_has_the_runs():
    seeds = [dataclasses.replace(KEY, epoch=epoch).random_seed() for epoch in range(50)]
    assert seeds[0] == KEY.seed and len(set(seeds)) == 50
