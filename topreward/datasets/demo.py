"""`demo:`: the tabletop world, drawn on the spot.

In: the query of a uri such as `demo:?count=50&seed=3`. Out: a Source. The world itself is `topreward.demo`'s,
imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from topreward.datasets.paths import kind_of, user_path
from topreward.errors import ConfigError, DatasetError, nearest
from topreward.files import write_atomically
from topreward.limits import hold
from topreward.types import Clip, Episode

DEFAULT_COUNT = 20
_NUMBERS = ("count", "seed", "size")
_LISTS = ("kinds", "tasks")
WORLD = ("backdrop", "draw", "episodes", "motion", "mp4", "pen", "scene", "things", "world")
"""The modules of `topreward.demo` that decide what a video file shows: motion, drawing and encoding."""


@dataclass(frozen=True)
class DemoSource:
    """Episodes of the demo world."""

    uri: str
    episodes: Sequence[Episode]
    cameras: tuple[str, ...]
    revision: None = None

    @property
    def ids(self) -> list[str]:
        return [episode.id for episode in self.episodes]

    def has_instruction(self, position: int) -> bool:
        return True  # the world words every task

    def episode(self, position: int) -> Episode:
        return self.episodes[position]


def open_demo(location: str) -> DemoSource:
    """`location`: nothing, or `?count=<episodes>&seed=<world seed>`; 20 episodes of seed 0 where it is silent.

    Also `size` (px, a side), and `kinds` and `tasks`, separated by commas; see `topreward.demo.episodes`. With
    `videos=<folder>` the episodes come from mp4 files there, written when they are first opened, and again where what
    lies there is of another size or another version of the world.
    """
    name, _, query = location.partition("?")
    if name:
        raise DatasetError(f"demo:{location}: want demo: or demo:?count=50&seed=3")
    options: dict[str, Any] = {"count": DEFAULT_COUNT}
    videos = None
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key == "videos":
            videos = text
        else:
            options[key] = _value(key, text, f"demo:{location}")
    if not options["count"]:
        raise DatasetError(f"demo:{location}: count is 0, want at least one episode")
    hold("max_episodes", options["count"], f"demo:{location}: count", error=DatasetError)
    # Here, because the world and its painter are of no use to anyone who reads a dataset from disk.
    from topreward.demo.draw import SIZE, SUPERSAMPLE
    from topreward.demo.episodes import CAMERA, demo_episodes

    if "size" in options:  # drawn larger than it is shown
        drawn = options["size"] * SUPERSAMPLE
        hold("max_picture_pixels", drawn * drawn, f"demo:{location}: pictures drawn", error=DatasetError)
    try:
        episodes = demo_episodes(options.pop("count"), **options)
    except ConfigError as error:
        raise DatasetError(f"demo:{location}: {error}") from error
    uri = f"demo:{location}"
    told = [replace(episode, extra={"dataset_uri": uri, **episode.extra}) for episode in episodes]
    if videos is not None:
        drawn_as = f"{options.get('size', SIZE[0])} px, world {world_version()}"
        folder = user_path(videos, where=f"demo:{location}: videos ")
        if not videos or kind_of(folder, where=f"demo:{location}: videos") not in (None, "folder"):
            raise DatasetError(f"demo:{location}: videos is {videos!r}, want a folder")
        told = [replace(e, load=partial(_from_file, e.load, folder / f"{e.id}.mp4", drawn_as)) for e in told]
    return DemoSource(uri, told, (CAMERA,))


@cache
def world_version() -> str:
    """12 hex digits that change with the world: a video drawn by another version must not pass for this one's."""
    code = files("topreward.demo")
    parts = [code.joinpath(f"{name}.py").read_bytes() for name in WORLD]
    return sha256(b"\0".join(parts)).hexdigest()[:12]


def _from_file(draw: Callable[[], Clip], path: Path, drawn_as: str) -> Clip:
    """The clip as it comes back from its video file. `drawn_as` lies beside it, in a hidden file."""
    from topreward.demo.mp4 import write_video
    from topreward.video import read_video

    label = path.with_name(f".{path.stem}.drawn")
    if not (path.is_file() and label.is_file() and label.read_text(encoding="utf-8") == drawn_as):
        write_video(draw(), path)
        write_atomically(label, drawn_as)
    return read_video(path)


def _value(key: str, text: str, where: str) -> int | list[str]:
    if key in _LISTS:
        return [part.strip() for part in text.split(",")]
    if key not in _NUMBERS:
        known = (*_NUMBERS, *_LISTS, "videos")
        raise DatasetError(f"{where}: unknown {key!r}{nearest(key, known)}, want one of {', '.join(known)}")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise DatasetError(f"{where}: {key} is {text!r}, want a whole number")
    return int(text)
