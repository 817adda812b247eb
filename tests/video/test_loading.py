"""Samples made by worker processes whose decoders hang, crash or have errors of their own."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from timesformer.evaluation.evaluate import evaluate
from timesformer.video import clips, decode
from timesformer.video.clips import (
    BadVideo,
    Batch,
    ClipDataset,
    FrameCache,
    collate,
    load,
    read_bad_videos,
    write_bad_videos,
)
from timesformer.video.datasets import read_videos
from timesformer.video.items import VideoList
from timesformer.video.preprocessing import Preprocessing
from timesformer.video.shards import PackedVideo
from timesformer.video.synthetic import write_dataset
from timesformer.video.transforms import TrainTransform

PREPROCESSING = Preprocessing(num_frames=4, stride=2, image_size=32)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    folder = tmp_path_factory.mktemp("data") / "appearance"
    write_dataset(folder, "appearance", train=0, val=0, test=16, size=32, num_frames=12)
    return read_videos(folder, "test")


@pytest.fixture
def fragile(videos: VideoList, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A decoder that hangs, crashes or raises at the videos that are put into this."""
    what: dict[str, str] = {}
    init = decode.VideoReader.__init__

    def open_(self: Any, path: str | Path, **options: Any) -> None:
        if what.get(str(path)) == "hang":
            time.sleep(600)
        if what.get(str(path)) == "crash":
            faulthandler.disable()  # whose report would be in the way
            os.kill(os.getpid(), signal.SIGSEGV)
        if what.get(str(path)) == "bug":
            raise LookupError("a bug")
        init(self, path, **options)

    monkeypatch.setattr(decode.VideoReader, "__init__", open_)
    return what


def batches(videos: VideoList, workers: int) -> list[Batch]:
    dataset = ClipDataset(videos, PREPROCESSING, TrainTransform(32, (32, 40)), seed=0, short_side=40)
    keys = [[(0, index) for index in range(start, start + 4)] for start in range(0, 16, 4)]
    return list(load(dataset, batch_sampler=keys, workers=workers, collate_fn=collate, time_limit=2))


def test_batches_are_the_same_in_other_processes(videos: VideoList) -> None:
    here, there = batches(videos, 0), batches(videos, 2)
    assert len(here) == len(there) == 4
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.clips, other.clips)
        assert torch.equal(one.targets, other.targets)


def test_a_video_that_hangs_or_crashes_is_left_out_of_its_batch(videos: VideoList, fragile: dict[str, str]) -> None:
    whole = batches(videos, 0)
    hangs, crashes, too = (str(videos.items[index].path) for index in (2, 3, 13))
    fragile.update({hangs: "hang", crashes: "crash", too: "crash"})
    found = batches(videos, 2)
    assert [batch.bad for batch in found] == [
        (
            BadVideo(hangs, f"{hangs}: takes more than 2 s"),
            BadVideo(crashes, f"{crashes}: kills the process that works on it (SIGSEGV)"),
        ),
        (),
        (),
        (BadVideo(too, f"{too}: kills the process that works on it (SIGSEGV)"),),
    ]
    assert torch.equal(found[0].clips, whole[0].clips[:2])
    assert torch.equal(found[1].clips, whole[1].clips)
    assert torch.equal(found[3].clips, whole[3].clips[[0, 2, 3]])


def test_an_evaluation_goes_on(videos: VideoList, fragile: dict[str, str]) -> None:
    class Model(torch.nn.Module):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return clips.mean(dim=(1, 2, 3, 4))[:, None] * torch.arange(8)

    whole = evaluate(Model(), videos, PREPROCESSING, workers=0)
    fragile[str(videos.items[5].path)] = "hang"
    found = evaluate(Model(), videos, PREPROCESSING, workers=2, time_limit=2)
    assert [Path(bad.path) for bad in found.bad] == [videos.items[5].path]
    assert found.items == (*videos.items[:5], *videos.items[6:])
    assert found.scores == pytest.approx(whole.scores[[*range(5), *range(6, 16)]], abs=1e-6)


def test_a_cache_without_room_is_no_cache(videos: VideoList, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing is an error, as on a full disk
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        assert FrameCache(tmp_path, 32).frames(videos.items[0].path) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())
    frames = FrameCache(tmp_path, 32).frames(videos.items[0].path)
    assert frames is not None
    with decode.VideoReader(videos.items[0].path, short_side=32) as video:
        assert torch.equal(torch.from_numpy(frames.copy()), torch.stack(list(video)))


