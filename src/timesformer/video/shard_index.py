"""The index of a folder of shards, which may come from somebody else: what in it is as it must be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

LONGEST_NAME = 4096  # characters of a path
_SPLITS = ("", "train", "val", "test")
_SHARD = re.compile(r"\w[\w.+-]*\.tar")  # a file in the same folder: nothing that leads elsewhere
_SUFFIX = re.compile(r"\.[\w+~-]{1,32}")
_LARGEST = 2**62  # bytes: no file has more


@dataclass(frozen=True)
class Head:
    """What an index says of all videos, and the entries, unchecked.

    Attributes:
        classes: names of the classes.
        multi_label: whether a video may have several.
        entries: what the index has for each video: whatever it is.
        splits: those that its entries have.
        names: of the classes, to be looked up.
    """

    classes: tuple[str, ...]
    multi_label: bool
    entries: tuple[Any, ...]
    splits: frozenset[str]
    names: frozenset[str]

    @classmethod
    def of(cls, index: Any) -> Head:
        """Check the head of an index; raises ValueError if it is none."""
        if not isinstance(index, dict) or (lacking := {"classes", "multi_label", "videos"} - index.keys()):
            raise ValueError(f"lacks {', '.join(sorted(lacking))}" if isinstance(index, dict) else "is no object")
        classes, multi_label, videos = index["classes"], index["multi_label"], index["videos"]
        if not _is_names(classes) or len(set(classes)) < len(classes):
            raise ValueError("`classes` must be a list of names, each once")
        if not isinstance(multi_label, bool):
            raise ValueError(f"`multi_label` must be true or false, not {_short(multi_label)}")
        if not isinstance(videos, list):
            raise ValueError("`videos` must be a list of objects")
        splits = frozenset(split for entry in videos if (split := _split(entry)) is not None)
        return cls(tuple(classes), multi_label, tuple(videos), splits, frozenset(classes))

    def fault(self, entry: Any) -> str:
        """What is wrong with an entry; "" if nothing is."""
        if not isinstance(entry, dict):
            return f"its entry in the index is no object but {_short(entry)}"
        for name, is_right, allowed in _FIELDS:
            if name not in entry:
                return f"its entry in the index lacks `{name}`"
            if not is_right(entry[name]):
                return f"its entry in the index has {name}={_short(entry[name])}; allowed: {allowed}"
        if unknown := next((label for label in entry["labels"] if label not in self.names), None):
            return f"its entry in the index has the label {_short(unknown)}, which is no class"
        if len(entry["labels"]) > 1 and not self.multi_label:
            return f"its entry in the index has {len(entry['labels'])} labels; the others have one"
        if not entry["split"] and self.splits != {""}:
            return "its entry in the index has no split; others have one"
        return ""

    def labels(self, entry: Any) -> tuple[str, tuple[str, ...]]:
        """The split and the labels of an entry; those of a wrong one as far as they can be had."""
        known = "" if self.splits <= {""} else min(self.splits - {""})
        split = _split(entry)
        labels = entry.get("labels") if isinstance(entry, dict) else ()
        names = labels if isinstance(labels, list) else ()
        return split or known, tuple(name for name in names if isinstance(name, str) and name in self.names)


def names_shard(entry: dict[str, Any]) -> bool:
    """Whether an entry names a shard in the folder of the index."""
    return isinstance(shard := entry.get("shard"), str) and _SHARD.fullmatch(shard) is not None


def _split(entry: Any) -> str | None:
    split = entry.get("split") if isinstance(entry, dict) else None
    return split if isinstance(split, str) and split in _SPLITS else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_path(value: Any) -> bool:
    is_text = isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and "\0" not in value
    return is_text and value.rsplit("/", 1)[-1] not in ("", ".", "..")


_FIELDS = (
    ("shard", lambda value: names_shard({"shard": value}), "a .tar file in the same folder"),
    ("offset", _is_count, "a number of bytes from 0 up"),
    ("size", _is_count, "a number of bytes from 0 up"),
    ("path", _is_path, f"the path of a file, of at most {LONGEST_NAME} characters"),
    ("suffix", lambda value: isinstance(value, str) and _SUFFIX.fullmatch(value), "a suffix such as .mp4"),
    ("split", lambda value: isinstance(value, str) and value in _SPLITS, "train, val, test, or none"),
    ("labels", _is_names, "a list of names"),
)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
