"""Opening a video file by FFmpeg, which opens and contacts nothing but that file and holds no more than the limits.

FFmpeg reads far more than videos: playlists that name web addresses, descriptions of streams that open ports, texts
that it draws as pictures. Which of them a file is, its content says, whatever it is called. So the formats are listed
here, and so are the protocols: files for a path, none for what is read through Python.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import av

from timesformer.limits import limit
from timesformer.video.shards import PackedVideo, VideoPath

_READ_AT_ONCE = 2**17  # bytes of what is read through Python
_ROW_PADDING, _MOST_ROWS = 64, 2**16  # pixels that FFmpeg adds to a row; rows of a frame that has many columns too
_SPECIAL_FOLDERS = ("/proc/", "/sys/")  # whose files only look like regular ones

# fmt: off
_FORMATS = (  # FFmpeg's names; sound and single pictures too, so that they are told from what is damaged
    # containers
    "asf", "asf_o", "avi", "bink", "cine", "dhav", "dv", "film_cpk", "flic", "flv", "gif", "gxf", "ivf", "ivr", "kux",
    "live_flv", "lmlm4", "lxf", "matroska", "mov", "mpeg", "mpegts", "mxf", "nsv", "nut", "nuv", "ogg", "pmp", "pva",
    "rm", "roq", "ser", "smjpeg", "smk", "swf", "thp", "ty", "vivo", "wtv", "yuv4mpegpipe",
    # bare streams
    "apng", "apv", "av1", "avs2", "avs3", "cavsvideo", "dirac", "dnxhd", "evc", "h261", "h263", "h264", "hevc",
    "m4v", "mjpeg", "mjpeg_2000", "mpegvideo", "obu", "vc1", "vc1test", "vvc",
    # pictures
    "bmp_pipe", "dds_pipe", "dpx_pipe", "exr_pipe", "gif_pipe", "hdr_pipe", "j2k_pipe", "jpeg_pipe", "jpegls_pipe",
    "jpegxl_anim", "jpegxl_pipe", "pam_pipe", "pbm_pipe", "pcx_pipe", "pgm_pipe", "pgmyuv_pipe", "png_pipe",
    "ppm_pipe", "psd_pipe", "qoi_pipe", "sgi_pipe", "sunrast_pipe", "tiff_pipe", "webp_pipe", "xbm_pipe", "xwd_pipe",
    # sound
    "aac", "ac3", "ac4", "aiff", "amr", "ape", "au", "caf", "dsf", "dts", "dtshd", "eac3", "flac", "iamf", "loas",
    "mlp", "mp3", "mpc", "mpc8", "oma", "qoa", "tak", "truehd", "tta", "voc", "w64", "wav", "wv",
)
# fmt: on

_OTHERS = {  # how files begin that are no videos but may be taken for some; only the reason depends on this
    r"#EXTM3U": "a list of other files (HLS)",
    r"(#[^\n]*\n)*\s*ffconcat version": "a list of other files (concat)",
    r"v=\d+\r?\n[a-z]=": "the description of a stream (SDP)",
    r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<MPD\b": "a list of other files (DASH)",
    r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(\w+:)?(CompositionPlaylist|AssetMap|PackingList)\b": "a list of files (IMF)",
    r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<SmoothStreamingMedia\b": "a list of other files (Smooth Streaming)",
    r"RTSPtext|\[Reference\]|\[playlist\]|<ASX\b": "the address of a stream (RTSP or the like)",
    r"\[Script Info\]|WEBVTT|\d+\r?\n\d+:\d+:\d+[,.]\d+ +-->": "subtitles",
}


def check_regular(path: Path) -> None:
    """Raise OSError unless it is a regular file: reading others may never end, wait for a writer, or have effects."""
    if not path.is_file():
        raise OSError("is not a regular file" if path.exists() else "no such file")
    if os.path.realpath(path).startswith(_SPECIAL_FOLDERS):
        raise OSError("is not a regular file")


@contextmanager
def opened(source: VideoPath | io.IOBase) -> Iterator[av.container.InputContainer]:
    """A context in which a path, a video in a shard, or an open file can be read as a video.

    Raises:
        OSError: it cannot be read as a video; the message is the reason, without the path.
        MemoryError: memory ran out.
    """
    if isinstance(source, Path):
        check_regular(source)
        if not source.stat().st_size:
            raise OSError("the file is empty")
    with ExitStack() as stack:
        file: Any = stack.enter_context(source.open()) if isinstance(source, PackedVideo) else source
        yield stack.enter_context(_open(file))


def _open(file: Any) -> av.container.InputContainer:
    is_path = isinstance(file, Path)
    try:
        return av.open(
            f"file:{file}" if is_path else file,  # "file:" keeps names with colons from being taken for addresses
            "r",
            metadata_errors="replace",
            buffer_size=_READ_AT_ONCE,
            options=decoder_options(),
            container_options={
                "protocol_whitelist": "file" if is_path else "",
                "format_whitelist": ",".join(_FORMATS),
                "enable_drefs": "0",  # MP4's way of having its samples in other files
                "use_absolute_path": "0",
                "max_streams": str(limit("MAX_STREAMS")),
            },
        )
    except (PermissionError, MemoryError):
        raise
    except (av.FFmpegError, ValueError):
        raise OSError(_what_else(file)) from None


def decoder_options() -> dict[str, str]:
    """FFmpeg's options for decoders: how large frames may be, their rows lengthened as FFmpeg lays them out."""
    most = limit("MAX_PIXELS")
    return {"max_pixels": str(min(most + _ROW_PADDING * min(most, _MOST_ROWS), 2**31 - 1))}


def check_size(width: int, height: int) -> None:
    """Raise OSError if frames are larger than the limit."""
    if width * height > (most := limit("MAX_PIXELS")):
        raise OSError(
            f"is {width}x{height} pixels: more than the {most} of a frame that are allowed (TIMESFORMER_MAX_PIXELS)"
        )


def check_count(frames: int, most: int | None = None) -> None:
    """Raise OSError if a video has more frames than the limit."""
    if frames > (most := most or limit("MAX_VIDEO_FRAMES")):
        raise OSError(f"has more than {most} frames, the most that are allowed (TIMESFORMER_MAX_VIDEO_FRAMES)")


def _what_else(file: Any) -> str:
    """Why a file is not read as a video, as far as its beginning tells."""
    try:
        if isinstance(file, Path):
            with file.open("rb") as content:
                head = content.read(1024)
        else:
            file.seek(0)
            head = file.read(1024) or b""
    except (OSError, ValueError):
        head = b""
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    for pattern, kind in _OTHERS.items():
        if re.match(pattern, text, re.I | re.S):
            return f"is not a video but {kind}"
    return "is not a video, or is damaged or cut off"
