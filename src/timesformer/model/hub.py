"""Files from and to the Hugging Face hub, and the published TimeSformers by short names."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from timesformer.model.tensors import WeightsError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """One of the authors' trained models, all with divided attention at the base model's width and depth.

    Attributes:
        file: name of the authors' file; it ends in that of the data set.
        repository: where it is on the Hugging Face hub, as far as it is there.
        num_frames, image_size: frames F of a clip, and their side in pixels.
        stride: source frames from one frame of a clip to the next; of no matter with `segments`.
        sampling: `clip` or `segments`, as in `timesformer.video.preprocessing.Preprocessing`.
        top1: accuracy in percent, as the authors report it.
    """

    file: str
    repository: str | None
    num_frames: int
    image_size: int
    stride: int
    sampling: str
    top1: float

    @property
    def data(self) -> str:
        """The data set that it was trained on."""
        return self.file.removesuffix(".pyth").rsplit("_", 1)[1]

    @property
    def colour(self) -> str:
        """Order of a pixel's colours in training: that for Something-Something-V2 read its frames the other way."""
        return "BGR" if self.sampling == "segments" else "RGB"

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What of `timesformer.video.preprocessing.Preprocessing` its files do not say themselves."""
        return {"stride": float(self.stride), "sampling": self.sampling, "colour": self.colour}


def _catalogue() -> dict[str, Published]:
    found = {}
    for data, base, hr, long in (("K400", 77.9, 79.6, 80.6), ("K600", 79.1, 81.8, 82.2)):
        for name, clip, frames, stride, side, top1 in (
            ("base", "8x32_224", 8, 32, 224, base),
            ("hr", "16x16_448", 16, 16, 448, hr),
            ("long", "96x4_224", 96, 4, 224, long),
        ):
            repository = None if name == "long" else f"facebook/timesformer-{name}-finetuned-{data.lower()}"
            file = f"TimeSformer_divST_{clip}_{data}.pyth"
            found[f"timesformer_{name}_{data.lower()}"] = Published(
                file, repository, frames, side, stride, "clip", top1
            )
    for name, frames, side, top1 in (("base", 8, 224, 59.1), ("hr", 16, 448, 61.8), ("long", 64, 224, 62.0)):
        repository = None if name == "long" else f"facebook/timesformer-{name}-finetuned-ssv2"
        file = f"TimeSformer_divST_{frames}_{side}_SSv2.pyth"
        found[f"timesformer_{name}_ssv2"] = Published(file, repository, frames, side, 32, "segments", top1)
    for frames, top1 in ((8, 56.8), (32, 61.2), (64, 62.2), (96, 62.6)):
        file = f"TimeSformer_divST_{frames}x32_224_HowTo100M.pyth"
        found[f"timesformer_{frames}f_howto100m"] = Published(file, None, frames, 224, 32, "clip", top1)
    return found


CATALOGUE = _catalogue()
_CLASSES = {"K400": 400, "K600": 600, "SSv2": 174}


def published(source: str | Path) -> Published | None:
    """The entry of the catalogue with this short name or hub id, or that this file has the name of."""
    text = str(source)
    for name, entry in CATALOGUE.items():
        if text in (name, entry.repository) or (Path(text).name == entry.file and Path(text).is_file()):
            return entry
    return None


def published_copy(folder: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """The `preprocessing` of the published model of which a folder is a copy, which its files do not tell; or None.

    A copy is known by the name in its config.json (`about`) or, where that names no published model, by that of the
    folder, as `git clone` and the hub's cache name it; and it has that model's number of classes and sizes of clips.
    What is taken to be a copy by a name, and what only looks like one, is logged as a warning.
    """
    parts = folder.absolute().parts
    cached = parts[-3] if len(parts) > 2 and parts[-2] == "snapshots" else None
    origin = str(about.get("_name_or_path", ""))
    names = {origin} if origin in {entry.repository for entry in CATALOGUE.values()} else {parts[-1]}
    sizes = (len(about.get("id2label") or {}), about.get("num_frames"), about.get("image_size"))
    for entry in CATALOGUE.values():
        if not entry.repository or sizes != (_CLASSES[entry.data], entry.num_frames, entry.image_size):
            continue
        if cached == f"models--{entry.repository.replace('/', '--')}":
            return entry.preprocessing
        if {entry.repository, entry.repository.split("/")[1]} & names:
            logger.warning("%s: taken to be a copy of %s: %s", folder, entry.repository, entry.preprocessing)
            return entry.preprocessing
        if entry.colour != "RGB":
            logger.warning(
                '%s: of the classes and sizes of %s: if it is a copy, put "preprocessing": %s into its config.json',
                folder, entry.repository, json.dumps(entry.preprocessing),
            )  # fmt: skip
    return None


def looks_like_hub_id(source: str | Path) -> bool:
    """Whether a text has the form `owner/name`, and no file or folder has that name."""
    owner, slash, name = str(source).partition("/")
    return bool(slash and owner.strip(".~") and name and "/" not in name) and not Path(source).exists()


def fetch_weights(source: str | Path, names: Sequence[str]) -> Path:
    """The first of some files of what may be the id of a model, where there is no such file here.

    Raises:
        WeightsError: it is no id, or as `download`.
    """
    if Path(source).exists() or not looks_like_hub_id(source):
        raise WeightsError(f"{source}: no such file or folder, nor the id of a model on the hub (owner/name)")
    return download(str(source), names)


class MissingFile(WeightsError):
    """A repository, or the cache of it, has none of the files."""


def download_all(repository: str, names: Sequence[str]) -> list[Path]:
    """Those of some files that a repository on the hub has; from the cache if the hub can't be reached.

    Raises:
        WeightsError: no such repository, or a file that is there can't be downloaded.
    """
    there = []
    for name in names:
        try:
            there.append(download(repository, [name]))
        except MissingFile:
            continue
    return there


def download(repository: str, names: Sequence[str]) -> Path:
    """The first of some files that a repository on the hub has; from the cache if the hub can't be reached.

    Raises:
        WeightsError: no such repository, none of the files in it, or no network and nothing in the cache.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    # Without this look ahead, the library tries for 23 seconds before it says that there is no network.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are no news
    offline = constants.HF_HUB_OFFLINE or not _reachable(constants.ENDPOINT)
    for name in names:
        try:
            return Path(hf_hub_download(repository, name, local_files_only=offline))
        except LocalEntryNotFoundError as error:
            if not offline:
                reason = str(error).splitlines()[0]
                raise WeightsError(f"{repository}: {name} can't be downloaded: {reason}") from error
        except EntryNotFoundError:
            continue
        except GatedRepoError as error:
            raise WeightsError(
                f"{repository}: {constants.ENDPOINT} gives it to those alone who were granted access and are logged in"
            ) from error
        except RepositoryNotFoundError as error:
            raise WeightsError(
                f"{repository}: no file or folder here, nor a public repository on {constants.ENDPOINT}"
            ) from error
        except Exception as error:  # the library lets those of its HTTP client through
            reason = _first_line(error)
            raise WeightsError(
                f"{repository}: {name} can't be downloaded from {constants.ENDPOINT}: {reason}"
            ) from error
    wanted = " or ".join(names)
    if offline:
        raise MissingFile(
            f"{repository}: no file or folder here, nor in the cache of downloads, and {constants.ENDPOINT} "
            f"can't be reached to get {wanted}"
        )
    raise MissingFile(f"{repository}: there is no {wanted} in this repository on {constants.ENDPOINT}")


