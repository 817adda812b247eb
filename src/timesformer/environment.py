"""What a report of a bug should say of where the program runs: `timesformer --version`."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from timesformer import __version__

_NEEDED = ("torch", "av", "numpy", "einops", "safetensors", "huggingface_hub")
_OPTIONAL = ("openvino", "onnxruntime", "transformers")


def describe() -> Iterator[str]:
    """Lines `name value`: this program, Python, the packages that matter, the machine; a broken one is said so."""
    yield f"timesformer {__version__}"
    yield f"python {platform.python_version()} ({platform.python_implementation()})"
    for name in (*_NEEDED, *_OPTIONAL):
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            if name in _NEEDED:
                yield f"{name} is not installed"
    yield f"platform {platform.platform()}"
    try:
        import torch
    except Exception as error:  # such as a library that it can't find
        yield f"torch can't be imported: {error}"
        return
    yield f"cpu {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    yield f"cuda {torch.version.cuda or 'none'}{': ' if devices else ''}{', '.join(devices)}"
