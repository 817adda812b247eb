"""Every scheme against its definition: one dense mask over all tokens of the clip."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import pytest
import torch
from einops import rearrange
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import timesformer
from tests.model.test_timesformer import make
from timesformer.model import attention
from timesformer.model.attention import SCHEMES, Grid, Lookup, Neighbourhood, attend

STEPS: dict[str, Neighbourhood] = {step.name: step for steps in SCHEMES.values() for step in steps}
Place = tuple[int, int, int]


def window_start(i: int, n: int) -> int:
    size = math.ceil(n / 2)
    return min(max(i - size // 2, 0), n - size)


def in_window(i: int, j: int, n: int) -> bool:
    return window_start(i, n) <= j < window_start(i, n) + math.ceil(n / 2)


def attends(step: str, query: Place, key: Place, grid: Grid) -> bool:
    """Whether a patch attends to another, word by word as the paper has it."""
    (t, h, w), (t2, h2, w2) = query, key
    if step == "joint":
        return True
    if step == "spatial":
        return t == t2
    if step == "temporal":
        return (h, w) == (h2, w2)
    if step == "width":
        return (t, h) == (t2, h2)
    if step == "height":
        return (t, w) == (t2, w2)
    if step == "local":
        return in_window(h, h2, grid["h"]) and in_window(w, w2, grid["w"])
    assert step == "global"
    return (t - t2) % 2 == (h - h2) % 2 == (w - w2) % 2 == 0


def dense_mask(step: str, grid: Grid) -> Tensor:
    """Which token attends to which (n, n), under the rule `equations`: CLS first, to and from which all is open."""
    patches = list(itertools.product(range(grid["t"]), range(grid["h"]), range(grid["w"])))
    mask = torch.ones(1 + len(patches), 1 + len(patches), dtype=torch.bool)
    for i, query in enumerate(patches):
        for j, key in enumerate(patches):
            mask[1 + i, 1 + j] = attends(step, query, key, grid)
    return mask


def masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, num_heads: int) -> Tensor:
    q, k, v = (rearrange(x, "b n (head d) -> b head n d", head=num_heads) for x in (q, k, v))
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~mask, -math.inf)
    return rearrange(scores.softmax(-1) @ v, "b head n d -> b n (head d)")


def assert_equals_definition(step: str, grid: Grid, neighbourhood: Neighbourhood | None = None) -> None:
    """Outputs and gradients of a step's fast path, in double precision."""
    tokens = 1 + grid["t"] * grid["h"] * grid["w"]
    generator = torch.Generator().manual_seed(tokens)
    q, k, v, upstream = torch.randn(4, 2, tokens, 8, dtype=torch.float64, generator=generator)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    out = (neighbourhood or STEPS[step]).attend(q[:, 1:], k, v, partial(attend, num_heads=2), grid)
    expected = masked_attention(q, k, v, dense_mask(step, grid), 2)[:, 1:]
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)
    gradients = torch.autograd.grad(out, inputs, upstream[:, 1:])
    for gradient, reference in zip(gradients, torch.autograd.grad(expected, inputs, upstream[:, 1:]), strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-12, rtol=0)


@pytest.mark.parametrize("step", STEPS)
@given(t=st.integers(1, 5), h=st.integers(1, 7), w=st.integers(1, 7))
@example(t=1, h=1, w=1)
@example(t=2, h=4, w=6)
@example(t=3, h=5, w=7)
@example(t=1, h=7, w=2)
@settings(deadline=None, max_examples=25)
def test_each_step_is_its_definition(step: str, t: int, h: int, w: int) -> None:
    assert_equals_definition(step, Grid(t=t, h=h, w=w))


@pytest.mark.parametrize("step", ["local", "global"])
@pytest.mark.parametrize("grid", [Grid(t=2, h=4, w=6), Grid(t=3, h=5, w=3)])
def test_one_patch_too_many_or_another_is_noticed(step: str, grid: Grid) -> None:
    table = STEPS[step].table  # type: ignore[attr-defined]
    batches = table(grid["t"], grid["h"], grid["w"], torch.device("cpu"))
    for number, (queries, keys) in enumerate(batches):
        other = keys.clone()
        other[-1, -1] = next(token for token in range(1, 99) if token not in keys[-1])
        changed = [*batches[:number], (queries, other), *batches[number + 1 :]]
        with pytest.raises(AssertionError):
            assert_equals_definition(step, grid, Lookup(step, lambda *_, changed=changed: changed))


