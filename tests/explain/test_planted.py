"""A model that was trained to read a cue attends to the cue: rollout's share of it, against its share of the clip."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import timesformer
from timesformer.explain.rollout import class_relevance, rollout
from timesformer.model.initialization import init_for_scratch

FRAMES, SIDE, PATCH = 8, 32, 8


def clips_with_a_cue(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (count, 3, F, H, W) with a patch striped in two frames; the stripes' direction; the patch."""
    clips = torch.randn(count, 3, FRAMES, SIDE, SIDE, generator=generator)
    labels = torch.randint(4, (count,), generator=generator)
    where = torch.zeros(count, FRAMES, SIDE // PATCH, SIDE // PATCH)
    y, x = torch.meshgrid(torch.arange(PATCH), torch.arange(PATCH), indexing="ij")
    directions = [y, x, x + y, x - y]
    for number, label in enumerate(labels.tolist()):
        frame = int(torch.randint(FRAMES - 1, (), generator=generator))
        row, column = torch.randint(SIDE // PATCH, (2,), generator=generator).tolist()
        stripes = 1.5 - 3.0 * (directions[label] // 2 % 2)
        place = (slice(frame, frame + 2), slice(PATCH * row, PATCH * row + PATCH))
        clips[number][:, place[0], place[1], PATCH * column : PATCH * column + PATCH] = stripes
        where[number, frame : frame + 2, row, column] = 1
    return clips, labels, where


def share_of(where: Tensor, shares: Tensor) -> float:
    return float(((shares * where).sum(dim=(1, 2, 3)) / shares.sum(dim=(1, 2, 3))).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    "attention", ["divided_space_time", "space_only", "joint_space_time", "sparse_local_global", "axial"]
)
def test_a_trained_model_attends_to_the_cue(attention: str) -> None:
    torch.manual_seed(0)
    model = timesformer.create_model(
        "timesformer_tiny", depth=3, embed_dim=64, num_heads=4, num_classes=4,
        image_size=SIDE, patch_size=PATCH, num_frames=FRAMES, attention=attention,
    )  # fmt: skip
    init_for_scratch(model)
    clips, labels, where = clips_with_a_cue(200, torch.Generator().manual_seed(2))
    area = float(where.mean())
    before = share_of(where, rollout(model.eval(), clips))

    optimizer, generator = torch.optim.AdamW(model.parameters(), lr=1e-3), torch.Generator().manual_seed(1)
    model.train()
    for _ in range(200):
        batch, classes, _ = clips_with_a_cue(32, generator)
        F.cross_entropy(model(batch), classes).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()

    with torch.no_grad():
        accuracy = float((model(clips).argmax(dim=1) == labels).float().mean())
    shares = rollout(model, clips)
    brightest = where.flatten(1).gather(1, shares.flatten(1).argmax(dim=1, keepdim=True)).mean()
    after, relevant = share_of(where, shares), share_of(where, class_relevance(model, clips, labels.tolist()))
    print(
        f"{attention}: accuracy {accuracy:.1%}; the cue is {area:.2%} of the clip, {before:.2%} of rollout "
        f"before training, {after:.1%} after, {relevant:.1%} of class relevance; "
        f"the brightest patch is on it in {brightest:.1%} of the clips"
    )
    assert accuracy > 0.99
    assert before < 2 * area
    assert after > 4 * area
    assert relevant > 4 * area
    assert brightest > 0.9
