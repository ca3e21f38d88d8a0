"""What decides an episode's or a model's bytes, cheaply: the sizes and times of the files they are read from.

In goes an Episode, a checkpoint's name or a Curve; out comes what JSON holds. Opens no file and reads no weights. What
was measured before a file was replaced, or in another way, is told by it from what would be measured now.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from topreward.demo import checkpoint_folder
from topreward.files import finite
from topreward.types import Clip, Curve, Episode
from topreward.video import read_video

MODEL_FILES = ("*.safetensors", "*.json", "*.jinja")
"""Weights, configuration and tokenizer."""

OF_ONE_VIDEO = ("video", "tokens", "packed", "descriptions", "answer", "stopped", "failure", "order")
"""What provenance says of one video (and of those that shared its pass), and not of how the estimator works."""


def stamp(episode: Episode) -> dict[str, Any]:
    """What the dataset says of the frames and where they lie, and the state of the files that they are read from.

    There are none for clips that are drawn or in memory, nor for those of a hub dataset, whose commit is a setting.
    """
    told = {name: episode.extra.get(name) for name in ("length", "fps")} | _part(episode.load)
    promised = {name: value for name, value in told.items() if isinstance(value, int | float | str)}
    read_from = {str(path): state(path) for path in clip_files(episode.load)}
    stamped: dict[str, Any] = finite({**promised, "files": read_from})  # NaN is not equal to itself
    return stamped


def _part(load: Callable[[], Clip]) -> dict[str, Any]:
    """What a loader takes from its files: which stretch, and at what rate."""
    from topreward.datasets.lerobot_frames import EpisodeLoader
    from topreward.datasets.listing import VideoLoader

    if isinstance(load, VideoLoader):
        return {"fps": load.fps}
    if isinstance(load, EpisodeLoader):
        return {"record": sha256(repr(load.record).encode()).hexdigest()[:16]}
    return {}


def clip_files(load: Callable[[], Clip]) -> tuple[Path, ...]:
    """The files, or folders of frames, that a loader of this package reads."""
    from topreward.datasets.hdf5 import DemoLoader
    from topreward.datasets.lerobot_frames import EpisodeLoader
    from topreward.datasets.listing import VideoLoader
    from topreward.datasets.roots import LocalRoot

    if isinstance(load, partial):
        given = (*load.args, *load.keywords.values())
        named = load.func is read_video  # whose first argument may be a text, too
        return tuple(Path(part) for part in given if isinstance(part, Path) or (named and isinstance(part, str)))
    if isinstance(load, VideoLoader):
        return (load.path,)
    if isinstance(load, DemoLoader):
        return (load.demo.file,)
    if isinstance(load, EpisodeLoader) and isinstance(load.root, LocalRoot):
        names = [load.record.data_file, *(part.file for part in load.record.videos.values())]
        return tuple(load.root.folder / name for name in dict.fromkeys(names))
    return ()


def state(path: Path) -> list[int] | None:
    """Bytes and time of the last change (ns) of a file; of a folder, the same over what lies in it, and how many.

    None where there is none.
    """
    try:
        if not path.is_dir():
            found = path.stat()
            return [found.st_size, found.st_mtime_ns]
        parts = [entry.stat() for entry in path.iterdir()]
    except OSError:
        return None
    return [sum(p.st_size for p in parts), max((p.st_mtime_ns for p in parts), default=0), len(parts)]


def model_files(name: str | None) -> dict[str, list[int] | None]:
    """The state of a local checkpoint's files, by their names; none for a hub id, which its revision pins."""
    if not name:
        return {}
    folder = checkpoint_folder() if name.lower() == "demo" else Path(name).expanduser()
    if not folder.is_dir():
        return {}
    return {path.name: state(path) for pattern in MODEL_FILES for path in sorted(folder.glob(pattern))}


def how_made(curve: Curve) -> str:
    """A curve's provenance without what is of one video alone, as JSON."""
    kept = {k: v for k, v in curve.provenance.items() if k not in OF_ONE_VIDEO}
    return json.dumps(kept, sort_keys=True, default=str)
