"""Paths that a dataset's own metadata name, kept inside the dataset.

In: path templates and relative paths written by strangers. Out: plain relative paths, and files that lie
under their root. Knows nothing of videos, tables or the hub.
"""

from __future__ import annotations

import os
import re
import stat
import string
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from topreward.datasets.messages import one_line, short
from topreward.errors import DatasetError, nearest
from topreward.files import expand
from topreward.types import is_encodable

# `03d` and the like. No more than two digits of width: `{x:99999999999d}` would fill the memory.
_NUMBER_FORMAT = re.compile(r"(0?[0-9]{1,2})?d?")


def fill_template(template: str, fields: Mapping[str, int | str], *, where: str) -> str:
    """Fill a path template of `info.json`, e.g. `data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet`.

    Only names in `fields` may stand in braces, numbers with a width, texts without a format: `str.format`
    itself would follow attributes and indices of what it is given. The result is checked by `plain_relative`.
    Raises DatasetError, its message opening with `where`.
    """
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise DatasetError(f"{where}: path template {template!r} is malformed ({one_line(error)})") from error
    filled: list[str] = []
    for literal, name, specification, conversion in pieces:
        filled.append(literal)
        if name is None:
            continue
        if name not in fields:
            raise DatasetError(
                f"{where}: path template {template!r} asks for {name!r}{nearest(name, fields)}; "
                f"known here are {', '.join(sorted(fields))}"
            )
        value = fields[name]
        allowed = _NUMBER_FORMAT.fullmatch(specification or "") if isinstance(value, int) else not specification
        if conversion or not allowed:
            raise DatasetError(f"{where}: path template {template!r} formats {name!r} in a way that is not allowed")
        filled.append(format(value, specification or ""))
    return plain_relative("".join(filled), where=where)


def plain_relative(path: str, *, where: str) -> str:
    """`path` in POSIX form, if it is relative and never climbs; raises DatasetError otherwise."""
    pure = PurePosixPath(path)
    if not is_encodable(path):
        raise DatasetError(f"{where}: the path {path!a} holds what is no character")
    # A backslash or a drive letter is harmless here and a way out on Windows: one dataset, one answer everywhere.
    windows = PureWindowsPath(path)
    if not path or "\0" in path or pure.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise DatasetError(f"{where}: the path {path!r} leaves the dataset, want a relative path without '..'")
    return str(pure)


def user_path(location: str, *, where: str) -> Path:
    """What a user typed, with `~` spelled out. Raises DatasetError where that is nobody's, or no path at all."""
    if not is_encodable(location):
        raise DatasetError(f"{where}{location!a}: holds what is no character")
    return expand(location, error=DatasetError)


def kind_of(path: Path, *, where: str) -> Literal["file", "folder", "other"] | None:
    """What lies at a path, links followed; None for nothing. `other` is a pipe or a device, which may never end.

    Raises DatasetError where nobody can tell: no permission, too long a name, links in a circle.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DatasetError(f"{where}: cannot be looked at ({why(error)})") from error
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def readable_file(path: Path, *, where: str) -> None:
    """Raise DatasetError unless it is a regular file that may be read."""
    if (kind := kind_of(path, where=where)) != "file":
        raise DatasetError(f"{where}: {'there is no such file' if kind is None else 'not a regular file'}")
    if not os.access(path, os.R_OK):
        raise DatasetError(f"{where}: no permission to read it")


def why(error: BaseException) -> str:
    """What the system said, without the path, which stands in our message already."""
    return one_line(error.strerror) if isinstance(error, OSError) and error.strerror else one_line(error)


def file_under(root: Path, relative: str, *, where: str) -> Path:
    """The file or folder `relative` below `root`, symbolic links followed, if it still lies below `root`.

    A snapshot folder of the Hugging Face cache is recognised: its files are links into `blobs/` beside it.
    Raises DatasetError where the path or a link leaves the root. The file need not exist.
    """
    relative = plain_relative(relative, where=where)
    try:
        base = root.resolve()
        path = base / relative
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links that go round in a circle
        raise DatasetError(f"{where}: {short(relative)} cannot be followed ({why(error)})") from error
    homes = [base]
    if base.parent.name == "snapshots":
        homes.append(base.parent.parent / "blobs")
    if not any(target.is_relative_to(home) for home in homes):
        raise DatasetError(f"{where}: {relative!r} is a link to {str(target)!r}, outside the dataset's folder")
    return path
