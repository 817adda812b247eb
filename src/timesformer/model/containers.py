"""Files of tensors, looked at before they are loaded: none may need more memory than it has bytes, and a little."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from timesformer.limits import limit

_INTEGERS = ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG")
# What zipfile, pickletools and NumPy raise on damaged bytes.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, LookupError, AttributeError, TypeError, EOFError, RuntimeError,
    ArithmeticError, MemoryError, pickle.UnpicklingError,
)  # fmt: skip
_SILENT = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")  # operations that leave the stack of a pickle as it is


class ContainerError(ValueError):
    """A file that does not hold what it says, or is damaged."""


def check_container(file: Path) -> None:
    """See that a file of weights holds what it says, and unpacks to no more than the limits allow.

    Raises:
        ContainerError: it does not, or is damaged; the message has no name in it.
        OSError: it can't be read.
    """
    try:
        _check(file)
    except ContainerError:
        raise
    except (ValueError, *_DAMAGED) as error:
        raise ContainerError(" ".join(str(error).split())) from error


def _check(file: Path) -> None:
    if file.suffix == ".npz":
        _check_arrays(file)
    elif file.suffix != ".safetensors":  # whose header is compared with its length by who reads it
        with file.open("rb") as content:
            archived = content.read(4) == b"PK\x03\x04"  # by its first bytes, as PyTorch decides it
        if archived:
            _check_archive(file)
        else:
            _check_pickles(file)


def _check_archive(file: Path) -> None:
    """What torch.save writes: an archive whose parts are stored as they are."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        _check_parts(file, entries)
        for entry in entries:
            if entry.filename.endswith("data.pkl"):
                _check_pickle(io.BytesIO(archive.read(entry)), file.stat().st_size)


def _check_parts(file: Path, entries: list[zipfile.ZipInfo]) -> None:
    """See that the parts of an archive have no more bytes than the archive."""
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ContainerError("its parts are compressed, which PyTorch never writes")
    if (needed := sum(entry.file_size for entry in entries)) > file.stat().st_size:
        raise ContainerError(f"its parts need {needed} bytes, more than the file has")


def _check_arrays(file: Path) -> None:
    """NumPy's archive: each array must have the bytes that its shape needs."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        most = file.stat().st_size + limit("MAX_UNPACKED_BYTES")
        if (needed := sum(entry.file_size for entry in entries)) > most:
            raise ContainerError(f"its arrays unpack to {needed} bytes (TIMESFORMER_MAX_UNPACKED_BYTES)")
        for entry in entries:
            with archive.open(entry) as part:
                version = np.lib.format.read_magic(part)
                read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(part)
            if _product(shape) * dtype.itemsize > entry.file_size:
                raise ContainerError(
                    f"{entry.filename.removesuffix('.npy')}: the file ends before its shape {shape} does"
                )


def _check_pickles(file: Path) -> None:
    """What torch.save wrote before version 1.6: pickles, and then the elements. No operation of theirs is done."""
    most = file.stat().st_size
    with file.open("rb") as content:
        for _ in range(4):  # a number, a version, the sizes of the system, and the object
            _check_pickle(content, most)


def _check_pickle(content: BinaryIO, most: int) -> None:
    """See that no storage that a pickle names has more elements than the file has bytes, nor anything else."""
    last: list[tuple[str, object]] = []
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in _SILENT:
            continue
        if operation.name == "GLOBAL" and str(argument).endswith(" bytearray"):  # of any length, in a few bytes
            raise ContainerError("it makes a bytearray, which no weights are")
        if operation.name in ("BINPERSID", "PERSID"):  # (…, number of elements) as a tuple; in old files None follows
            before = [each for each in last if each[0] not in ("NONE", "TUPLE")]
            size = before[-1][1] if before and before[-1][0] in _INTEGERS and last[-1][0] == "TUPLE" else None
            if not isinstance(size, int) or not 0 <= size <= most:
                raise ContainerError(f"it names a storage of {size} elements, more than the file has bytes")
        last = [*last[-2:], (operation.name, argument)]


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
