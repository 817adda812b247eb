"""Whether a model is what its configuration makes of it, layer by layer.

What rewrites a model reads the weights of its layers. An adapter, a hook or a layer of another kind in the place of one
would be left out without a word: such a model is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from timesformer.model.attention import Attention
from timesformer.model.layers import Linear
from timesformer.model.timesformer import DropPath, TimeSformer


def require_plain(model: TimeSformer) -> None:
    """See that a model's layers are those that its configuration makes, with nothing around or on them.

    Raises:
        ValueError: a layer is not; the message names the first.
    """
    for name, problem in _problems(model):
        raise ValueError(
            f"{name or 'the model'}: {problem}: a model with that can't be rewritten for inference or export: "
            "merge adapters into the weights, and remove hooks, first"
        )


def _problems(model: TimeSformer) -> Iterator[tuple[str, str]]:
    with torch.device("meta"):  # which takes no memory
        plain = dict(TimeSformer(model.config).named_modules(remove_duplicate=False))
    layers = dict(model.named_modules(remove_duplicate=False))
    for name, layer in layers.items():
        if name not in plain:
            yield name, f"{_described(layer)}, where the configuration makes nothing"
        elif (found := _described(layer)) != (expected := _described(plain[name])):
            yield name, f"{found}, where the configuration makes {expected}"
        if layer._forward_hooks or layer._forward_pre_hooks:
            yield name, "a hook, which may change what the layer is given or gives"
        if "forward" in vars(layer):
            yield name, "a `forward` of its own"
    for name in plain:
        if name not in layers:
            yield name, f"nothing, where the configuration makes {_described(plain[name])}"


def _described(layer: nn.Module) -> str:
    """The kind of a layer and what, beside its weights, it computes by."""
    kind: type[nn.Module] = nn.Linear if type(layer) is Linear else type(layer)
    if kind in (nn.Dropout, DropPath):  # which do nothing in inference
        return kind.__name__
    own = kind.__module__.startswith(("torch.", "timesformer."))
    name = kind.__name__ if own else f"{kind.__module__}.{kind.__qualname__}"
    details = f"{layer.num_heads} heads" if isinstance(layer, Attention) else layer.extra_repr()
    return f"{name}({details})"
