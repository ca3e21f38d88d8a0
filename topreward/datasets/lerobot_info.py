"""A LeRobot dataset's `meta/info.json` and its table of tasks.

In: a root. Out: checked facts: version, frame rate, cameras, path templates, splits, tasks. Knows nothing of
episodes and pixels. Reads v2.0, v2.1 and v3.0.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from topreward.datasets.messages import one_line, short
from topreward.datasets.roots import Root
from topreward.datasets.tables import column_names, json_lines, read_columns
from topreward.errors import DatasetError
from topreward.files import read_text
from topreward.limits import hold, hold_fps

INFO = "meta/info.json"
VERSIONS = ("v2.0", "v2.1", "v3.0")

# What LeRobot itself falls back to where info.json leaves it out.
_DEFAULT_CHUNK = 1000
_DEFAULT_DATA = {
    2: "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    3: "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}


@dataclass(frozen=True)
class Camera:
    """One stream of pictures."""

    key: str
    """As in info.json, e.g. `observation.images.top`."""
    kind: Literal["video", "image"]
    """Frames in mp4 files, or encoded images in the parquet files."""
    sides: tuple[int, int] | None = None
    """The shorter and the longer side of its pictures, px, as info.json says; None where it does not."""


@dataclass(frozen=True)
class Info:
    """The part of `info.json` that reading pictures needs."""

    version: str
    fps: float
    """Frames/s, > 0."""
    cameras: tuple[Camera, ...]
    data_path: str
    video_path: str | None
    """Path template; None where all cameras are image-backed."""
    chunks_size: int
    """Episodes per chunk folder (v2)."""
    total_episodes: int | None
    total_frames: int | None
    splits: Mapping[str, range]
    """Episode ranges by name. A split that is not written as `from:to` is left out."""

    @property
    def major(self) -> int:
        return int(self.version[1])


def read_info(root: Root) -> Info:
    """Read and check `meta/info.json`. Raises DatasetError naming the key that is wrong."""
    where = f"{root.name}: {INFO}"
    data = _json(root.file(INFO), where)
    if not isinstance(data, dict):
        raise DatasetError(f"{where} holds a {type(data).__name__}, want an object")
    version = data.get("codebase_version")
    version = f"v{version}" if isinstance(version, str) and not version.startswith("v") else version
    if version not in VERSIONS:
        raise DatasetError(f"{where}: codebase_version is {short(version)}, readable are {', '.join(VERSIONS)}")
    fps = data.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < math.inf:
        raise DatasetError(f"{where}: fps is {short(fps)}, want a positive number")
    hold_fps(fps, f"{where}: fps", error=DatasetError)
    chunks_size = _count(data, "chunks_size", where, default=_DEFAULT_CHUNK)
    if not chunks_size:
        raise DatasetError(f"{where}: chunks_size is {chunks_size}, want a positive integer")
    data_path = data.get("data_path", _DEFAULT_DATA[int(version[1])])
    video_path = data.get("video_path")
    if not isinstance(data_path, str) or not isinstance(video_path, str | None):
        raise DatasetError(
            f"{where}: data_path and video_path must be texts, got {short(data_path)} and {short(video_path)}"
        )
    cameras = _cameras(data.get("features"), where)
    if video_path is None and any(camera.kind == "video" for camera in cameras):
        raise DatasetError(f"{where}: there are video features, but no video_path")
    return Info(
        version=version,
        fps=float(fps),
        cameras=cameras,
        data_path=data_path,
        video_path=video_path,
        chunks_size=chunks_size,
        total_episodes=_count(data, "total_episodes", where),
        total_frames=_count(data, "total_frames", where),
        splits=_splits(data.get("splits")),
    )


def _cameras(features: Any, where: str) -> tuple[Camera, ...]:
    if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
        raise DatasetError(f"{where}: features must be an object of objects")
    pictures = [(key, feature) for key, feature in features.items() if feature.get("dtype") in ("video", "image")]
    # Depth streams are pictures of distances. They stay selectable by name, but are never the default.
    pictures.sort(key=lambda item: _is_depth(item[1]))
    return tuple(
        Camera(key=key, kind=feature["dtype"], sides=_sides(feature.get("shape"))) for key, feature in pictures
    )


def _sides(shape: Any) -> tuple[int, int] | None:
    # Writers differ in whether the channels come first or last: always the smallest of the three.
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
        return None
    _, shorter, longer = sorted(shape)
    return shorter, longer


def _is_depth(feature: Mapping[str, Any]) -> bool:
    details = feature.get("info") or feature.get("video_info") or {}
    # the second is how LeRobot 0.6 writes it
    return isinstance(details, dict) and bool(details.get("video.is_depth_map") or details.get("is_depth_map"))


def _splits(splits: Any) -> dict[str, range]:
    found: dict[str, range] = {}
    for name, value in splits.items() if isinstance(splits, dict) else ():
        match = re.fullmatch(r"\s*([0-9]{1,12})\s*:\s*([0-9]{1,12})\s*", value) if isinstance(value, str) else None
        if match:
            found[str(name)] = range(int(match[1]), int(match[2]))
    return found


def read_tasks(root: Root, info: Info) -> dict[int, str]:
    """Task texts by `task_index`. Raises DatasetError on a repeated index or a text that is not one."""
    if info.major == 2:
        relative = "meta/tasks.jsonl"
        where = f"{root.name}: {relative}"
        rows = [
            (line.get("task_index"), line.get("task"), f"{where}, line {number}")
            for number, line in json_lines(root.file(relative), where)
        ]
    else:
        relative = "meta/tasks.parquet"
        where = f"{root.name}: {relative}"
        there = column_names(root.file(relative), where)
        names = [name for name in ("task", "__index_level_0__") if name in there]
        if not names or "task_index" not in there:
            raise DatasetError(
                f"{where} has the columns {', '.join(there[:40])}, want task_index and task "
                "(or the text as the pandas index)"
            )
        table = read_columns(root.file(relative), {"task_index": "integers", names[0]: "texts"}, where)
        hold("max_episodes", table.num_rows, f"{where}: its tasks", error=DatasetError)
        indices, texts = table["task_index"].to_pylist(), table[names[0]].to_pylist()
        rows = [
            (index, text, f"{where}, row {row}") for row, (index, text) in enumerate(zip(indices, texts, strict=True))
        ]
    tasks: dict[int, str] = {}
    for index, text, place in rows:
        if isinstance(index, bool) or not isinstance(index, int) or not isinstance(text, str):
            raise DatasetError(f"{place}: want an integer task_index and a text, got {short(index)} and {short(text)}")
        if index in tasks:
            raise DatasetError(f"{place}: task_index {index} appears more than once")
        tasks[index] = text
    return tasks


def _json(path: Path, where: str) -> Any:
    try:
        return json.loads(read_text(path, error=DatasetError, name=where))
    except DatasetError:
        raise
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: not JSON ({one_line(error)})") from error


def _count(data: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int | None:
    value = data.get(key, default)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise DatasetError(f"{where}: {key} is {short(value)}, want an integer, 0 or more")
    return value
