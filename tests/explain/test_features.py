"""Features in one file, part by part; maps and neighbours."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import timesformer
from timesformer.cli import main
from timesformer.evaluation import features as module
from timesformer.evaluation.features import Features, embed, video_features
from timesformer.evaluation.views import load_views
from timesformer.explain.tsne import thumbnail, write_map
from timesformer.video.datasets import read_videos
from timesformer.video.items import VideoItem, VideoList
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_dataset
from timesformer.video.transforms import normalize

PREPROCESSING = Preprocessing(num_frames=4, stride=2, sampling="clip", image_size=32)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    folder = tmp_path_factory.mktemp("data") / "appearance"
    write_dataset(folder, "appearance", train=0, val=0, test=16, size=32, num_frames=12)
    return read_videos(folder, "test")


@pytest.fixture(scope="module")
def model() -> timesformer.TimeSformer:
    torch.manual_seed(0)
    return timesformer.create_model(
        num_classes=8, num_frames=4, image_size=32, patch_size=16, embed_dim=24, depth=2, num_heads=3
    ).eval()


def test_features_are_the_models(videos: VideoList, model: timesformer.TimeSformer) -> None:
    found, bad = video_features(model, videos, PREPROCESSING, clips=2, workers=0)
    assert bad == []
    assert found.values.shape == (16, 24)
    views = torch.stack([normalize(view) for view in load_views(videos.items[3].path, PREPROCESSING, 2)])
    with torch.no_grad():
        expected = model.features(views).mean(0).numpy()
    np.testing.assert_allclose(found.values[3], expected, atol=1e-6)
    assert found.labels.tolist() == [item.labels[0] for item in videos.items]


def test_a_job_that_was_cut_off_goes_on(
    videos: VideoList, model: timesformer.TimeSformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART", 5)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    some = replace(videos, items=(*videos.items[:7], VideoItem(tmp_path / "broken.mp4", (0,)), *videos.items[7:]))
    file, seen = tmp_path / "features.safetensors", 0

    def stop() -> None:
        nonlocal seen
        seen += 1
        if seen == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(model, some, PREPROCESSING, file, workers=0, on_video=stop)
    assert not file.exists()
    done = sorted((tmp_path / "features.safetensors.parts").glob("*.safetensors"))
    assert len(done) == 2
    times = [path.stat().st_mtime_ns for path in done]
    with pytest.raises(ValueError, match="holds parts for other videos or views"):
        embed(model, some, PREPROCESSING, file, clips=2, workers=0)
    other = copy.deepcopy(model)
    torch.nn.init.normal_(next(other.parameters()))
    with pytest.raises(ValueError, match="by another model"):
        embed(other, some, PREPROCESSING, file, workers=0)
    assert [path.stat().st_mtime_ns for path in done] == times
    found, bad = embed(model, some, PREPROCESSING, file, workers=0)
    assert [Path(video.path).name for video in bad] == ["broken.mp4"]
    assert "broken.mp4" in (tmp_path / "features.safetensors.bad.txt").read_text()
    assert not (tmp_path / "features.safetensors.parts").exists()
    again = Features.load(file)
    np.testing.assert_array_equal(again.values, found.values)
    assert again.paths == tuple(str(item.path) for item in videos.items)
    assert again.classes == videos.classes
    whole, _ = video_features(model, videos, PREPROCESSING, workers=0)
    np.testing.assert_allclose(again.values, whole.values, atol=1e-6)


def test_neighbours() -> None:
    values = np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0]], np.float32)
    features = Features(values, tuple("abcd"), np.array([0, 0, 1, -1]), ("x", "y"))
    found = features.nearest(0, 2)
    assert [index for index, _ in found] == [1, 2]
    assert found[0][1] == pytest.approx(0.9 / np.hypot(0.9, 0.1))


def test_commands(
    videos: VideoList, model: timesformer.TimeSformer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.preprocessing = PREPROCESSING.to_dict()
    model.save_pretrained(tmp_path / "model")
    file = tmp_path / "features.safetensors"
    assert main(["embed", str(tmp_path / "model"), str(videos.source), "--out", str(file), "--workers", "1"]) == 0
    for name in ("map.png", "map.svg", "map.html"):
        assert main(["map", str(file), "--out", str(tmp_path / name)]) == 0
    assert Image.open(tmp_path / "map.png").width > 500
    page = (tmp_path / "map.html").read_text()
    points = json.loads(re.search(r"const points = (\[.*\]);", page).group(1))  # type: ignore[union-attr]
    assert len(points) == 16
    assert all(point["picture"].startswith("data:image/jpeg;base64,") for point in points)
    assert not re.search(r"(src|href)=\"http|@import|url\(", page), "nothing from elsewhere"
    capsys.readouterr()
    assert main(["map", str(file), "--near", str(videos.items[0].path), "--top", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["map", str(file)]) == 1
    assert main(["map", str(file), "--near", "nowhere.mp4"]) == 1
    assert main(["map", str(tmp_path / "model" / "config.json"), "--out", str(tmp_path / "x.png")]) == 1
    assert main(["map", str(file), "--out", str(tmp_path / "x.txt")]) == 1
    assert "nowhere.mp4: not one of the 16 videos" in " ".join(capsys.readouterr().err.split())


def test_videos_without_labels(
    videos: VideoList, model: timesformer.TimeSformer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, item in enumerate(videos.items[:4]):
        (flat / f"<b>TITLE{number}.mp4").write_bytes(item.path.read_bytes())
    (flat / "notes.txt").write_text("stray")
    model.preprocessing = PREPROCESSING.to_dict()
    model.save_pretrained(tmp_path / "model")
    file = tmp_path / "features.safetensors"
    assert main(["embed", str(tmp_path / "model"), str(flat), "--out", str(file), "--workers", "1"]) == 0
    features = Features.load(file)
    assert features.labels.tolist() == [-1] * 4
    write_map(features, tmp_path / "map.html")
    data = (tmp_path / "map.html").read_text().split("const points")[1].split("</script>")[0]
    assert "<b>" not in data
    assert "b>TITLE0.mp4" in data, "only the page's own places are filled"
    with pytest.raises(ValueError, match="2 videos: a map takes 3 or more"):
        write_map(Features(features.values[:2], features.paths[:2], features.labels[:2], ()), tmp_path / "map.png")
    assert thumbnail(tmp_path / "gone.mp4") == ""


def test_a_map_of_equal_videos(tmp_path: Path) -> None:
    same = Features(np.ones((5, 8), np.float32), tuple("abcde"), np.full(5, -1), ())
    write_map(same, tmp_path / "map.png")
    assert (tmp_path / "map.png").exists()
