"""VideoClassifier from Python: lists, frames in memory, how videos are cut into clips; names that a shell completes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import timesformer
from timesformer.cli import main
from timesformer.video.decode import VideoError
from timesformer.video.synthetic import write_video

SIZE = {"depth": 1, "embed_dim": 24, "num_heads": 3, "image_size": 16, "patch_size": 8, "num_frames": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predictor") / "model"
    torch.manual_seed(0)
    model = timesformer.create_model("timesformer_tiny", num_classes=3, **SIZE)
    torch.nn.init.normal_(model.head.weight, std=1)
    model.preprocessing = {"num_frames": 4, "stride": 2, "sampling": "clip", "image_size": 16}
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)


def expected(folder: Path, frames: np.ndarray, indices: list[int]) -> torch.Tensor:
    """Scores by the definition: the frames of the clip, (v / 255 - 0.45) / 0.225, the model, softmax."""
    clip = (torch.from_numpy(frames[indices]).float() / 255 - 0.45) / 0.225
    with torch.inference_mode():
        return timesformer.load_model(folder)(clip.permute(3, 0, 1, 2)[None]).softmax(-1)[0]


def as_scores(pairs: list[tuple[str, float]]) -> torch.Tensor:
    return torch.tensor([dict(pairs)[name] for name in "012"])


@pytest.mark.parametrize("kind", ["array", "tensor", "backwards"])
def test_frames_in_memory_are_classified(folder: Path, frames: np.ndarray, kind: str) -> None:
    classifier = timesformer.VideoClassifier.from_pretrained(folder, device="cpu")
    video = {"array": frames, "tensor": torch.from_numpy(frames), "backwards": frames[..., ::-1].copy()[..., ::-1]}[
        kind
    ]
    found = as_scores(classifier.predict(video))
    assert torch.allclose(found, expected(folder, frames, [2, 4, 6, 8]), atol=1e-5)  # 8 of 12 frames, in the middle


@pytest.mark.parametrize(
    ("shape", "dtype"), [((12, 16, 16), "uint8"), ((12, 16, 16, 4), "uint8"), ((0, 16, 16, 3), "uint8"),
                         ((12, 16, 16, 3), "float32")],
)  # fmt: skip
def test_what_is_no_frames_is_refused(folder: Path, shape: tuple[int, ...], dtype: str) -> None:
    classifier = timesformer.VideoClassifier.from_pretrained(folder, device="cpu")
    with pytest.raises(ValueError, match=r"uint8 \(F, H, W, 3\)"):
        classifier.predict(np.zeros(shape, dtype))


def test_a_list_gives_a_list(folder: Path, frames: np.ndarray, tmp_path: Path) -> None:
    classifier = timesformer.VideoClassifier.from_pretrained(folder, device="cpu")
    write_video(tmp_path / "a.mp4", frames, fps=10)
    both = classifier.predict([tmp_path / "a.mp4", frames], top=2)
    assert both == [classifier.predict(tmp_path / "a.mp4", top=2), classifier.predict(frames, top=2)]
    assert classifier.predict([]) == []
    with pytest.raises(VideoError, match=r"none\.mp4"):
        classifier.predict([frames, tmp_path / "none.mp4"])


def test_how_videos_are_cut_can_be_set(folder: Path, frames: np.ndarray, tmp_path: Path) -> None:
    classifier = timesformer.VideoClassifier.from_pretrained(folder, device="cpu", stride=3)
    assert torch.allclose(as_scores(classifier.predict(frames)), expected(folder, frames, [0, 3, 6, 9]), atol=1e-5)
    assert classifier.preprocessing.stride == 3
    classifier.model.save_pretrained(tmp_path)  # what is saved or exported is cut likewise
    assert timesformer.VideoClassifier.from_pretrained(tmp_path).preprocessing.stride == 3
    with pytest.raises(ValueError, match=r"^stride=0 must be"):
        timesformer.VideoClassifier.from_pretrained(folder, stride=0)
    with pytest.raises(ValueError, match=r"^sampling='all' is not one of clip, segments"):
        timesformer.VideoClassifier.from_pretrained(folder, sampling="all")


def test_a_stride_that_is_given_is_not_guessed(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = timesformer.load_model(folder)
    model.preprocessing = None
    model.save_pretrained(tmp_path)
    assert timesformer.VideoClassifier.from_pretrained(tmp_path, stride=3).preprocessing.stride == 3
    assert "32" not in caplog.text


def test_commands_take_it_too(
    folder: Path, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a.mp4", frames, fps=10)
    assert main(["predict", str(folder), str(tmp_path / "a.mp4"), "--set", "stride=0"]) == 1
    assert "stride=0 must be" in capsys.readouterr().err
    code = main(["convert", str(folder), str(tmp_path / "x"), "--to", "timesformer", "--set", "stride=3"])
    assert code == 1
    assert "stride: how videos are cut into clips" in capsys.readouterr().err
    assert main(["predict", str(folder), str(tmp_path / "a.mp4"), "--set", "strid=3"]) == 1
    error = capsys.readouterr().err
    assert "did you mean stride?" in error


def test_names_are_listed_before_they_are_loaded() -> None:
    assert {"VideoClassifier", "load_model", "create_model", "prepare", "__version__"} <= set(dir(timesformer))


def test_predict_takes_a_folder_and_writes_a_table(
    folder: Path,
    frames: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("videos/b.mp4", "videos/in/a,1.mp4", "=1+1.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / name, frames, fps=10)
    (tmp_path / "videos" / "broken.mp4").write_text("no video")
    command = ["predict", str(folder), "videos", "=1+1.mp4", "--top", "2", "--set", "stride=3"]
    assert main([*command, "--out", "x.csv"]) == 1, "one of them is broken"
    output = capsys.readouterr()
    assert output.out == ""
    assert "broken.mp4" in output.err
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert list(next(iter(rows.values()))) == ["path", "label", "score", "label2", "score2", "error"]
    assert rows.keys() == {"videos/b.mp4", "videos/broken.mp4", "videos/in/a,1.mp4", "'=1+1.mp4"}
    classifier = timesformer.VideoClassifier.from_pretrained(folder, device="cpu", stride=3)
    (first, score), (second, _) = classifier.predict(tmp_path / "videos" / "b.mp4", top=2)
    good, bad = rows["videos/b.mp4"], rows["videos/broken.mp4"]
    assert (good["label"], good["label2"], good["error"]) == (first, second, "")
    assert float(good["score"]) == pytest.approx(score, abs=1e-5)
    assert (bad["label"], bad["score"]) == ("", "")
    assert "broken.mp4" in bad["error"]
    assert main(command) == 1
    assert capsys.readouterr().out.splitlines()[0] == "videos/b.mp4"
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(folder), "empty"]) == 1
    assert "empty: holds no videos" in capsys.readouterr().err


def test_predict_replaces_no_input_by_its_table(
    folder: Path, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a.mp4", frames, fps=10)
    (tmp_path / "list.csv").write_text("a.mp4 0\n")
    assert main(["predict", str(folder), str(tmp_path / "list.csv"), "--out", str(tmp_path / "list.csv")]) == 1
    assert "is an input of the command" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "list.csv").read_text() == "a.mp4 0\n"
    assert main(["predict", str(folder), str(tmp_path / "a.mp4"), "--out", str(tmp_path / "x.txt")]) == 1
    assert "must end in .csv or .parquet" in " ".join(capsys.readouterr().err.split())
