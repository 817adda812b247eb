from __future__ import annotations

import torch

import timesformer
from timesformer.model.attention import SCHEMES
from timesformer.model.initialization import init_for_scratch


def test_every_place_and_frame_has_a_position_of_its_own() -> None:
    torch.manual_seed(0)
    for attention in SCHEMES:
        model = timesformer.create_model("timesformer_tiny", attention=attention, image_size=(96, 64), depth=1)
        init_for_scratch(model)
        positions = [model.pos_embed[0, 1:]] + ([] if model.time_embed is None else [model.time_embed[0]])
        for table in positions:
            assert 0.2 < table.abs().mean() < 0.5
            apart = torch.cdist(table, table) + 99 * torch.eye(len(table))
            assert apart.min() > 0.5
        rows = model.pos_embed[0, 1:].reshape(6, 4, 192)
        assert torch.equal(rows[:, 0, :96], rows[:, 3, :96]), "the first half tells the row alone"


def test_signals_keep_their_size_and_time_matters_from_the_start() -> None:
    torch.manual_seed(0)
    model = timesformer.create_model("timesformer_tiny", embed_dim=48, num_heads=3, depth=4, num_classes=5).eval()
    init_for_scratch(model)
    for block in model.blocks:
        x = torch.randn(200, 48)
        for layer in (block.attn.qkv, block.temporal_attn.proj, block.temporal_fc):
            assert 0.6 < layer(x).std() / x.std() < 1.5
    clip = torch.randn(1, 3, 8, 224, 224)
    features = model.features(clip)
    assert (features - model.features(clip.flip(2))).abs().max() > 1e-2
