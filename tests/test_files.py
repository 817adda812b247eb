"""Files that are replaced: what was there stays until the new one is whole, and it stays the user's."""

from __future__ import annotations

import json
import os
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from timesformer.evaluation.features import Features
from timesformer.files import OutputError, remove_unfinished, replace_file, save_figure, write_csv, write_json
from timesformer.outputs import check_output


def test_permissions_stay(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    umask = os.umask(0o022)
    try:
        write_json(file, 1)
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        for mode in (0o600, 0o664, 0o444):
            file.chmod(mode)
            with replace_file(file) as new:
                assert stat.S_IMODE(new.stat().st_mode) == 0o600, "nobody else reads it before it is complete"
                new.write_text("{}")
            assert stat.S_IMODE(file.stat().st_mode) == mode
    finally:
        os.umask(umask)


@pytest.mark.skipif(os.getuid() != 0, reason="only the superuser may give files away")
def test_owner_and_group_stay(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    write_json(file, 1)
    os.chown(file, 1234, 2345)
    write_json(file, 2)
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 2345)


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "target.json"
    target.write_text("old")
    os.link(target, tmp_path / "other name")
    (tmp_path / "link.json").symlink_to("folder/target.json")
    (tmp_path / "chain.json").symlink_to(tmp_path / "link.json")
    write_json(tmp_path / "chain.json", 5)
    assert (tmp_path / "chain.json").is_symlink()
    assert (tmp_path / "link.json").is_symlink()
    assert target.read_text() == "5\n"
    assert not target.is_symlink()
    assert (tmp_path / "other name").read_text() == "old"
    (tmp_path / "dangling.json").symlink_to("new.json")
    write_json(tmp_path / "dangling.json", 6)
    assert (tmp_path / "new.json").read_text() == "6\n"


def test_a_device_and_a_pipe_are_written_into(tmp_path: Path) -> None:
    device, pipe = tmp_path / "null", tmp_path / "pipe"
    if os.getuid() == 0:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # as /dev/null, of which there is one alone
        write_json(device, 7)
        assert stat.S_ISCHR(device.stat().st_mode)
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_json(pipe, 8)
    reader.join(10)
    assert read == ["8\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    check_output(pipe, "--json")
    check_output("/dev/null", "--json")


def test_standard_output_that_goes_into_a_file_is_added_to(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_text("before\n")
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
    inode = file.stat().st_ino
    write_json(Path(f"/dev/fd/{descriptor}"), 9)
    os.close(descriptor)
    assert (file.read_text(), file.stat().st_ino) == ("before\n9\n", inode)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Files that this process writes may have so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import torch
    from matplotlib.figure import Figure
    from PIL import Image

    from timesformer.evaluation.bulk import _write
    from timesformer.training.checkpoint import Progress, save_checkpoint
    from timesformer.training.errors import TrainingError

    noise = np.random.default_rng(0).random((200, 200)).astype(np.float32)
    figure = Figure()
    figure.add_subplot().imshow(noise)
    features = Features(noise, ("a",) * 200, np.zeros(200, np.int64), ())
    schema = pa.schema({"features": pa.list_(pa.float32())})

    def save_gif(file: Path) -> None:
        with replace_file(file) as new:
            Image.fromarray((255 * noise).astype(np.uint8)).save(new, "GIF")

    writers = {
        "a.safetensors": features.save,
        "a.json": lambda file: write_json(file, noise.tolist()),
        "a.csv": lambda file: write_csv(file, noise.tolist()),
        "a.png": lambda file: save_figure(file, figure),
        "a.gif": save_gif,
        "a.parquet": lambda file: _write(file, [{"features": row} for row in noise], schema),
        "checkpoint.pt": lambda file: save_checkpoint(tmp_path, Progress(), {"x": torch.from_numpy(noise)}),
    }
    for name, write in writers.items():
        file = tmp_path / name
        file.write_text("old")
        with full_disk(4096), pytest.raises((OutputError, TrainingError)) as failed:
            write(file)
        assert str(failed.value).startswith(f"{file} can't be written (File too large)")
        assert "\n" not in str(failed.value)
        assert file.read_text() == "old"
        write(file)  # now there is room
        assert file.read_bytes() != b"old"
    assert not list(tmp_path.glob(".*"))


def test_an_error_that_is_not_the_files_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="input"), replace_file(tmp_path / "out"):
        (tmp_path / "input").read_text()
    with pytest.raises(KeyError), replace_file(tmp_path / "out"):
        raise KeyError("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"folder can't be written \(Is a directory\)"):
        write_json(tmp_path / "folder", 1)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/a.json can't be written"):
        write_json(tmp_path / "file" / "a.json", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_names_of_any_bytes_and_of_any_length(tmp_path: Path) -> None:
    for name in (os.fsdecode(b"\xff.png"), "n" * 251 + ".png", "é" * 125 + ".png", os.fsdecode(b"\xff" * 251) + ".png"):
        with replace_file(tmp_path / name) as new:
            new.write_text("x")
        assert (tmp_path / name).read_text() == "x"
    assert not list(tmp_path.glob(".*"))


def test_unfinished_files_of_dead_writers_are_removed(tmp_path: Path) -> None:
    gone = 2**22 + 1
    ours = [f".{gone}-0123abcd.shard-1.tar", f".{gone}.shard-2.tar"]
    others = [f".{os.getpid()}-0123abcd.shard-1.tar", ".notes.shard-1.tar", f".{gone}-0123abcd.other", "shard-1.tar"]
    for name in (*ours, *others):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path, "shard-*")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(others)


def test_a_table_and_json_of_any_names_are_unicode(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff.mp4")
    write_csv(tmp_path / "a.csv", [[Path(name), 1.5, "\ud800"]])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "a\\xff.mp4,1.5,\\ud800\n"
    write_json(tmp_path / "a.json", {name: [name, ("é", None, 1)]})
    text = (tmp_path / "a.json").read_text(encoding="ascii")
    assert "\\ud" not in text.lower()
    assert json.loads(text) == {"a\\xff.mp4": ["a\\xff.mp4", ["é", None, 1]]}


def test_what_an_output_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, data = tmp_path / "data" / "a.mp4", tmp_path / "data"
    data.mkdir()
    video.write_text("video")
    os.link(video, tmp_path / "same.mp4")
    (tmp_path / "link.mp4").symlink_to(video)
    for path, options, message in (
        (video, {"inputs": [video]}, "is an input of the command"),
        (tmp_path / "same.mp4", {"inputs": ["x", None, video]}, "is an input of the command"),
        (tmp_path / "link.mp4", {"inputs": [video]}, "is an input of the command"),
        (video, {"inputs": [data]}, "is a file of .*data, which is an input"),
        (data, {"folder": True, "inputs": [data]}, "is an input of the command"),
        (data / "new", {"folder": True, "inputs": [data], "apart": True}, "lies in .*data, which is an input"),
        (data, {}, "is a folder; name a file"),
        (video, {"folder": True}, "is a file; name a folder"),
        (tmp_path / "a.jpg", {"suffixes": (".png", ".svg", ".pdf")}, "the name must end in .png, .svg or .pdf"),
        (tmp_path / "a", {"suffixes": (".pt2",)}, "the name must end in .pt2"),
        (video / "a.json", {}, "a.mp4 is no folder"),
    ):
        with pytest.raises(ValueError, match=f"^--out {path}: .*{message}"):
            check_output(path, "--out", **options)  # type: ignore[arg-type]
    assert video.read_text() == "video"
    check_output(data / "new", "--out", folder=True, inputs=[data])
    check_output(data / "new.json", "--out", inputs=[data, "s3://x/y"])
    check_output(tmp_path / "A.PNG", "--out", suffixes=(".png",))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match=f"the folder {tmp_path} can't be written to"):
        check_output(tmp_path / "x" / "y", "--out", folder=True)
