"""Each kernel of a GPU against plain torch. What can run on the CPU is tried there as well."""

import pytest
import torch
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from megatron_biollm.device import cuda, cuda_kernels
from megatron_biollm.device.vocab_loss import vocab_cross_entropy
from megatron_biollm.model.spec import RMSNorm, SDPAttention

GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
    ],
)
ON_BOTH = pytest.mark.parametrize("device", ["cpu", GPU])
ON_GPU = pytest.mark.parametrize("device", [GPU])
HEADS, GROUPS, WIDTH = 8, 2, 64


def attention(device):
    config = TransformerConfig(
        num_layers=1, hidden_size=HEADS * WIDTH, num_attention_heads=HEADS,
        num_query_groups=GROUPS, use_cpu_initialization=True,
    )  # fmt: skip
    return SDPAttention(config, 1, AttnMaskType.causal, "self").to(device).train()


def heads(device, *shape, seed=0):
    """Query, key and value of the shape, bf16, cut out of one product as core cuts them."""
    random = torch.Generator().manual_seed(seed)
    widths = [HEADS, GROUPS, GROUPS]
    mixed = torch.randn(*shape, sum(widths), WIDTH, generator=random)
    mixed = mixed.to(device, torch.bfloat16).requires_grad_()
    return mixed, mixed.split(widths, dim=-2)


def gradient(result, leaf):
    weight = torch.linspace(-1, 1, result.numel(), device=result.device).view_as(result)
    return torch.autograd.grad((result.float() * weight).sum(), leaf)[0]


def assert_near(ours, theirs):
    """Within the rounding of bf16, by the size of the whole tensor."""
    difference = (ours.float() - theirs.float()).norm() / theirs.float().norm()
    assert difference < 1e-2


@ON_BOTH
@pytest.mark.parametrize("lengths", [[96], [40, 56], [1, 1, 30, 64]])
def test_packed_documents_are_what_they_are_alone(device, lengths):
    boundaries = torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)
    mixed, parts = heads(device, sum(lengths))
    packed = PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=boundaries, cu_seqlens_kv=boundaries,
        max_seqlen_q=max(lengths), max_seqlen_kv=max(lengths),
    )  # fmt: skip
    module = attention(device)
    together = module(*parts, None, packed_seq_params=packed)
    alone = [
        module(*(x[:, None] for x in document), None)[:, 0]
        for document in zip(*(x.split(lengths) for x in parts), strict=True)
    ]
    assert_near(together, torch.cat(alone))
    assert_near(gradient(together, mixed), gradient(torch.cat(alone), mixed))


@ON_GPU
def test_packed_documents_go_through_one_flash_kernel(device):
    attend = cuda_kernels.packed_attention()
    assert attend is not None, "torch.nn.attention.varlen, in torch from 2.11 on"
    _, (query, _, _) = heads(device, 4)
    assert cuda_kernels.fits_flash(query)


@ON_BOTH
def test_attention_in_training_is_that_of_plain_arithmetic(device):
    mixed, parts = heads(device, 128, 2)
    module = attention(device)
    ours = module(*parts, None)
    with sdpa_kernel(SDPBackend.MATH):
        plain = module.eval()(*parts, None)
    assert_near(ours, plain)
    assert_near(gradient(ours, mixed), gradient(plain, mixed))


@ON_GPU
def test_the_loss_holds_no_logits_in_fp32(device):
    tokens, vocabulary = 8192, 34_816
    logits = torch.randn(tokens, vocabulary, device=device, dtype=torch.bfloat16)
    target = torch.randint(vocabulary, (tokens,), device=device)
    made = logits.requires_grad_() * 1
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kernel = next(k for k in cuda.cuda_kernels() if k.job == "loss")
    ((_, _, loss),) = kernel.patches
    torch.autograd.grad(loss(made, target, None).sum(), made)
    assert torch.cuda.max_memory_allocated() - before < 0.25 * made.nbytes


@ON_BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_and_its_gradient_are_those_of_torch(device, dtype):
    random = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(300, 1000, generator=random)).to(device, dtype)
    target = torch.randint(1000, (300,), generator=random).to(device)
    weight = torch.rand(300, generator=random).to(device)
    results = []
    for function in (
        vocab_cross_entropy,
        lambda x, y: functional.cross_entropy(x.float(), y, reduction="none"),
    ):
        leaf = logits.clone().requires_grad_()
        loss = function(leaf * 1, target)
        results.append((loss, torch.autograd.grad((loss * weight).sum(), leaf)[0]))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@ON_GPU
def test_weight_gradients_add_up_in_fp32_in_one_product(device):
    start = torch.randn(96, 64, device=device)
    inputs = torch.randn(200, 64, device=device, dtype=torch.bfloat16)
    grads = torch.randn(200, 96, device=device, dtype=torch.bfloat16)
    main_grad = start.clone()
    cuda_kernels.accumulate_mixed(inputs, grads, main_grad)
    exact = start.double() + grads.double().t() @ inputs.double()
    # What no rounding to bf16 could reach.
    torch.testing.assert_close(main_grad.double(), exact, rtol=1e-4, atol=1e-3)


@ON_GPU
def test_the_norm_is_one_kernel(device):
    config = TransformerConfig(
        num_layers=1, hidden_size=64, num_attention_heads=2, use_cpu_initialization=True,
        params_dtype=torch.bfloat16, bf16=True,
    )  # fmt: skip
    norm = RMSNorm(config, 64).to(device)
    x = torch.randn(8, 64, device=device, dtype=torch.bfloat16)
    norm(x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        norm(x)
        torch.cuda.synchronize()
    kernels = [event for event in profile.events() if event.device_type.name == "CUDA"]
    assert len(kernels) == 1, [event.name for event in kernels]
