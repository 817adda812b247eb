"""Whether shards hold the bytes that `pack` wrote: their SHA-256 against that of the index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import fsspec

from timesformer.documents import parse_json, read_json
from timesformer.video.shards import INDEX, Shards, is_address

Damage = Literal["missing", "damaged"]
_BLOCK = 2**20  # bytes


def index_digests(source: str | Path) -> dict[str, str]:
    """The SHA-256 of shards by their names, as an index has them; none in an index without digests.

    Raises:
        OSError: the index can't be read.
        ValueError: it is not understood.
    """
    if is_address(source):
        with fsspec.open(f"{str(source).rstrip('/')}/{INDEX}", "rb") as file:
            index = parse_json(file.read(), f"{source}/{INDEX}")
    else:
        index = read_json(Path(source) / INDEX)
    digests = index.get("sha256", {})
    if not isinstance(digests, dict):
        raise ValueError(f"{source}: {INDEX}: sha256={digests!r} are no digests by the names of shards")
    return {str(name): str(digest) for name, digest in digests.items()}


def shard_problems(shards: Shards, digests: dict[str, str]) -> Iterator[tuple[Damage, str, str]]:
    """Shards that are missing, or are not as they were written: kind of problem, path or address, and reason."""
    for shard in dict.fromkeys(video.shard for video, _, _ in shards.videos):
        expected = digests.get(shard.rpartition("/")[2])
        try:
            if not is_address(shard) and not Path(shard).is_file():
                yield "missing", shard, "no such shard"
            elif expected and (digest := _digest(shard)) != expected:
                yield "damaged", shard, f"its bytes are not those that were packed: SHA-256 {digest}, not {expected}"
        except FileNotFoundError:
            yield "missing", shard, "no such shard"
        except Exception as error:  # each file system has its own
            yield "damaged", shard, f"can't be read: {type(error).__name__}: {error}"


def _digest(shard: str) -> str:
    sha = hashlib.sha256()
    with _open(shard) as file:
        while block := file.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()


def _open(shard: str) -> IO[bytes] | Any:
    return fsspec.open(shard, "rb") if is_address(shard) else Path(shard).open("rb")
