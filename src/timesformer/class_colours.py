"""The colour of a class: the same in all pictures and pages of a model, whichever classes they show."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

_PALETTE = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
    "#393b79", "#637939", "#8c6d31", "#843c39", "#7b4173", "#3182bd", "#e6550d", "#31a354", "#756bb1", "#b5a200",
)  # fmt: skip


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """A colour `#rrggbb` for each class of a model, by its name.

    The place in the palette is a digest of the name; where another class has it, the next one that is free. So in
    models of up to 20 classes no two have the same.
    """
    colours: dict[str, str] = {}
    free = set(_PALETTE)
    for name in sorted(classes):
        place = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:4], "big")
        order = [_PALETTE[(place + step) % len(_PALETTE)] for step in range(len(_PALETTE))]
        free = free or set(_PALETTE)
        colours[name] = next(colour for colour in order if colour in free)
        free.discard(colours[name])
    return colours
