"""What the configuration (`cfg`) in a checkpoint of the authors' code says of a model's frames; and back.

Their data sets read frames in different ways: `kinetics` RGB clips, `ssv2` BGR frames of equal parts of the video.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from timesformer.model.tensors import WeightsError
from timesformer.video.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

_FPS = 30  # of the videos that a stride in frames is meant for, as in the authors' code
_KINETICS = {"sampling": "clip", "colour": "RGB"}
_DATA_SETS = {"kinetics": _KINETICS, "ssv2": {"sampling": "segments", "colour": "BGR"}}


def is_multi_label(source: str, data: dict[str, Any]) -> bool:
    """Whether a video can have several of the classes. May raise WeightsError."""
    value = data.get("MULTI_LABEL", False)
    if not isinstance(value, bool):
        raise WeightsError(f"{source}: its cfg: DATA.MULTI_LABEL={value!r} must be true or false")
    return value


def preprocessing_of(source: str, cfg: dict[str, Any], patch_size: int) -> dict[str, Any] | None:
    """Fields of `Preprocessing`, as far as a configuration says them; None where it says nothing.

    Raises:
        WeightsError: a value that is not allowed.
    """
    data, train = cfg.get("DATA") or {}, cfg.get("TRAIN") or {}
    fields: dict[str, Any] = {}
    if data.get("SAMPLING_RATE") is not None:
        rate, fps = (_above_zero(source, data, name, _FPS) for name in ("SAMPLING_RATE", "TARGET_FPS"))
        fields["stride"] = rate * _FPS / fps
    for name, field in (("MEAN", "mean"), ("STD", "std")):
        if name in data:
            fields[field] = _three_numbers(source, name, data[name])
    if side := data.get("TEST_CROP_SIZE"):
        if not isinstance(side, int) or side < 1 or side % patch_size:
            raise WeightsError(
                f"{source}: its cfg: DATA.TEST_CROP_SIZE={side!r} must be a multiple of the patch size {patch_size}"
            )
        fields["image_size"] = side
    if train.get("DATASET"):
        known = _DATA_SETS.get(str(train["DATASET"]).lower())
        if known is None:
            logger.warning(
                "%s: its cfg: TRAIN.DATASET=%r is neither kinetics nor ssv2: taken to be RGB frames at a stride",
                source, train["DATASET"],
            )  # fmt: skip
        fields |= known or _KINETICS
    for name, allowed in (("colour", ("RGB", "BGR")), ("sampling", ("clip", "segments"))):  # as we write them
        key = f"TIMESFORMER_{name.upper()}"
        if (value := data.get(key)) is not None:
            if value not in allowed:
                raise WeightsError(f"{source}: its cfg: DATA.{key}={value!r} is not one of {', '.join(allowed)}")
            fields[name] = value
    return fields or None


def _above_zero(source: str, data: dict[str, Any], name: str, usual: float) -> float:
    value = data.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise WeightsError(f"{source}: its cfg: DATA.{name}={value!r} must be a number above 0")
    return float(value)


def _three_numbers(source: str, name: str, value: Any) -> list[float]:
    allowed = "three numbers above 0" if name == "STD" else "three numbers"
    numbers = value if isinstance(value, list) and len(value) == 3 else []
    good = [each for each in numbers if isinstance(each, int | float) and math.isfinite(each)]
    if len(good) != 3 or (name == "STD" and min(good) <= 0):
        raise WeightsError(f"{source}: its cfg: DATA.{name}={value!r} must be {allowed}")
    return [float(each) for each in good]


def cfg_of(said: dict[str, Any] | None, image_size: int) -> tuple[dict[str, Any], str]:
    """Entries of `DATA`, and the data set, by which the authors' code prepares frames as a model's preprocessing does.

    What their configuration has no words for is logged as a warning.
    """
    preprocessing = Preprocessing(**{"image_size": image_size, **(said or {})})
    data: dict[str, Any] = {
        "TEST_CROP_SIZE": preprocessing.image_size,
        "MEAN": list(preprocessing.mean), "STD": list(preprocessing.std),
    }  # fmt: skip
    if said:
        data |= {"SAMPLING_RATE": preprocessing.stride, "TARGET_FPS": _FPS}
    dataset = "ssv2" if preprocessing.sampling == "segments" else "kinetics"
    unknown = []
    if preprocessing.colour != _DATA_SETS[dataset]["colour"]:
        data["TIMESFORMER_COLOUR"] = preprocessing.colour
        unknown.append("colour")
    if preprocessing.scaled_side != preprocessing.image_size:
        unknown.append("short_side")
    unknown += [name for name in ("keep_aspect", "interpolation") if getattr(preprocessing, name) != _PLAIN[name]]
    for name in unknown:
        logger.warning(
            "the authors' code does not know %s=%r: frames are to be given so", name, getattr(preprocessing, name)
        )
    return data, dataset


_PLAIN = Preprocessing().to_dict()
