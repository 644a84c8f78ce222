import pytest
import torch

from megatron_biollm.device.runtime import select_device
from megatron_biollm.recipes.benchmarks.step_profile import by_kind, profile_step, profile_table


def test_the_largest_items_and_the_rest_make_up_the_whole():
    a = torch.ones(64, 64)
    found = profile_step(lambda: (a @ a).relu_().add_(1).mul_(2), select_device("cpu"), items=2)
    assert len(found["items"]) == 2
    assert found["items"][0]["seconds"] >= found["items"][1]["seconds"]
    listed = sum(item["seconds"] for item in found["items"])
    assert sum(found["kinds"].values()) == pytest.approx(found["busy_s"])
    assert listed + found["others_s"] == pytest.approx(found["busy_s"])
    text = profile_table("ours", found, step_s=2.0, least_s=0.5)
    assert "(25.0%)" in text
    assert text.count("\n| `") == 2


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_TNT", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "matrix products"),
        ("aten::mm", "matrix products"),
        ("mkldnn::_linear_pointwise", "matrix products"),
        ("aten::mul", "everything else"),
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "attention"),
        ("aten::_fused_adamw_", "optimizer"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "communication"),
        ("triton_poi_fused_mul_silu_3", "everything else"),
    ],
)
def test_items_are_told_apart_by_their_names(name, kind):
    assert by_kind([{"name": name, "seconds": 2.0}])[kind] == 2.0
