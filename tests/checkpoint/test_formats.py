"""Which checkpoints a layout can load, and what is said of the others."""

import json

from megatron_biollm.checkpoint.formats import (
    FAST,
    Buckets,
    Format,
    buckets_of_world,
    read_format,
    why_unfit,
)


def test_a_fast_checkpoint_fits_where_the_parameters_lie_in_the_same_buckets():
    here = Buckets("one", complete=True)
    assert here.format(reshardable=False) == Format(FAST, "one")
    assert here.format(reshardable=True) == Format()
    assert here.fit(Format(FAST, "one")) and not here.fit(Format(FAST, "other"))
    assert here.fit(Format())


def test_the_number_of_data_parallel_ranks_does_not_matter_and_the_model_parallel_groups_do():
    two = buckets_of_world([("0 ", "a", True), ("1 ", "b", True)])
    four = buckets_of_world([("0 ", "a", True), ("1 ", "b", True)] * 2)
    assert two == four
    assert buckets_of_world([("0 ", "b", True), ("1 ", "a", True)]).digest != two.digest


def test_without_a_part_of_every_bucket_or_a_distributed_optimizer_all_saves_are_reshardable():
    partly = buckets_of_world([("0 ", "a", True), ("0 ", "a", False)])
    plain = buckets_of_world([("", "a", True)])
    assert plain.digest is None
    assert [b.format(reshardable=False) for b in (partly, plain)] == [Format()] * 2


def test_checkpoints_from_before_there_were_two_formats_are_reshardable(tmp_path):
    (tmp_path / "state.json").write_text('{"step": 3}')
    assert read_format(tmp_path) == Format() and Format().name == "reshardable"
    (tmp_path / "state.json").write_text('{"format": "dp_reshardable", "buckets": "x"}')
    assert read_format(tmp_path) == Format(FAST, "x") and read_format(tmp_path).name == "fast"


def test_an_unfit_one_is_named_with_its_layout_and_the_remedy(tmp_path):
    layout = {"tensor_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": None}
    (tmp_path / "layout.json").write_text(json.dumps({**layout, "world_size": 4}))
    text = why_unfit(tmp_path)
    assert f"{tmp_path} is a fast checkpoint, saved as TP2 of 4 ranks" in text
    assert "training.exit_interval=1" in text
