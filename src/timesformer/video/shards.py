"""Videos packed into tar files, and how one is read from its place in such a file, wherever that is.

A folder of shards holds `shard-000000.tar`, ... and `shards.json`, the index. The tar files follow the convention of
WebDataset: of each video there is a member with its bytes and one of the same name, `.json`, that says its path, split
and labels. The index says the same of all of them, and at which byte each begins. `timesformer pack` writes all this.
"""

from __future__ import annotations

import functools
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from timesformer.documents import parse_json, read_json
from timesformer.limits import limit
from timesformer.video.shard_index import LONGEST_NAME, Head, names_shard

INDEX = "shards.json"
_WHOLE = 64 * 2**20  # bytes; videos elsewhere that are no larger are fetched by one request


@dataclass(frozen=True)
class PackedVideo:
    """A video in a shard. As text it is the shard's path or address, a slash, and the path that the video had.

    Attributes:
        shard: path or address (fsspec's, as in s3://bucket/shard-000000.tar).
        offset, size: where its bytes begin, and how many they are.
        path: what it was called where it was packed from, relative to that folder.
        suffix: of the format that it has now, such as ".mp4".
        fault: why it must not be opened; "" if it may be.
    """

    shard: str
    offset: int
    size: int
    path: str
    suffix: str
    fault: str = ""

    @classmethod
    def refused(cls, name: str, fault: str) -> PackedVideo:
        """What stands for an entry of a list or an index that is not to be opened, and why."""
        folder, _, file = name.rpartition("/")
        return cls(folder or ".", 0, 0, file, "", fault)

    @property
    def name(self) -> str:
        """Its file name, without folders."""
        return self.path.rsplit("/", 1)[-1]

    def __str__(self) -> str:
        return f"{self.shard}/{self.path.lstrip('/')}"

    def absolute(self) -> PackedVideo:
        """The same by an absolute path."""
        return self if is_address(self.shard) or self.fault else replace(self, shard=str(Path(self.shard).absolute()))

    def open(self) -> io.RawIOBase:
        """The video as a file of its own. Raises OSError, also when it is read."""
        if self.fault:
            raise OSError(self.fault)
        name = f"video{self.suffix}"
        if not is_address(self.shard):
            return FilePart(_open_inside(Path(self.shard), self.offset + self.size), self.offset, self.size, name)
        try:
            system, path = _file_system(self.shard)
            if self.size > _WHOLE:
                return FilePart(system.open(path, "rb"), self.offset, self.size, name)
            content = system.cat_file(path, start=self.offset, end=self.offset + self.size)
        except OSError:
            raise
        except Exception as error:  # each file system has its own
            raise OSError(f"{type(error).__name__}: {error}") from error
        if len(content) != self.size:
            raise OSError(f"the index gives it {self.size} bytes, of which the shard has {len(content)}")
        return FilePart(io.BytesIO(content), 0, self.size, name)


VideoPath = Path | PackedVideo


