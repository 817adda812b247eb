from __future__ import annotations

import pytest
import torch
from torch import nn

from timesformer.model.layers import Linear


@pytest.mark.parametrize("shape", [(5, 400, 64), (2048, 64), (3, 1, 400, 64)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_pytorchs_forward_and_backward(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = Linear(64, 96, bias=bias), nn.Linear(64, 96, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    one, other = ours(x), theirs(y)
    weights = torch.randn_like(one)
    (one * weights).sum().backward()
    (other * weights).sum().backward()
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(x.grad, y.grad, atol=1e-5, rtol=1e-5)
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, atol=2e-4, rtol=1e-4)


def test_what_needs_no_gradient_gets_none() -> None:
    layer = Linear(64, 64)
    layer.weight.requires_grad_(False)
    x = torch.randn(2048, 64)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_pytorchs(dtype: torch.dtype) -> None:
    layer = Linear(64, 64).to(dtype)
    x = torch.randn(2048, 64, dtype=dtype)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(64, 64)(torch.randn(2048, 64)).dtype == torch.bfloat16
