"""How much a file from somebody else may ask of this machine. Each limit can be raised by an environment variable.

`TIMESFORMER_MAX_PIXELS=1000000000` raises `MAX_PIXELS` for a command and all its processes; `docs/security.md` lists
the limits. They stand far above what real files need, so that only broken or hostile files meet them.
"""

from __future__ import annotations

import os

_USUAL = {
    "MAX_PIXELS": 100_000_000,  # of a frame as it is stored: 8K video has 33 million
    "MAX_CLIP_BYTES": 4 * 2**30,  # of the frames of a video that are in memory at a time
    "MAX_VIDEO_FRAMES": 20_000_000,  # of a video: 92 hours at 60 a second
    "MAX_PACKET_BYTES": 2**30,  # of a frame as it is stored
    "MAX_STREAMS": 128,  # of a file: pictures, sounds, subtitles
    "MAX_WORKER_BYTES": 8 * 2**30,  # that a process which decodes videos may take, beside what it starts with
    "MAX_LIST_BYTES": 256 * 2**20,  # of a list of videos, classes.txt, or a benchmark's annotation
    "MAX_LINE": 65536,  # characters of a line of a list
    "MAX_CLASSES": 1_000_000,  # that integer labels may count up to
    "MAX_INDEX_BYTES": 2**30,  # of shards.json
    "MAX_DOCUMENT_BYTES": 64 * 2**20,  # of a model's configuration and other JSON
    "MAX_YAML_BYTES": 2**20,  # of a recipe and other YAML
    "MAX_DOCUMENT_VALUES": 4_000_000,  # in one JSON document
    "MAX_YAML_VALUES": 200_000,  # in one YAML document, its aliases written out
    "MAX_DOCUMENT_DEPTH": 64,  # of lists and mappings inside each other
    "MAX_RECIPES": 16,  # that lie on top of each other by `base`
    "MAX_BLOCKS": 1000,  # of a model: the paper's have 12 and 24
    "MAX_WIDTH": 65_536,  # of a layer, in channels
    "MAX_PARAMETERS": 20_000_000_000,  # of a model: the paper's largest has 0.4 thousand million
    "MAX_FRAMES": 10_000,  # of a clip: the paper's longest have 96
    "MAX_IMAGE_SIZE": 16_384,  # side of a clip's frames in pixels
    "MAX_CLIP_PIXELS": 250_000_000,  # frames times height times width of a clip: 3 GB of floats
    "MAX_STRIDE": 1_000_000,  # source frames from one frame of a clip to the next
    "MAX_UNPACKED_BYTES": 512 * 2**20,  # of arrays that a compressed file of NumPy's unpacks to, beyond its own size
}

OUT_OF_MEMORY = (
    "memory ran out: it needs more than is free, or than a process that decodes may take (TIMESFORMER_MAX_WORKER_BYTES)"
)


def limit(name: str) -> int:
    """The limit of this name: the environment's `TIMESFORMER_<name>`, or else the usual one.

    Raises:
        ValueError: the environment variable is not a whole number from 1 up.
    """
    variable = f"TIMESFORMER_{name}"
    text = os.environ.get(variable)
    if text is None:
        return _USUAL[name]
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) < 1:
        raise ValueError(f"{variable}={text!r} must be a whole number from 1 up, of at most 18 digits")
    return int(text)


def check_clip_size(num_frames: int, height: int, width: int) -> None:
    """See that a clip's frames have no more pixels together than the limit: ValueError."""
    if num_frames * height * width > (most := limit("MAX_CLIP_PIXELS")):
        raise ValueError(
            f"num_frames={num_frames} of image_size {height}x{width}: at most {most} pixels a clip "
            "(TIMESFORMER_MAX_CLIP_PIXELS)"
        )
