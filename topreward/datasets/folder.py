"""`folder:<dir or listing>`: videos or frame folders, named in a CSV or JSONL listing.

In: a listing, or a folder that holds one. Out: a Source. What a listing may say is `listing`'s knowledge.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from topreward.datasets.listing import read_listing
from topreward.datasets.paths import kind_of, user_path, why
from topreward.errors import DatasetError
from topreward.types import Episode

LISTINGS = ("episodes.csv", "episodes.jsonl")


class FolderSource:
    """The rows of one listing."""

    revision = None

    def __init__(self, uri: str, episodes: Sequence[Episode]) -> None:
        self.uri = uri
        self.episodes = episodes
        self.ids = [episode.id for episode in episodes]
        self.cameras = tuple(dict.fromkeys(e.camera for e in episodes if e.camera is not None))

    def has_instruction(self, position: int) -> bool:
        return True  # `read_listing` refuses a row without one

    def episode(self, position: int) -> Episode:
        return self.episodes[position]


def open_folder(
    location: str,
    *,
    camera: str | Sequence[str] | None = None,
    instruction: str | None = None,
    root: str | None = None,
) -> FolderSource:
    """A listing, or a folder that holds one. `camera` keeps the rows with that value in their camera column."""
    if not location:
        raise DatasetError("folder: names no listing, want folder:<folder> or folder:<listing.csv>")
    listing = _find_listing(user_path(location, where="folder:"))
    source = FolderSource(f"folder:{location}", read_listing(listing, root=root, instruction=instruction))
    if camera is None:
        return source
    if not isinstance(camera, str):
        raise DatasetError(f"folder: a listing names one video an episode, camera={list(camera)} cannot be joined")
    if camera not in source.cameras:
        known = ", ".join(source.cameras) or "none"
        raise DatasetError(f"{listing}: no row has the camera {camera!r}; the cameras are {known}")
    return FolderSource(source.uri, [episode for episode in source.episodes if episode.camera == camera])


def _find_listing(location: Path) -> Path:
    where = f"folder:{location}"
    found = kind_of(location, where=where)
    if found == "file":
        return location
    if found is None:
        raise DatasetError(f"folder: there is no file or folder {str(location)!r}")
    if found == "other":
        raise DatasetError(f"{where}: not a regular file")
    try:
        names = [path.name for path in location.iterdir()]
    except OSError as error:
        raise DatasetError(f"{where}: the folder cannot be read ({why(error)})") from error
    for name in LISTINGS:
        if name in names:
            return location / name
    listings = sorted(name for name in names if Path(name).suffix.lower() in (".csv", ".jsonl"))
    if len(listings) != 1:
        shown = ", ".join(listings[:20]) or "none"
        raise DatasetError(f"{location}: want {' or '.join(LISTINGS)}, or one .csv or .jsonl file; found {shown}")
    return location / listings[0]
