"""`folder:<dir or listing>`: videos or frame folders, named in a CSV or JSONL listing.

In: a listing, or a folder that holds one. Out: a Source. What a listing may say is `listing`'s knowledge.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from topreward.datasets.listing import read_listing
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
    listing = _find_listing(Path(location).expanduser())
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
    if location.is_file():
        return location
    if not location.is_dir():
        raise DatasetError(f"folder: there is no file or folder {str(location)!r}")
    for name in LISTINGS:
        if (location / name).is_file():
            return location / name
    found = sorted(path for path in location.iterdir() if path.suffix.lower() in (".csv", ".jsonl"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DatasetError(f"{location}: want {' or '.join(LISTINGS)}, or one .csv or .jsonl file; found {names}")
    return found[0]
