"""Strips and films of what a model looks at, on real files."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import timesformer
from timesformer.baselines import create_baseline
from timesformer.cli import main
from timesformer.explain.explain import explain, write_explanation
from timesformer.explain.overlay import overlay
from timesformer.predictor import VideoClassifier
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.synthetic import write_video

CLASSES = ("run", "jump", "sit")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = timesformer.create_model(
        "timesformer_tiny", embed_dim=24, depth=2, num_heads=3, image_size=32, patch_size=8, num_frames=4, num_classes=3
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.classes = CLASSES
    model.preprocessing = Preprocessing(num_frames=4, stride=3, image_size=32).to_dict()
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "wide.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (20, 40, 64, 3), dtype=np.uint8)
    write_video(path, frames, fps=10)
    return path


def test_an_explanation_is_of_the_middle_clip(model: Path, video: Path) -> None:
    classifier = VideoClassifier.from_pretrained(model)
    found = explain(classifier, video)
    assert found.indices.tolist() == [4, 7, 10, 13]
    assert found.shares.shape == (4, 4, 4)
    assert found.shares.mean() == pytest.approx(1)
    assert found.by_frame.mean() == pytest.approx(1)
    assert found.scores == classifier.predict(video, top=3)
    of_class = explain(classifier, video, of="jump")
    assert of_class.method == "relevance for jump"
    assert np.abs(of_class.shares - found.shares).max() > 0.01
    with pytest.raises(ValueError, match="class 'fly' is not one of the model's: run, jump, sit"):
        explain(classifier, video, of="fly")
    with pytest.raises(ValueError, match="not that of i3d"):
        explain(VideoClassifier(create_baseline("i3d_r50", width=8, num_classes=3)), video)


def test_films_show_all_frames_of_the_clip(model: Path, video: Path, tmp_path: Path) -> None:
    found = explain(VideoClassifier.from_pretrained(model), video)
    write_explanation(found, tmp_path / "film.mp4")
    with av.open(str(tmp_path / "film.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 10
    assert len(frames) == 10
    assert frames[0].shape[1] == 320, "five times as large, so that the caption can be read"
    assert frames[0][:200, :40].mean() < 0.4 * frames[0][:200, 60:260].mean(), "what is not seen is dark"
    write_explanation(found, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 10
        assert film.width == 320


def test_the_command(model: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(model), str(video), "--out", str(tmp_path / "strip.png"), "--heads", "max"]) == 0
    assert "attention rollout: the brightest place weighs" in capsys.readouterr().out
    assert Image.open(tmp_path / "strip.png").width > 1000
    assert main(["explain", str(model), str(video), "--out", str(tmp_path / "strip.bmp")]) == 1
    assert "must end in .mp4, .gif, .png" in " ".join(capsys.readouterr().err.split())
    assert main(["explain", str(model), str(model / "config.json"), "--out", str(tmp_path / "x.png")]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["strip.png"]


def test_overlays_are_bright_where_shares_are_large() -> None:
    frames = torch.full((2, 32, 48, 3), 100, dtype=torch.uint8)
    shares = torch.zeros(2, 4, 4)
    shares[0, 0, 0], shares[1, 3, 3] = 1, 0.5
    picture = overlay(frames, shares, box=(0, 8, 32, 32)).astype(int)
    assert picture[0, 4, 12].sum() > picture[1, 28, 36].sum() > picture[0, 20, 24].sum()
    assert (picture[:, :, :8] == 25).all()
    assert (picture[:, :, 40:] == 25).all()


def test_the_video_itself_is_not_written_over(model: Path, video: Path, tmp_path: Path) -> None:
    own = Path(shutil.copy(video, tmp_path / "own.mp4"))
    before = own.read_bytes()
    with pytest.raises(ValueError, match="is an input of the command"):
        write_explanation(explain(VideoClassifier.from_pretrained(model), own), own)
    assert own.read_bytes() == before


def test_a_gif_plays_as_fast_as_the_video(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "fast.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 256, (40, 40, 64, 3), dtype=np.uint8), fps=120)
    write_explanation(explain(VideoClassifier.from_pretrained(model), path), tmp_path / "fast.gif")
    with Image.open(tmp_path / "fast.gif") as film:
        durations = []
        for place in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(place)
            durations.append(film.info["duration"])
    assert min(durations) >= 30, "browsers play faster ones slowly"
    assert sum(durations) == pytest.approx(10 * 1000 / 120, abs=35)


def test_what_counts_little_stays_visible() -> None:
    """The brightness of a frame where shares are zero: no less than 80 % of what it was."""
    frames = torch.full((1, 32, 32, 3), 120, dtype=torch.uint8)
    shares = torch.zeros(1, 4, 4)
    shares[0, 0, 0] = 1
    picture = overlay(frames, shares)[0].astype(int)
    assert picture[24, 24].min() >= 0.8 * 120
    assert picture[3, 3].sum() > 1.2 * 3 * 120


def test_the_caption_says_what_bright_means(model: Path, video: Path) -> None:
    found = explain(VideoClassifier.from_pretrained(model), video)
    times = f"{found.shares.max():.1f}"
    assert found.caption()[1] == f"attention rollout: the brightest place weighs {times} times as much as the average"


@pytest.mark.slow
def test_a_gif_stays_small(model: Path, tmp_path: Path) -> None:
    """2.6 s of 640 x 480, each frame another, with noise."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 640)[None, :, None]
    frames = [(ramp + 40 * np.sin(number / 5) + rng.normal(0, 12, (480, 640, 3))).clip(0, 255) for number in range(78)]
    write_video(tmp_path / "a.mp4", np.array(frames, dtype=np.uint8), fps=30)
    classifier = VideoClassifier.from_pretrained(model, stride=20)
    write_explanation(explain(classifier, tmp_path / "a.mp4"), tmp_path / "a.gif")
    assert (tmp_path / "a.gif").stat().st_size < 2e6