@dataclass(frozen=True)
class Shards:
    """What the index of a folder of shards says.

    Attributes:
        source: the folder or its address.
        classes: names of the classes; none for videos without labels.
        multi_label: whether some video has several labels.
        videos: each with its split ("" for none) and the names of its labels. One whose entry is wrong has a `fault`.
    """

    source: Path | str
    classes: tuple[str, ...]
    multi_label: bool
    videos: tuple[tuple[PackedVideo, str, tuple[str, ...]], ...]

    @functools.cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that its videos have."""
        return tuple(dict.fromkeys(split for _, split, _ in self.videos if split))


def is_address(path: str | Path) -> bool:
    """Whether it is an address, to be read by fsspec, and no path."""
    return "://" in str(path)


def without_credentials(text: str) -> str:
    """A text for people, whose addresses have lost their `user:password@`."""
    return re.sub(r"(://)[^/\s]*@", r"\1", text)


def read_shards(data: str | Path) -> Shards | None:
    """The index of a folder of shards, or of an address of one; None if `data` is no such folder.

    An entry that is wrong (other types, a shard elsewhere, bytes that are not there) is one video that cannot be read.

    Raises OSError for an address where there are no shards, ValueError for an index that is none.
    """
    shown = without_credentials(str(data))
    try:
        if is_address(data):
            index = _fetch_index(f"{str(data).rstrip('/')}/{INDEX}")
        elif (file := Path(data) / INDEX).is_file():
            index = read_json(file, max_bytes=limit("MAX_INDEX_BYTES"))
        else:
            return None
        head = Head.of(index)
    except FileNotFoundError as error:
        raise OSError(f"{shown}: holds no {INDEX}: of addresses, only those of packed videos can be read") from error
    except ValueError as error:
        raise ValueError(
            f"{shown}: {INDEX} is no index of shards, as `timesformer pack` writes it ({error})"
        ) from error
    return Shards(data, head.classes, head.multi_label, tuple(_videos(str(data).rstrip("/"), head)))


def _fetch_index(address: str) -> Any:
    system, path = _file_system(address)
    most = limit("MAX_INDEX_BYTES")
    try:
        return parse_json(system.cat_file(path, start=0, end=most + 1), INDEX, max_bytes=most)
    except (OSError, ValueError):
        raise
    except Exception as error:  # each file system has its own
        raise OSError(without_credentials(f"{address}: {type(error).__name__}: {error}")) from error


def _videos(folder: str, head: Head) -> Iterator[tuple[PackedVideo, str, tuple[str, ...]]]:
    for number, entry in enumerate(head.entries, 1):
        fault = head.fault(entry)
        split, labels = head.labels(entry)
        if fault:
            known = entry.get("path") if isinstance(entry, dict) else None
            name = known if isinstance(known, str) and 0 < len(known) <= LONGEST_NAME else f"entry {number} of {INDEX}"
            shard = f"{folder}/{entry['shard']}" if isinstance(entry, dict) and names_shard(entry) else folder
            yield PackedVideo(shard, 0, 0, name.replace("\0", "?"), "", fault), split, labels
        else:
            shard = f"{folder}/{entry['shard']}"
            yield PackedVideo(shard, entry["offset"], entry["size"], entry["path"], entry["suffix"]), split, labels


def _open_inside(shard: Path, end: int) -> BinaryIO:
    """Open a shard that is a regular file, is in its folder itself, and has `end` bytes. Raises OSError otherwise."""
    if shard.exists() and not shard.is_file():
        raise OSError(f"{shard.name} is not a regular file")
    if os.path.dirname(os.path.realpath(shard)) != os.path.realpath(shard.parent):
        raise OSError(f"{shard.name} is a link to a file outside its folder")
    file = shard.open("rb")
    if (size := os.fstat(file.fileno()).st_size) < end:
        file.close()
        raise OSError(f"the index says that it ends at byte {end} of {shard.name}, which has {size}")
    return file


def find_packed(path: str | Path) -> PackedVideo | None:
    """The video that `str` of a PackedVideo names; None if there is none."""
    shard, inside, name = (path if isinstance(path, str) else path.as_posix()).partition(".tar/")
    shard = f"{shard}.tar"
    if not inside or (not is_address(shard) and not Path(shard).is_file()):
        return None
    folder, _, file = (shard if is_address(shard) else Path(shard).absolute().as_posix()).rpartition("/")
    videos = _by_name(folder, _version(folder))
    if isinstance(videos, str):
        raise ValueError(videos)
    video = videos.get((file, name))
    return replace(video, shard=shard) if video else None


def _version(folder: str) -> tuple[int, ...]:
    """What changes when the index of a folder is written again; nothing for an address, whose index is read once."""
    if is_address(folder) or not (index := Path(folder) / INDEX).is_file():
        return ()
    about = index.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


@functools.lru_cache(maxsize=4)
def _by_name(folder: str, version: tuple[int, ...]) -> dict[tuple[str, str], PackedVideo] | str:
    """Videos of a folder of shards by shard and name; or what is wrong with the index, so that it is read once."""
    try:
        shards = read_shards(folder)
    except ValueError as error:
        return str(error)
    videos = [video for video, _, _ in shards.videos] if shards else []
    return {(video.shard.rpartition("/")[2], video.path.lstrip("/")): video for video in videos}


def _file_system(address: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, path = fsspec.url_to_fs(address)
    except (ImportError, ValueError) as error:  # the package of the file system is not installed, or there is none
        raise OSError(without_credentials(f"{address}: {error}")) from error
    return system, path


class FilePart(io.RawIOBase):
    """Bytes `offset` to `offset + size` of a file, as a file; by its name FFmpeg guesses where the bytes don't tell."""

    def __init__(self, file: Any, offset: int, size: int, name: str) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0
        self.name = name

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes of the part; how many there were."""
        self._file.seek(self._offset + self._at)
        content = self._file.read(min(len(buffer), max(0, self._size - self._at)))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()
