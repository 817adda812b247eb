"""The header line of a list of videos: which column is which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timesformer.class_names import some
from timesformer.video.items import DataError

# Names of columns in lower case without blanks, dashes and underscores. Of several columns that may be the path, one
# of the first line below counts; and so on.
_PATHS = (
    ("path", "videopath", "filepath", "clippath", "videofilepath", "fullpath", "relativepath", "relpath"),
    ("file", "filename", "videofile", "videofilename", "clipfile", "clipfilename"),
    ("video", "videoname", "clip", "clipname", "name"),
    ("videoid", "clipid", "id", "url", "videourl", "link"),
)
_LABELS = (
    ("label", "labels"),
    (
        "labelname", "labelnames", "class", "classes", "classname", "classlabel", "category", "categoryname", "action",
        "actionname", "actionlabel", "activity", "tag", "tags", "target", "targets",
    ),
    (
        "labelid", "labelids", "labelindex", "labelindices", "labelidx", "classid", "classindex", "classidx",
        "categoryid", "actionid", "actionindex", "activityid", "targetid",
    ),
)  # fmt: skip
_SPLIT = ("split", "subset", "set", "partition")
_SPANS = (
    "start", "end", "stop", "begin", "timestart", "timeend", "starttime", "endtime", "tstart", "tend", "startsec",
    "endsec", "startseconds", "endseconds", "startframe", "endframe", "stopframe", "framestart", "frameend",
    "starttimestamp", "stoptimestamp", "endtimestamp",
)  # fmt: skip
_FRAMES = ("frameid", "framepath", "originalvidoid")  # of lists with a line for each frame
_INDEX = ("", "unnamed:0", "index", "rowindex")  # as pandas writes the number of a row
_PATH_NAMES = {name for names in _PATHS for name in names}
_LABEL_NAMES = {name for names in _LABELS for name in names}
_KNOWN = _PATH_NAMES | _LABEL_NAMES | {*_SPLIT, *_SPANS, *_FRAMES, *_INDEX}


@dataclass(frozen=True)
class Columns:
    """Where a list has what: numbers of its columns.

    Attributes:
        names: of all columns, as the header has them.
        separator: between fields; " " for blanks.
        label, split: None where there is no such column.
    """

    names: tuple[str, ...]
    separator: str
    path: int
    label: int | None
    split: int | None

    @property
    def is_path_label(self) -> bool:
        """Whether lines are `path label`, as they are without a header."""
        return (self.path, self.label, len(self.names)) == (0, 1, 2)

    def note(self, file: Path) -> str:
        """Which column was taken for what."""
        parts = [f"path = {self.names[self.path]!r}"]
        if self.label is not None:
            parts.append(f"label = {self.names[self.label]!r}")
        if self.split is not None:
            parts.append(f"split = {self.names[self.split]!r}")
        used = (self.path, self.label, self.split)
        others = [name or "(without a name)" for at, name in enumerate(self.names) if at not in used]
        not_used = f"; not used: {', '.join(others)}" if others else ""
        return f"{file}: columns by its header: {', '.join(parts)}{not_used}"


def is_known(cell: str) -> bool:
    """Whether a field is the usual name of some column."""
    return _plain(cell) in _KNOWN


def is_header(cells: Sequence[str]) -> bool:
    """Whether the fields of a line name the columns for path and label, or path alone."""
    names = [_plain(cell) for cell in cells]
    if len(names) == 1:
        return names[0] in _PATH_NAMES
    has_path = any(name in _PATH_NAMES for name in names)
    return has_path and (any(name in _LABEL_NAMES for name in names) or all(name in _KNOWN for name in names))


def read_columns(cells: Sequence[str], separator: str, where: str) -> Columns:
    """The columns that a header line names.

    Raises:
        DataError: no column can be the path, several may be the path or the label, or there are spans.
    """
    names = [_plain(cell) for cell in cells]
    if spans := [cell for cell, name in zip(cells, names, strict=True) if name in _SPANS]:
        raise DataError(
            f"{where}: {', '.join(spans)}: lists of spans are not read yet, and the whole video is not what its label "
            "is of: cut the videos, or leave these columns out if they are cut already"
        )
    if frames := [cell for cell, name in zip(cells, names, strict=True) if name in _FRAMES]:
        raise DataError(f"{where}: {', '.join(frames)}: lists a line for each frame; allowed: a line for each video")
    path = _best(names, _PATHS, cells, where, "path")
    label = _best(names, _LABELS, cells, where, "label")
    if path is None:
        raise unknown_header(cells, where)
    split = [at for at, name in enumerate(names) if name in _SPLIT]
    if len(split) > 1:
        raise DataError(f"{where}: the columns {some([cells[at] for at in split])} may all be the split; keep one")
    return Columns(tuple(cells), separator, path, label, split[0] if split else None)


def unknown_header(cells: Sequence[str], where: str) -> DataError:
    """The error for a header whose columns are not known."""
    shown = ", ".join(repr(cell[:40]) for cell in cells[:10])
    return DataError(
        f"{where}: looks like a header, but of its columns {shown} none is known as the path, or none as the label; "
        "allowed: path, video_path, filename, ... and label, class, action, ...; without a header, `path label` lines"
    )


def _best(
    names: Sequence[str], tiers: Sequence[Sequence[str]], cells: Sequence[str], where: str, what: str
) -> int | None:
    for tier in tiers:
        places = [at for at, name in enumerate(names) if name in tier]
        if len(places) > 1:
            raise DataError(
                f"{where}: the columns {', '.join(cells[at] for at in places)} may all be the {what}; keep one"
            )
        if places:
            return places[0]
    return None


def _plain(cell: str) -> str:
    return re.sub(r"[\s_\-]", "", cell).lower().lstrip("#")