def test_lists_of_bad_videos_hold_any_name(tmp_path: Path) -> None:
    bad = [BadVideo("a\nb\u2028c\t.mp4", "it\rfailed"), BadVideo("d.mp4", "e\udc80")]
    write_bad_videos(tmp_path / "bad.txt", bad)
    assert read_bad_videos(tmp_path / "bad.txt") == [BadVideo("a\\nb\\u2028c\\t.mp4", "it\\rfailed"), bad[1]]


def test_errors_that_are_no_videos_are_raised(videos: VideoList, fragile: dict[str, str]) -> None:
    fragile[str(videos.items[5].path)] = "bug"
    with pytest.raises(LookupError, match="a bug"):
        batches(videos, 1)


def test_a_process_that_is_lost_with_no_video_to_blame(videos: VideoList, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(samples: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    dataset = ClipDataset(videos, PREPROCESSING, TrainTransform(32, (32, 40)), seed=0, short_side=40)
    told = r"a batch of 2 videos kills the process that works on it \(SIGKILL\), all of which were decoded.*memory"
    with pytest.raises(RuntimeError, match=told):
        list(clips.load(dataset, batch_sampler=[[(0, 0), (0, 1)]], workers=1, collate_fn=crash))


def _write_images(folder: Path, values: list[int]) -> None:
    folder.mkdir(exist_ok=True)
    for number, value in enumerate(values):
        Image.new("RGB", (32, 32), (value, value, value)).save(folder / f"{number}.png")


def test_the_cache_sees_a_frame_folder_that_was_rewritten_in_place(tmp_path: Path) -> None:
    video, cache = tmp_path / "video", FrameCache(tmp_path / "cache", 32)
    _write_images(video, [10, 20, 30])
    frames = cache.frames(video)
    assert frames is not None
    assert frames[:, 0, 0, 0].tolist() == [10, 20, 30]
    before = video.stat()
    Image.new("RGB", (32, 32), (99, 99, 99)).save(video / "1.png")
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))  # as writing into a file leaves its folder
    frames = cache.frames(video)
    assert frames is not None
    assert frames[:, 0, 0, 0].tolist() == [10, 99, 30]
    (video / "2.png").rename(video / "3.png")
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert clips.fingerprint(video) != clips.fingerprint(tmp_path)
    assert len({clips.fingerprint(video), clips.fingerprint(video)}) == 1


def test_the_cache_sees_a_shard_that_was_written_again(tmp_path: Path) -> None:
    shard = tmp_path / "shard-000000.tar"
    shard.write_bytes(b"x" * 100)
    packed = PackedVideo(str(shard), 10, 20, "a.mp4", ".mp4")
    before = clips.fingerprint(packed)
    os.utime(shard, ns=(1, 1))
    assert clips.fingerprint(packed) != before


def test_augmentation_works_on_rgb_whatever_the_order_of_the_model(videos: VideoList) -> None:
    """Grey is 0.3 red, 0.6 green and 0.1 blue; swapped, a saturation would be another."""
    samples = {}
    for colour in ("RGB", "BGR"):
        preprocessing = Preprocessing(num_frames=4, stride=2, image_size=32, colour=colour)  # type: ignore[arg-type]
        transform = TrainTransform(32, (32, 40), 0.5, None, 10, 0.0)
        dataset = ClipDataset(videos, preprocessing, transform, seed=0, short_side=40)
        samples[colour] = torch.stack([dataset[epoch, 3][0] for epoch in range(20)])  # type: ignore[misc]
    torch.testing.assert_close(samples["BGR"], samples["RGB"].flip(1))


def test_augmented_clips_are_normalised_in_the_order_of_the_model(videos: VideoList) -> None:
    """`mean` and `std` belong to blue, green and red in turn, where `colour` is BGR."""
    mean, std = (0.2, 0.5, 0.7), (0.1, 0.2, 0.4)
    own = Preprocessing(4, 2, "clip", 32, "BGR", mean=mean, std=std)
    plain = Preprocessing(4, 2, "clip", 32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # values / 255 in RGB
    transform = TrainTransform(32, (32, 40), 0.5, None, 10, 0.0)
    first, second = (
        torch.stack([ClipDataset(videos, each, transform, seed=0, short_side=40)[epoch, 3][0] for epoch in range(5)])  # type: ignore[misc]
        for each in (own, plain)
    )
    centre, divisor = (torch.tensor(each).view(3, 1, 1, 1) for each in (mean, std))
    torch.testing.assert_close(first, (second.flip(1) - centre) / divisor, atol=1e-4, rtol=0)
