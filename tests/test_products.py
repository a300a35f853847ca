"""Linear layers by either library: the same numbers, float32 exact, nothing left switched."""

import pytest
import torch
from torch.nn import functional as F

from pipeline import products


@pytest.fixture
def asked(monkeypatch):
    """`linear` takes oneDNN, whatever this CPU is."""
    monkeypatch.setattr(products, "wide", lambda: True)


def layer(dtype=torch.float32, rows=(3, 5)):
    generator = torch.Generator().manual_seed(0)
    shapes = (*rows, 64), (48, 64), (48,)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("rows", [(7,), (3, 5)])
def test_values_and_gradients_are_those_of_float64(asked, rows):
    tensors = layer(rows=rows)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    upstream = torch.randn(*rows, 48, generator=torch.Generator().manual_seed(1))
    ours, reference = products.linear(*tensors), F.linear(*exact)
    if not oneDNN_is_exact():
        pytest.skip("oneDNN computes in bfloat16 on this CPU: linear does not take it here")
    torch.testing.assert_close(ours.double(), reference, rtol=1e-5, atol=1e-4)
    gradients = torch.autograd.grad(ours, tensors, upstream)
    for found, wanted in zip(
        gradients, torch.autograd.grad(reference, exact, upstream.double()), strict=True
    ):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-4)


def oneDNN_is_exact():
    a = torch.randn(64, 64, generator=torch.Generator().manual_seed(2))
    with products._onednn():
        return bool((a @ a - a.double() @ a.double()).norm() < 1e-5 * (a @ a).norm())


def test_first_layer_needs_no_gradient_of_its_inputs(asked):
    inputs, weight, bias = layer()
    products.linear(inputs.detach(), weight, bias).sum().backward()
    assert weight.grad.shape == weight.shape and bias.grad.shape == bias.shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_go_the_plain_way(asked, monkeypatch, dtype):
    monkeypatch.setattr(products._Linear, "apply", None)
    tensors = layer(dtype)
    assert torch.equal(products.linear(*tensors), F.linear(*tensors))


def test_autocast_decides_for_itself(asked):
    with torch.autocast("cpu", torch.bfloat16):
        assert products.linear(*layer()).dtype is torch.bfloat16


def test_the_switch_is_put_back(asked):
    before = torch.get_float32_matmul_precision()
    products.linear(*layer()).sum().backward()
    assert torch.get_float32_matmul_precision() == before
    with pytest.raises(ZeroDivisionError), products._onednn():
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(
    ("capability", "amd", "exact", "wide"),
    [
        ("AVX512", True, 1.0, True),
        ("AVX512", True, 0.0, False),  # what comes out is not float32
        ("AVX512", False, 1.0, False),
        ("AVX2", True, 1.0, False),
    ],
)
def test_only_where_it_is_known_to_be_faster_and_found_exact(
    monkeypatch, capability, amd, exact, wide
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(products, "_made_by_amd", lambda: amd)
    monkeypatch.setattr(products, "EXACT", exact)
    products.wide.cache_clear()
    try:
        assert products.wide() is wide
    finally:
        products.wide.cache_clear()
