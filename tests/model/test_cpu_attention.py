from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from timesformer.model.cpu_attention import attend_short, is_short


def definition(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("tokens", [3, 200])  # all groups at once, and one after the other
@pytest.mark.parametrize("queries", [1, 3])
def test_forward_and_backward_are_those_of_the_definition(tokens: int, queries: int) -> None:
    torch.manual_seed(0)
    together = torch.randn(2, tokens, 3 * 512).bfloat16().requires_grad_()
    exact = together.detach().double().requires_grad_()
    q, k, v = together.chunk(3, dim=-1)
    assert is_short(q, k)
    out, expected = attend_short(q[:, :queries], k, v, 4), definition(*exact.chunk(3, dim=-1), 4)[:, :queries]
    weights = torch.randn_like(out)
    (gradient,) = torch.autograd.grad(out, together, weights)
    (its,) = torch.autograd.grad(expected, exact, weights.double())
    assert out.dtype == gradient.dtype == torch.bfloat16
    assert (out - expected).norm() < 0.01 * expected.norm()
    assert (gradient - its).norm() < 0.01 * its.norm()


def test_what_needs_no_gradient_gets_none() -> None:
    q, k, v = torch.randn(3, 2, 200, 512).bfloat16()
    q.requires_grad_()
    attend_short(q, k, v, 4).sum().backward()
    assert q.grad is not None
    assert k.grad is v.grad is None
    assert not attend_short(q.detach(), k, v, 4).requires_grad


def test_what_is_not_short() -> None:
    q = torch.zeros(1, 2000, 8)
    assert not is_short(q, q)
    assert not is_short(q.bfloat16(), q.bfloat16())
    assert is_short(q.bfloat16(), q[:, :5].bfloat16())
