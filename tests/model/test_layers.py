from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from timesformer.model.layers import Linear, in_one, is_plain


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


@pytest.mark.parametrize("rows", [5, 2048])
def test_two_layers_in_one(rows: int) -> None:
    torch.manual_seed(0)
    first, second = Linear(64, 96), nn.Linear(96, 32)
    x = torch.randn(rows, 64, requires_grad=True)
    parameters = [x, *first.parameters(), *second.parameters()]
    expected, out = second(first(x)), in_one(first, second, x)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(out)
    for mine, its in zip(
        torch.autograd.grad(out, parameters, weights), torch.autograd.grad(expected, parameters, weights), strict=True
    ):
        torch.testing.assert_close(mine, its, atol=5e-4, rtol=1e-4)


def test_what_is_more_than_a_linear_layer_is_not_plain() -> None:
    assert is_plain(Linear(4, 4))
    assert is_plain(nn.Linear(4, 4))
    assert not is_plain(nn.Identity())
    assert not is_plain(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    watched = Linear(4, 4)
    hook = watched.register_forward_hook(lambda *_: None)
    assert not is_plain(watched)
    hook.remove()
    assert is_plain(watched)


@pytest.mark.parametrize("behind", [False, True])
def test_autocast_is_pytorchs_up_to_rounding(behind: bool) -> None:
    torch.manual_seed(0)
    first, second = Linear(64, 96), nn.Linear(96, 32)
    x = torch.randn(2048, 64, requires_grad=True)
    parameters = [x, *first.parameters(), *(second.parameters() if behind else ())]
    exact = F.linear(x, first.weight, first.bias)
    exact = second(exact) if behind else exact
    weights = torch.randn_like(exact)
    with torch.autocast("cpu", torch.bfloat16):
        out = in_one(first, second, x) if behind else first(x)
    assert out.dtype == torch.bfloat16
    for mine, its in zip(
        (out.float(), *torch.autograd.grad(out, parameters, weights.bfloat16())),
        (exact, *torch.autograd.grad(exact, parameters, weights)),
        strict=True,
    ):
        assert mine.dtype == torch.float32
        assert (mine - its).norm() < 0.01 * its.norm()
