from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from timesformer.model.cpu_attention import attend_short, is_short


def definition(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)


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


def _large() -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 200, 512).bfloat16()
    return q, k, v


def test_gradients_are_taken_twice() -> None:
    q, k, v = (x.requires_grad_() for x in _large())
    exact = tuple(x.detach().double().requires_grad_() for x in (q, k, v))
    weights = torch.randn(2, 200, 512)

    def second(attention: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        out = attention(*inputs, 4)
        first = torch.autograd.grad((out.double() * weights).sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum((each.double() ** 2).sum() for each in first), inputs)

    for found, expected in zip(second(attend_short, (q, k, v)), second(definition, exact), strict=True):
        assert (found - expected).norm() < 0.05 * expected.norm()


def test_transforms_of_functions_agree_with_the_definition() -> None:
    q, k, v = _large()
    exact = tuple(x.double() for x in (q, k, v))

    def close(found: Tensor, expected: Tensor) -> bool:
        return bool((found - expected).norm() < 0.02 * expected.norm())

    gradient = torch.func.grad(lambda x: (attend_short(x, k, v, 4).float() ** 2).sum())(q)
    assert close(gradient, torch.func.grad(lambda x: (definition(x, *exact[1:], 4) ** 2).sum())(exact[0]))
    several = torch.stack([q, -q])
    mapped = torch.func.vmap(lambda x: attend_short(x, k, v, 4))(several)
    assert close(mapped, torch.stack([definition(x, *exact[1:], 4) for x in several.double()]))
    direction = torch.randn_like(v)
    out, tangent = torch.func.jvp(lambda x: attend_short(q, k, x, 4), (v,), (direction,))
    assert close(out, definition(*exact, 4))
    assert close(tangent, definition(*exact[:2], direction.double(), 4)), "linear in the values"
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(v, direction)
        tangent = torch.autograd.forward_ad.unpack_dual(attend_short(q, k, dual, 4)).tangent
    assert close(tangent, definition(*exact[:2], direction.double(), 4))
