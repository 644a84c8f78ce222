import pytest

from megatron_biollm.config import UserError, help_text, load_config
from megatron_biollm.data.config import DataConfig, parse_blend, parse_split


def test_weights_stay_exact_and_plain_prefixes_have_none():
    assert parse_blend(["0.7", "a", "0.3", "b"], "x") == (["a", "b"], ["0.7", "0.3"])
    assert parse_blend(["a", "b", "c"], "x") == (["a", "b", "c"], None)
    assert parse_blend(["a", "b"], "x") == (["a", "b"], None)
    assert parse_blend([], "x") == ([], None)


@pytest.mark.parametrize(
    ("blend", "said"),
    [
        (["0.7", "a", "b", "0.3"], "in turn"),
        (["0.7", "a", "0.3"], "in turn"),
        (["0", "a"], "weight 0"),
        (["-1", "a"], "weight -1"),
        (["nan", "a"], "weight nan"),
        (["a", "b", "a"], "names a more than once"),
    ],
)
def test_a_wrong_blend_is_named(blend, said):
    with pytest.raises(UserError, match=said):
        DataConfig(data_path=blend)


def test_a_split_is_normalised_and_filled_with_zeros():
    assert parse_split("969,30,1") == [0.969, 0.03, 0.001]
    assert parse_split("1") == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("split", ["", "1,2,3,4", "-1,2", "0,0,0", "a,b", "1 2"])
def test_a_wrong_split_is_named(split):
    with pytest.raises(UserError, match="data.split is"):
        DataConfig(split=split)


def test_two_ways_of_splitting_exclude_each_other():
    with pytest.raises(UserError, match="excludes"):
        DataConfig(data_path=["a"], train_data_path=["b"])
    with pytest.raises(UserError, match="without data.train_data_path"):
        DataConfig(valid_data_path=["b"])


def test_every_field_has_its_help_line():
    lines = help_text(DataConfig).splitlines()
    assert len(lines) == 11 and all(len(line.split()) > 5 for line in lines)


def test_a_yaml_blend_may_hold_numbers(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text("data_path: [0.7, a, 0.3, b]\n")
    config = load_config(DataConfig, path, ["num_workers=0"])
    assert config.data_path == ["0.7", "a", "0.3", "b"] and config.num_workers == 0
    assert config.prefixes() == ["a", "b"]
