"""Files of tensors, looked at before they are loaded: none may need more memory than it has bytes, and a little."""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from timesformer.limits import limit

_INTEGERS = ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG")
_SILENT = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")  # operations that leave the stack of a pickle as it is


def check_container(file: Path) -> None:
    """See that a file of weights holds what it says, and unpacks to no more than the limits allow.

    Raises:
        ValueError: it does not; the message has no name in it.
        OSError, zipfile.BadZipFile: it can't be read.
    """
    if file.suffix == ".npz":
        _check_arrays(file)
    elif file.suffix != ".safetensors":  # whose header is compared with its length by who reads it
        if zipfile.is_zipfile(file):
            _check_archive(file)
        else:
            _check_pickles(file)


def _check_archive(file: Path) -> None:
    """What torch.save writes: an archive whose parts are stored as they are."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its parts are compressed, which PyTorch never writes")
    if (needed := sum(entry.file_size for entry in entries)) > file.stat().st_size:
        raise ValueError(f"its parts need {needed} bytes, more than the file has")


def _check_arrays(file: Path) -> None:
    """NumPy's archive: each array must have the bytes that its shape needs."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        most = file.stat().st_size + limit("MAX_UNPACKED_BYTES")
        if (needed := sum(entry.file_size for entry in entries)) > most:
            raise ValueError(f"its arrays unpack to {needed} bytes (TIMESFORMER_MAX_UNPACKED_BYTES)")
        for entry in entries:
            with archive.open(entry) as part:
                version = np.lib.format.read_magic(part)
                read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(part)
            if _product(shape) * dtype.itemsize > entry.file_size:
                raise ValueError(f"{entry.filename.removesuffix('.npy')}: the file ends before its shape {shape} does")


def _check_pickles(file: Path) -> None:
    """What torch.save wrote before version 1.6: pickles, and then the elements. No operation of theirs is done."""
    most = file.stat().st_size
    with file.open("rb") as content:
        for _ in range(4):  # a number, a version, the sizes of the system, and the object
            _check_storages(content, most)


def _check_storages(content: BinaryIO, most: int) -> None:
    """See that no storage that a pickle names has more elements than the file has bytes."""
    last: list[tuple[str, object]] = []
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name in _SILENT:
                continue
            if operation.name == "BINPERSID":  # (…, number of elements, None) as a tuple
                names = [name for name, _ in last]
                size = last[-3][1] if names[1:] == ["NONE", "TUPLE"] and names[0] in _INTEGERS else None
                if not isinstance(size, int) or not 0 <= size <= most:
                    raise ValueError(f"it names a storage of {size} elements, more than the file has bytes")
            last = [*last[-2:], (operation.name, argument)]
    except (UnicodeDecodeError, AttributeError, IndexError, TypeError) as error:
        raise pickle.UnpicklingError("not a pickle") from error


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