@pytest.mark.parametrize("step", ["local", "global"])
@pytest.mark.parametrize("cached", [1, 500, 3000])
def test_groups_can_be_taken_a_few_at_a_time(step: str, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By however few elements; and as many groups go together as these elements hold keys."""
    grid = Grid(t=2, h=4, w=6)
    monkeypatch.setattr(attention, "_CACHED", cached)
    assert_equals_definition(step, grid)
    table = STEPS[step].table(**grid, device=torch.device("cpu"))  # type: ignore[attr-defined]
    taken: list[tuple[int, int]] = []

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        taken.append((k.shape[0], k.shape[1]))
        return q

    x = torch.randn(2, 1 + 48, 8)
    out = STEPS[step].attend(x[:, 1:], x, x, mix, grid)
    assert torch.equal(out, x[:, 1:]), "every query comes back to its place"
    expected = []
    for queries, keys in table:
        groups, left = max(1, cached // (2 * keys.shape[1] * 8)), len(queries)
        while left:
            expected.append((2 * min(groups, left), keys.shape[1]))
            left -= min(groups, left)
    assert taken == expected


def test_a_window_of_another_size_or_place_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(t=2, h=5, w=6)
    for name, changed in (
        ("window", lambda n: n // 2 + 1),
        ("shared_windows", lambda n: [(range(2), range(1)), (range(2, n), range(1, 2))]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(attention, name, changed)
            attention.window_table.cache_clear()
            with pytest.raises((AssertionError, RuntimeError)):
                assert_equals_definition("local", grid)
        attention.window_table.cache_clear()
    assert_equals_definition("local", grid)


@given(n=st.integers(1, 60))
def test_runs_of_windows_cover_an_axis_once(n: int) -> None:
    starts: list[int] = []
    for patches, tops in attention.shared_windows(n):
        assert len(patches) % len(tops) == 0
        assert list(patches) == list(range(len(starts), len(starts) + len(patches)))
        starts += [top for top in tops for _ in range(len(patches) // len(tops))]
    assert starts == [window_start(i, n) for i in range(n)]


def test_every_patch_of_the_base_model_has_the_same_number_of_keys() -> None:
    for table, keys in ((attention.window_table, 1 + 8 * 49), (attention.stride_table, 1 + 4 * 49)):
        for queries, tokens in table(8, 14, 14, torch.device("cpu")):
            assert tokens.shape[1] == keys
            assert queries.shape[0] == tokens.shape[0]
    assert len(attention.stride_table(8, 14, 14, torch.device("cpu"))) == 1, "eight groups in one batch"


def naive_tokens(model: timesformer.TimeSformer, clip: Tensor) -> Tensor:
    """All blocks of a model on one clip by dense masks over all tokens, under the rule `equations`."""
    tokens, grid = model.embed(clip)
    masks = {name: dense_mask(step.name, grid) for name, step in model.config.steps}
    x = tokens[0]
    for block in model.blocks:
        updates = torch.zeros_like(x)
        for prefix, _ in model.config.steps:
            source = x if model.config.order == "parallel" else x + updates
            attn = block.get_submodule(f"{prefix}attn")
            q, k, v = attn.qkv(block.get_submodule(f"{prefix}norm1")(source)).chunk(3, dim=-1)
            out = attn.proj(masked_attention(q[None], k[None], v[None], masks[prefix], attn.num_heads)[0])
            updates = updates + (block.get_submodule(f"{prefix}fc")(out) if prefix else out)
        x = x + updates
        x = x + block.mlp(block.norm2(x))
    return x


MODELS: list[dict[str, Any]] = [
    {"attention": "sparse_local_global"},
    {"attention": "axial"},
    {"attention": "space_only", "cls_attention": "equations"},
    {"attention": "joint_space_time", "cls_attention": "equations"},
    *({"cls_attention": "equations", "order": order} for order in ("time_space", "space_time", "parallel")),
]


@pytest.mark.parametrize("options", MODELS, ids=lambda options: "-".join(options.values()))
@pytest.mark.parametrize(("frames", "height", "width"), [(4, 32, 32), (3, 24, 40), (1, 16, 8)])
def test_whole_models_are_their_definition(options: dict[str, Any], frames: int, height: int, width: int) -> None:
    model = make(**options).double()
    clip = torch.randn(2, 3, frames, height, width, dtype=torch.float64)
    expected = torch.stack([naive_tokens(model, one[None]) for one in clip])
    torch.testing.assert_close(model.tokens(clip), expected, atol=1e-10, rtol=0)
    upstream = torch.randn_like(expected)
    parameters = [p for name, p in model.named_parameters() if name.startswith(("blocks", "patch", "cls", "time"))]
    ours = torch.autograd.grad(model.tokens(clip), parameters, upstream)
    theirs = torch.autograd.grad(expected, parameters, upstream)
    for gradient, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("order", ["space_time", "parallel"])
def test_orders_under_the_released_rule(order: str) -> None:
    """The two steps of each block, put together by hand from the blocks of a model in the usual order."""
    model = make(order=order)
    clip = torch.randn(2, 3, 4, 32, 32)
    x, grid = model.embed(clip)
    for block in model.blocks:
        time = lambda x, block=block: block.update("temporal_", STEPS["temporal"], x, grid)  # noqa: E731
        space = lambda x, block=block: block.update("", STEPS["spatial"], x, grid)  # noqa: E731
        if order == "parallel":
            x = x + space(x) + time(x)
        else:
            x = x + space(x)
            x = x + time(x)
        x = x + block.mlp(block.norm2(x))
    torch.testing.assert_close(model.tokens(clip), x, atol=1e-5, rtol=1e-5)
    usual = make(order="time_space")
    assert (usual(clip) - model(clip)).abs().max() > 1e-4
    assert list(usual.state_dict()) == list(model.state_dict())


def test_bfloat16_runs_in_every_scheme() -> None:
    clip = torch.randn(1, 3, 4, 32, 32)
    for scheme in SCHEMES:
        model = make(attention=scheme)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(clip)
        assert torch.isfinite(logits).all()
        scale = model(clip).abs().max()
        assert (logits.float() - model(clip)).abs().max() < 0.1 * scale


def test_a_model_that_was_used_in_inference_can_be_trained() -> None:
    """Tables of indices are kept from the first use on."""
    model = make(attention="sparse_local_global")
    clip = torch.randn(1, 3, 3, 24, 40)
    attention.window_table.cache_clear()
    attention.stride_table.cache_clear()
    with torch.inference_mode():
        model(clip)
    model(clip).sum().backward()
    attention.window_table.cache_clear()
    with torch.device("meta"):
        STEPS["local"].comparisons(Grid(t=1, h=2, w=2))
