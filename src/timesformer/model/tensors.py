"""Tensors out of a file of any of the usual formats. Nothing in a file is ever run as code."""

from __future__ import annotations

import argparse
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from timesformer.model.containers import check_container

# Where the usual training programs put the weights in what they save.
_WRAPPERS = ("model_state", "state_dict", "model", "teacher")

# What reading bytes of the wrong kind ends in: the unpickler alone raises most of these.
_UNREADABLE = (
    RuntimeError, ValueError, EOFError, SafetensorError, zipfile.BadZipFile, LookupError, AttributeError, TypeError,
    AssertionError, struct.error, ArithmeticError, MemoryError, NotImplementedError, zlib.error,
)  # fmt: skip


class WeightsError(Exception):
    """Weights that cannot be read, or do not fit; the message names the file."""


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights in a file, and whatever else is in it.

    Args:
        file: safetensors, NumPy's npz, or what torch.save wrote: weights by name, alone or in a dictionary under
            `model_state`, `state_dict`, `model` or `teacher`.

    Raises:
        WeightsError: the file can't be read, holds no weights, or holds objects that only running code would restore.
    """
    try:
        check_container(file)
    except (ValueError, NotImplementedError) as error:
        raise WeightsError(f"{file}: not a file of weights, or damaged: {error}") from error
    except (OSError, zipfile.BadZipFile, *_UNREADABLE, pickle.UnpicklingError):
        pass  # reading it says what is wrong
    try:
        content = _read(file)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise WeightsError(
                f"{file}: refused: it holds {code[1]}, which only running it as code would restore, not weights alone"
            ) from error
        raise WeightsError(f"{file}: not a file of weights, or damaged") from error
    except OSError as error:
        raise WeightsError(f"{file}: not a file of weights, or damaged: {error.strerror or error}") from error
    except _UNREADABLE as error:
        raise WeightsError(f"{file}: not a file of weights, or damaged") from error
    about = content if isinstance(content, dict) else {}
    weights = _find_weights(content)
    if weights is None:
        raise WeightsError(f"{file}: no weights by name in it")
    check_tensors(file, weights)
    return weights, {name: value for name, value in about.items() if not isinstance(value, Tensor)}


def check_tensors(file: Path, weights: dict[str, Tensor]) -> None:
    """See that all elements of the weights are in the file, each of them once: a copy then needs no more than it has.

    Raises:
        WeightsError: a tensor has another layout, type or device than weights have, or repeats what is stored.
    """
    size, needed = file.stat().st_size, 0
    for name, value in weights.items():
        where = f"{file}: weight {name}: shape {tuple(value.shape)}"
        if value.layout is not torch.strided or value.is_quantized or value.is_nested:
            raise WeightsError(f"{where} is not a plain tensor")
        if value.device.type != "cpu":
            raise WeightsError(f"{where} is on the device {value.device.type}, which has no elements")
        if value.is_complex():
            raise WeightsError(f"{where} holds {str(value.dtype).removeprefix('torch.')}, not numbers")
        own = value.numel() * value.element_size()
        if own > value.untyped_storage().nbytes():
            raise WeightsError(f"{where} has fewer elements in the file than in its shape")
        needed += own
    if needed > 2 * size:  # some programs name a weight twice
        raise WeightsError(f"{file}: its weights need {needed} bytes, more than the file has")


def _find_weights(content: Any, depth: int = 4) -> dict[str, Tensor] | None:
    """The weights in what was loaded, or in the first of its parts with any; a Transformer's before others."""
    if not isinstance(content, dict) or not depth:
        return None
    found = [part for name in _WRAPPERS if (part := _find_weights(content.get(name), depth - 1))]
    if own := {str(name): value for name, value in content.items() if isinstance(value, Tensor)}:
        found.append(own)
    for part in found:
        if any(_is_named(name, "cls_token") for name in part):
            return part
    return found[0] if found else None


def _is_named(name: str, key: str) -> bool:
    return name == key or name.endswith(f".{key}")


def _read(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return load_file(file)
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    with torch.serialization.safe_globals([argparse.Namespace]):  # some keep their command line; it is but data
        return torch.load(file, map_location="cpu", weights_only=True)


# Weights beside a Transformer's own that its features do not depend on: heads, and parts of other tasks of training.
_OTHER_TASKS = re.compile(
    r"(head|head_dist|pre_logits|fc|classifier|pooler|lm_head|decoder\w*|(embeddings\.)?mask_token)(\.|$)"
)


def is_of_another_task(name: str) -> bool:
    """Whether a model's features are the same without this weight, as they are not without others."""
    return _OTHER_TASKS.match(name) is not None


def without_prefix(weights: dict[str, Tensor], key: str = "cls_token") -> dict[str, Tensor]:
    """The weights without what comes before `key` in their names, such as `model.` or `module.backbone.`."""
    prefix = next((name[: -len(key)] for name in weights if _is_named(name, key)), "")
    return {name.removeprefix(prefix): value for name, value in weights.items()}
