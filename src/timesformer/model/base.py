"""What training, evaluation and prediction ask of a video model, whatever its architecture."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from timesformer.files import replace_file, write_json
from timesformer.limits import check_clip_size, limit
from timesformer.ranges import Range, counts, shown

Config = TypeVar("Config", bound="VideoConfig")


@dataclass(frozen=True)
class VideoConfig:
    """What every video model has.

    Attributes:
        num_classes: outputs of the head; 0 leaves the head out, and the model returns its features.
        num_frames: frames F of a clip.
        image_size: height and width of a frame in pixels; one number for a square.
        in_channels: channels of a frame.
    """

    num_classes: int = 400
    num_frames: int = 8
    image_size: int | tuple[int, int] = 224
    in_channels: int = 3

    def __post_init__(self) -> None:
        if isinstance(self.image_size, list):  # as JSON and YAML bring it
            object.__setattr__(self, "image_size", tuple(self.image_size))
        sides = self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)
        side = counts(1, limit("MAX_IMAGE_SIZE"))
        if len(sides) != 2 or not all(side.holds(each) for each in sides):
            raise ValueError(f"image_size={shown(self.image_size)} must be one or two whole numbers up to {side.most}")
        frames, classes, width = limit("MAX_FRAMES"), limit("MAX_CLASSES"), limit("MAX_WIDTH")
        self.require(num_classes=counts(0, classes), num_frames=counts(1, frames), in_channels=counts(1, width))
        check_clip_size(self.num_frames, *sides)

    def require(self, **ranges: Range) -> None:
        """See that options are numbers in their ranges: ValueError."""
        for name, allowed in ranges.items():
            allowed.check(name, getattr(self, name))

    def require_parameters(self, count: float) -> None:
        """See that a model of about so many parameters may be made: ValueError."""
        if not count <= (most := limit("MAX_PARAMETERS")):
            raise ValueError(f"a model of {count:.2g} parameters: at most {most} (TIMESFORMER_MAX_PARAMETERS)")

    def require_clips(self, clips: Tensor) -> None:
        """See that clips are (B, in_channels, F, H, W) of floats, and one at least: ValueError."""
        if clips.ndim != 5 or clips.shape[1] != self.in_channels or not clips.shape[0]:
            expected = f"expected (B, {self.in_channels}, F, H, W) with B from 1 up"
            raise ValueError(f"clip of shape {tuple(clips.shape)}: {expected}")
        if not clips.is_floating_point():
            made = "Preprocessing.normalize"
            raise ValueError(f"clip of {clips.dtype}: expected normalised floats, as {made} gives")

    def replace(self: Config, **options: Any) -> Config:
        """A configuration with other values of some options; ValueError for one that does not exist."""
        known = [field.name for field in dataclasses.fields(self)]
        for option in options:
            if option not in known:
                raise ValueError(f"model option {option!r} is not one of {', '.join(known)}")
        return dataclasses.replace(self, **options)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size


class VideoModel(nn.Module):
    """A classifier of clips.

    Attributes:
        architecture: its name in `config.json`.
        config: what the model was made from.
        head: from features to logits.
        classes: names of the classes, one a logit, where known; saved with the model.
        multi_label: whether a video can have several of the classes: scores are then sigmoid, not softmax.
        preprocessing: how a video becomes this model's input, where known; saved with the model
            (see `timesformer.video.preprocessing.Preprocessing`).
        activation_checkpointing: recompute activations in the backward pass, step by step, instead of keeping them.
    """

    architecture: ClassVar[str]
    config: VideoConfig
    head: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.classes: tuple[str, ...] | None = None
        self.multi_label = False
        self.preprocessing: dict[str, Any] | None = None
        self.activation_checkpointing = False

    def forward(self, clip: Tensor) -> Tensor:
        """Logits (B, num_classes) of clips (B, in_channels, F, H, W) of normalised floats."""
        raise NotImplementedError

    def features(self, clip: Tensor) -> Tensor:
        """The input (B, D) of the last layer for clips (B, in_channels, F, H, W)."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` (model, classes, preprocessing) and `model.safetensors` into `folder`.

        An older file of the same name stays until the new one is complete. `timesformer.load_model` reads the folder.
        """
        about = {
            "architecture": self.architecture,
            "model": dataclasses.asdict(self.config),
            "classes": self.classes,
            "multi_label": self.multi_label,
            "preprocessing": self.preprocessing,
        }
        with replace_file(Path(folder) / "model.safetensors") as file:
            save_file({name: value.contiguous() for name, value in self.state_dict().items()}, file)
        write_json(Path(folder) / "config.json", about)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        run: str | Path | None = None,
        data: str | None = None,
        license: str | None = None,
        private: bool = False,
    ) -> str:
        """Upload the model, with a card, to the Hugging Face hub, where `timesformer.load_model(repo_id)` finds it.

        Args:
            repo_id: `owner/name`; the repository is made where there is none.
            run: folder of the model's run, for the card: recipe, figures and confusion matrix (see `model_card`).
            data: for the card: what the model was trained on, in a sentence.
            license: of the weights, as the hub names licences (`apache-2.0`, `cc-by-nc-4.0`).
            private: whether a new repository is for its owner alone.

        Returns:
            The address of its page.

        Raises:
            ValueError, PermissionError, ConnectionError: as `timesformer.model.hub.upload`.
            WeightsError: a file of the run can't be read.
        """
        from timesformer.model.card import evaluation_folder, model_card
        from timesformer.model.hub import upload

        run = Path(run) if run else None
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            self.save_pretrained(folder)
            card = model_card(self, repo_id, run=run, data=data, license=license)
            (folder / "README.md").write_text(card, encoding="utf-8")
            picture = ((run and evaluation_folder(run)) or folder) / "confusion.png"
            if picture.is_file():
                shutil.copy(picture, folder)
            return upload(folder, repo_id, private=private)


class FrozenModel(VideoModel):
    """A model that was rewritten for inference: what it says of itself is the model's that it was made from.

    Attributes:
        made_of: a name for that model and the kind of this one, see `digest`.
    """

    made_of = ""

    def __init__(self, model: VideoModel) -> None:
        super().__init__()
        self.config = model.config
        self.classes, self.multi_label, self.preprocessing = model.classes, model.multi_label, model.preprocessing

    def save_pretrained(self, folder: str | Path) -> None:
        """Not for such a model: ValueError."""
        raise ValueError(f"{folder}: a model that was prepared for inference can't be saved: save the one it is of")


def digest(model: VideoModel) -> str:
    """A name for a model by all that makes its answers: weights, configuration, preprocessing, classes and scores.

    One that was prepared has that of the model it was made from, and how. Models that differ in any of it have others.
    """
    if isinstance(model, FrozenModel) and model.made_of:
        return model.made_of
    about = {
        "architecture": model.architecture, "model": dataclasses.asdict(model.config), "classes": model.classes,
        "multi_label": model.multi_label, "preprocessing": model.preprocessing,
    }  # fmt: skip
    sha = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())  # JSON: as it is, or as stored
    for name, value in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return sha.hexdigest()
