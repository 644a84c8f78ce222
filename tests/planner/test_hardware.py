"""The GPU table: complete, cited, and the user's to extend."""

import pytest
import yaml

from megatron_biollm.config import UserError
from megatron_biollm.planner.hardware import TABLE, Gpu, gpu_table, load_gpu

EVERY_GPU = sorted(gpu_table())
OWN = {"my-h100": {"like": "h100-80gb", "network_bandwidth": 100, "aliases": ["mine"]}}


def write(path, entries):
    path.write_text(yaml.safe_dump(entries))
    return path


@pytest.mark.parametrize("name", EVERY_GPU)
def test_every_entry_is_complete_and_cites_its_source(name):
    gpu = load_gpu(name)
    assert gpu.source.startswith("https://")
    assert gpu.sustained_flops() < gpu.peak_flops()
    assert gpu.memory_bytes < gpu.memory_gb * 2**30


@pytest.mark.parametrize("name", ["A100-40", "a100", "A800", "H100", "h200", "B200", "GH200"])
def test_every_family_has_its_short_name(name):
    assert load_gpu(name).name.startswith(name.lower().split("-")[0])


def test_no_name_or_alias_is_given_twice():
    names = [n for name, e in gpu_table().items() for n in (name, *e.get("aliases", ()))]
    assert len(names) == len(set(names))


def test_names_are_read_generously():
    assert load_gpu("H100_80GB ") == load_gpu("h100-80gb")


def test_fp8_products_are_faster_where_there_are_any():
    assert load_gpu("h100").sustained_flops("fp8") > load_gpu("h100").sustained_flops("bf16")
    with pytest.raises(UserError, match="has no FP8 tensor cores.*choose bf16"):
        load_gpu("a100").peak_flops("fp8")


def test_an_unknown_gpu_is_refused_with_the_names_known():
    with pytest.raises(UserError, match="gpu=v100 is not in the GPU table.*h100-80gb.*--gpu-table"):
        load_gpu("v100")


def test_a_table_of_ones_own_adds_a_gpu_like_another(tmp_path):
    gpu = load_gpu("mine", write(tmp_path / "own.yaml", OWN))
    assert (gpu.name, gpu.network_bandwidth, gpu.memory_gb) == ("my-h100", 100, 80)


def test_a_table_of_ones_own_replaces_a_shipped_entry(tmp_path):
    entry = yaml.safe_load(TABLE.read_text())["h100-80gb"] | {"network_bandwidth": 50}
    assert (
        load_gpu("h100", write(tmp_path / "own.yaml", {"H100-80GB": entry})).network_bandwidth == 50
    )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"x": {"like": "h100-80gb", "speed": 3}}, "unknown fields speed; choose from"),
        ({"x": {"memory_gb": 80}}, "GPU x lacks bf16_tflops, .*add them, or `like:`"),
        ({"x": {"like": "x"}}, "GPU x is like x, which is itself"),
        ({"x": {"like": "y"}}, "GPU x is like y, which is unknown"),
        ({"x": {"like": "h100-80gb", "memory_gb": -1}}, "memory_gb=-1 must be a number above 0"),
        ({"x": {"like": "h100-80gb", "power_watts": "700 W"}}, "power_watts=700 W must be"),
        (["x"], "no mapping from names to fields"),
        ({"x": 3}, "no mapping from names to fields"),
    ],
)
def test_a_wrong_table_is_refused_with_rule_and_remedy(tmp_path, entries, message):
    with pytest.raises(UserError, match=message):
        load_gpu("x", write(tmp_path / "own.yaml", entries))


def test_a_missing_or_broken_table_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml cannot be read"):
        load_gpu("h100", tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"broken\.yaml cannot be read"):
        load_gpu("h100", tmp_path / "broken.yaml")


def test_what_is_left_out_falls_back_to_the_share_of_the_h100():
    gpu = Gpu("x", 80, 1000, 1000, 400, 8, 400, 700)
    assert gpu.sustained_flops() == pytest.approx(803e12)


def test_rates_measured_at_another_power_limit_say_at_which(tmp_path):
    limited = {"x": {"like": "h100-80gb", "power_watts": 500}}
    gpu = load_gpu("x", write(tmp_path / "own.yaml", limited))
    assert (gpu.power_watts, gpu.sustained_at_watts) == (500, 700)
    assert load_gpu("h100").sustained_at_watts is None
