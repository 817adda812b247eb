"""How much a file from somebody else may ask of this machine. Each limit can be raised by an environment variable.

`TIMESFORMER_MAX_PIXELS=1000000000` raises `MAX_PIXELS` for a command and all its processes; `docs/security.md` lists
the limits. They stand far above what real files need, so that only broken or hostile files meet them.
"""

from __future__ import annotations

import os

_USUAL = {
    "MAX_PIXELS": 100_000_000,  # of a frame as it is stored: 8K video has 33 million
    "MAX_DOCUMENT_BYTES": 64 * 2**20,  # of a model's configuration and other JSON
    "MAX_YAML_BYTES": 2**20,  # of a recipe and other YAML
    "MAX_DOCUMENT_VALUES": 4_000_000,  # in one JSON or YAML document, its YAML aliases written out
    "MAX_DOCUMENT_DEPTH": 64,  # of lists and mappings inside each other
}


def limit(name: str) -> int:
    """The limit of this name: the environment's `TIMESFORMER_<name>`, or else the usual one.

    Raises:
        ValueError: the environment variable is not a whole number from 1 up.
    """
    variable = f"TIMESFORMER_{name}"
    text = os.environ.get(variable)
    if text is None:
        return _USUAL[name]
    if not (text.isascii() and text.isdigit()) or not int(text[:19]) >= 1 or len(text) > 18:
        raise ValueError(f"{variable}={text!r} must be a whole number from 1 up, of at most 18 digits")
    return int(text)