def upload(folder: Path, repository: str, *, private: bool = False) -> str:
    """Put the files of a folder into a repository on the hub, which is made where there is none.

    Args:
        folder: what to upload.
        repository: `owner/name`.
        private: whether a new repository is for its owner alone.

    Returns:
        The address of its page.

    Raises:
        ValueError: an id that the hub does not take.
        PermissionError: nobody is logged in, or it is not theirs to write.
        ConnectionError: the hub can't be reached, or does not take it.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    if repository.count("/") != 1:
        raise ValueError(f"{repository}: not the id of a repository, which is owner/name")
    if constants.HF_HUB_OFFLINE or not _reachable(constants.ENDPOINT):
        raise ConnectionError(f"{repository}: not uploaded: {constants.ENDPOINT} can't be reached")
    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload model")
    except HFValidationError as error:
        raise ValueError(f"{repository}: {_first_line(error)}") from error
    except LocalTokenNotFoundError as error:
        raise PermissionError(f"{repository}: not uploaded: log in first (hf auth login), or set HF_TOKEN") from error
    except Exception as error:  # the library lets those of its HTTP client through
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            who = "log in first (hf auth login), or set HF_TOKEN, as one who may write there"
            raise PermissionError(f"{repository}: not uploaded: {who}") from error
        raise ConnectionError(f"{repository}: not uploaded to {constants.ENDPOINT}: {_first_line(error)}") from error
    return f"{constants.ENDPOINT}/{repository}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _reachable(endpoint: str) -> bool:
    if any(name.lower() in ("https_proxy", "http_proxy", "all_proxy") for name in os.environ):
        return True  # by way of the proxy, for all that can be said from here
    url = urlsplit(endpoint)
    try:
        with socket.create_connection((url.hostname or "", url.port or (80 if url.scheme == "http" else 443)), 5):
            return True
    except OSError:
        return False
