"""How transformers prepares frames for a model, in the words of our `Preprocessing`; and back.

A folder of theirs says so in `preprocessor_config.json` or, from newer versions, `video_preprocessor_config.json` or
`processor_config.json`. What a file asks for is done as transformers does it, or refused by the setting's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from timesformer.documents import read_json
from timesformer.model.tensors import WeightsError
from timesformer.video.preprocessing import Preprocessing

PROCESSOR_FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")

_USUAL = {
    "do_resize": True, "size": {"shortest_edge": 224}, "resample": 2,
    "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
}  # fmt: skip
_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# What the processors of video models take where a file leaves it out.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "VideoMAEFeatureExtractor": {**_USUAL, **_HALF},
    "VideoMAEImageProcessor": {**_USUAL, **_HALF},
    "VideoMAEVideoProcessor": {**_USUAL, **_HALF},
    "TimesformerVideoProcessor": {**_USUAL, **_IMAGENET},
    "VivitImageProcessor": {
        **_USUAL, **_HALF, "size": {"shortest_edge": 256}, "rescale_factor": 1 / 127.5, "offset": True
    },
    "VivitVideoProcessor": {
        **_USUAL, **_HALF, "size": {"shortest_edge": 256}, "rescale_factor": 1 / 127.5, "offset": True
    },
}  # fmt: skip
_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # by Pillow's numbers
# Settings that change nothing here: frames are RGB already, and are chosen by the stride.
_HARMLESS = {
    "data_format", "default_to_square", "device", "disable_grouping", "do_convert_rgb", "feature_extractor_type", "fps",
    "image_processor_type", "input_data_format", "model_input_names", "num_frames", "processor_class",
    "return_metadata", "return_tensors", "video_processor_type",
}  # fmt: skip


def read_processor(folder: Path, patch_size: int) -> dict[str, Any] | None:
    """What the processor files in a folder say, as fields of `Preprocessing`; None where there are none.

    Raises:
        WeightsError: a file can't be read, asks for what is not done here, or two of them differ.
    """
    first: tuple[str, dict[str, Any]] | None = None
    for where, content in _processors(folder):
        fields = _fields(where, content, patch_size)
        if first and fields != first[1]:
            name = next(name for name in fields if fields[name] != first[1][name])
            raise WeightsError(
                f"{where}: its {name} is {fields[name]}, in {first[0]} {first[1][name]}: remove the file that is wrong"
            )
        first = first or (where, fields)
    return first[1] if first else None


def _processors(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in PROCESSOR_FILES:
        if not (folder / name).is_file():
            continue
        try:
            content = read_json(folder / name)
        except (OSError, ValueError) as error:
            raise WeightsError(f"{folder / name}: can't be read: {error}") from error
        if not isinstance(content, dict):
            raise WeightsError(f"{folder / name}: is not a mapping of settings")
        if name != "processor_config.json":
            yield str(folder / name), content
            continue
        for part in ("video_processor", "image_processor"):
            if isinstance(nested := content.get(part), dict):
                yield f"{folder / name} ({part})", nested


def _fields(where: str, content: dict[str, Any], patch_size: int) -> dict[str, Any]:
    settings = _complete(where, content)

    def refuse(name: str, allowed: str) -> WeightsError:
        return WeightsError(f"{where}: {name}={settings.get(name)!r} is not done here: {allowed}")

    for name, value in settings.items():
        if name not in _USUAL and name not in _HALF and name not in _HARMLESS and value not in (None, False):
            raise refuse(name, "only settings of transformers' processors of video models are known")
    if settings["do_resize"] is not True:
        raise refuse("do_resize", "it must be true")
    side, squeezed = _side(settings["size"], refuse)
    crop = side
    if settings["do_center_crop"]:
        crop, is_square = _side(settings["crop_size"], lambda name, allowed: refuse("crop_size", allowed))
        if not is_square and not isinstance(settings["crop_size"], int):
            raise refuse("crop_size", "it must be a height and a width, the same")
        if crop > side:
            raise refuse("crop_size", f"it must not be larger than size={settings['size']}, as frames would be padded")
    elif not squeezed:
        raise refuse("do_center_crop", f"with size={settings['size']} it must be true, as frames are squares here")
    if crop % patch_size:
        raise refuse("crop_size" if settings["do_center_crop"] else "size", f"no multiple of patch_size={patch_size}")
    if settings["resample"] not in _INTERPOLATIONS:
        raise refuse("resample", "it must be 2 (bilinear) or 3 (bicubic)")
    mean, std = _normalisation(settings, refuse)
    return {
        "image_size": crop, "short_side": None if side == crop else side, "keep_aspect": not squeezed,
        "interpolation": _INTERPOLATIONS[settings["resample"]], "mean": mean, "std": std,
    }  # fmt: skip


def _complete(where: str, content: dict[str, Any]) -> dict[str, Any]:
    """The settings of a file, with what it leaves out as the class that it names has it."""
    types = ("video_processor_type", "image_processor_type", "feature_extractor_type")
    kind = next((content[name] for name in types if content.get(name)), None)
    plain = str(kind).removesuffix("Fast").removesuffix("Pil")
    if kind is not None and plain not in _DEFAULTS:
        raise WeightsError(f"{where}: a {kind}, which is not one of {', '.join(_DEFAULTS)}")
    settings = {**_DEFAULTS.get(plain, {}), **content}
    if kind is None:  # settings that have been the same in all of them
        settings = {"do_rescale": True, "rescale_factor": 1 / 255, **settings}
    for name in (*_USUAL, *_HALF):
        if settings.get(name) is None:
            raise WeightsError(f"{where}: it does not say {name}, nor of which class it is")
    return settings


def _side(size: Any, refuse: Any) -> tuple[int, bool]:
    """A side in pixels, and whether both sides of a frame become that long."""
    if isinstance(size, int) and not isinstance(size, bool):  # as old files have it
        size = {"shortest_edge": size}
    given = {name: value for name, value in size.items() if value is not None} if isinstance(size, dict) else {}
    sides = set(given.values())
    if given.keys() not in ({"shortest_edge"}, {"height", "width"}) or len(sides) != 1:
        raise refuse("size", "it must be a shortest_edge, or a height and a width that are the same")
    side = sides.pop()
    if not isinstance(side, int) or isinstance(side, bool) or side < 1:
        raise refuse("size", "it must be whole numbers from 1 up")
    return side, "height" in given


def _normalisation(settings: dict[str, Any], refuse: Any) -> tuple[list[float], list[float]]:
    """Mean and std of each colour such that (v / 255 - mean) / std is what rescaling and normalising make of v."""
    factor = settings["rescale_factor"] if settings["do_rescale"] else 1.0
    if not _is_number(factor) or factor <= 0:
        raise refuse("rescale_factor", "it must be a number above 0")
    values = []
    for name, neutral in (("image_mean", 0.0), ("image_std", 1.0)):
        value = settings[name] if settings["do_normalize"] else neutral
        three = [value] * 3 if _is_number(value) else value
        if not isinstance(three, list) or len(three) != 3 or not all(_is_number(each) for each in three):
            raise refuse(name, "it must be three numbers, or one")
        values.append([round(each / (255 * factor), 12) for each in three])  # 0.45, not 0.45000000000000001
    mean, std = values
    if min(std) <= 0:
        raise refuse("image_std", "it must be above 0")
    return mean, std


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def to_processor(preprocessing: Preprocessing) -> dict[str, Any]:
    """The content of a preprocessor_config.json by which transformers prepares frames in the same way."""
    side, crop = preprocessing.scaled_side, preprocessing.image_size
    numbers = {name: number for number, name in _INTERPOLATIONS.items()}
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side} if preprocessing.keep_aspect else {"height": side, "width": side},
        "resample": numbers[preprocessing.interpolation],
        "do_center_crop": True, "crop_size": {"height": crop, "width": crop},
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": list(preprocessing.mean), "image_std": list(preprocessing.std),
    }  # fmt: skip
