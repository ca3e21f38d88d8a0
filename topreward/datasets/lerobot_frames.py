"""The rows and frames of one LeRobot episode: an EpisodeRecord → a Clip.

In: a root, a record, cameras. Out: a Clip, after the rows of the data file have been held against the record.
This is the first moment that data files (and, on the hub, their download) are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topreward.datasets.clips import frames_at, open_video, side_by_side
from topreward.datasets.lerobot_episodes import EpisodeRecord
from topreward.datasets.lerobot_images import ImageColumn, image_clip
from topreward.datasets.lerobot_info import Camera
from topreward.datasets.lerobot_places import hold_apart, hold_to_file
from topreward.datasets.messages import one_line
from topreward.datasets.roots import Root
from topreward.datasets.tables import Kind, read_columns
from topreward.errors import DatasetError, VideoError
from topreward.types import Clip

_INTEGER_COLUMNS = ("episode_index", "frame_index", "index", "task_index")
_COLUMNS: dict[str, Kind] = {**dict.fromkeys(_INTEGER_COLUMNS, "integers"), "timestamp": "floating-point seconds"}


@dataclass(frozen=True)
class EpisodeLoader:
    """Opens one episode when called. Can be pickled, so that another process may call it."""

    root: Root
    uri: str
    fps: float
    tasks: Mapping[int, str]
    record: EpisodeRecord
    cameras: tuple[Camera, ...]

    def __call__(self) -> Clip:
        name = f"{self.uri}, episode {self.record.index}"
        rows = read_rows(self.root, self.record, self.tasks, where=name)
        views: list[Clip] = []
        for camera in self.cameras:
            source = f"{name}, {camera.key}"
            if camera.kind == "image":
                column = ImageColumn(self.root, self.record.data_file, camera.key, rows.first, source)
                view = image_clip(column, rows.seconds, fps=self.fps)
                views.append(replace(view, notes=(*view.notes, *_other_size(camera, view))))
                continue
            part = self.record.videos[camera.key]
            hold_apart(part, source)
            try:
                whole = open_video(self.root.file(part.file))
            except (DatasetError, VideoError) as error:
                raise VideoError(f"{source}: {error}") from error
            seconds = part.from_seconds + rows.seconds
            view = frames_at(whole, seconds, fps=self.fps, source=source)
            notes = hold_to_file(part, float(seconds[-1]), whole.num_frames, fps=self.fps, source=source)
            views.append(replace(view, notes=(*view.notes, *notes, *_other_size(camera, view))))
        return side_by_side(views, source=name)


def _other_size(camera: Camera, view: Clip) -> tuple[str, ...]:
    """Pictures of another size than the camera's may be another camera's: a note says so."""
    if camera.sides is None or camera.sides == tuple(sorted((view.height, view.width))):
        return ()
    shorter, longer = camera.sides
    return (
        f"{camera.key}: the frames are {view.height}x{view.width} px, info.json says {shorter} by {longer}; "
        "they may be another camera's",
    )


@dataclass(frozen=True)
class Rows:
    """An episode's rows in its data file."""

    first: int
    """Row of frame 0 in the file."""
    seconds: NDArray[np.float64]
    """(T,) time of every frame within the episode, s, increasing."""
    task_indices: NDArray[np.int64]
    """(T,)"""


def read_rows(root: Root, record: EpisodeRecord, tasks: Mapping[int, str], *, where: str) -> Rows:
    """Find an episode's rows and hold them against its record.

    Raises DatasetError naming file and episode where their number, their indices, their times or their tasks are
    not what the metadata say.
    """
    try:
        path = root.file(record.data_file)
    except DatasetError as error:
        raise DatasetError(f"{where}: {error}") from error
    where = f"{where}, {record.data_file}"
    columns = _columns(path, where)
    rows = np.flatnonzero(columns["episode_index"] == record.index)
    if rows.size != record.length:
        raise DatasetError(f"{where}: {rows.size} rows belong to the episode, its length is {record.length}")
    block = slice(int(rows[0]), int(rows[-1]) + 1)
    if block.stop - block.start != record.length:
        raise DatasetError(f"{where}: rows of other episodes lie between those of the episode")
    counted = np.arange(record.length)
    for name, expected in (("frame_index", counted), ("index", record.first_row + counted)):
        wrong = np.flatnonzero(columns[name][block] != expected)
        if wrong.size:
            frame = int(wrong[0])
            raise DatasetError(
                f"{where}: {name} of frame {frame} is {columns[name][block][frame]}, want {expected[frame]}"
            )
    seconds = columns["timestamp"][block].astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(seconds))
    if wrong.size:
        raise DatasetError(f"{where}: the timestamp of frame {wrong[0]} is {seconds[wrong[0]]}")
    wrong = np.flatnonzero(np.diff(seconds) <= 0)
    if wrong.size:
        frame = int(wrong[0])
        raise DatasetError(f"{where}: timestamps do not increase: {seconds[frame]} s, then {seconds[frame + 1]} s")
    task_indices = columns["task_index"][block]
    _check_tasks(task_indices, record, tasks, where)
    return Rows(first=block.start, seconds=seconds, task_indices=task_indices)


def tasks_in_order(root: Root, record: EpisodeRecord, tasks: Mapping[int, str], *, where: str) -> tuple[str, ...]:
    """The distinct tasks of an episode in the order in which its frames turn to them."""
    indices = read_rows(root, record, tasks, where=where).task_indices
    return tuple(dict.fromkeys(tasks[int(index)] for index in indices))


def _check_tasks(indices: NDArray[np.int64], record: EpisodeRecord, tasks: Mapping[int, str], where: str) -> None:
    used = [int(index) for index in np.unique(indices)]
    for index in used:
        if index not in tasks:
            raise DatasetError(f"{where}: task index {index} is not among the {len(tasks)} tasks of the dataset")
    texts = {tasks[index] for index in used}
    if record.tasks is not None and texts != set(record.tasks):
        raise DatasetError(f"{where}: the frames' tasks are {sorted(texts)}, the episode's are {sorted(record.tasks)}")


def _columns(path: Path, where: str) -> Mapping[str, NDArray[Any]]:
    try:
        state = path.stat()
        return _cached_columns(path, state.st_mtime_ns, state.st_size)
    except (DatasetError, OSError) as error:
        raise DatasetError(f"{where}: {one_line(error)}") from error


@lru_cache(maxsize=2)
def _cached_columns(path: Path, modified: int, size: int) -> Mapping[str, NDArray[Any]]:
    # modified, size: a file that was written anew is another file. In v3.0 hundreds of episodes share one.
    table = read_columns(path, _COLUMNS, path.name)
    columns: dict[str, NDArray[Any]] = {}
    for name, wanted in _COLUMNS.items():
        column = table[name]
        if column.null_count:
            raise DatasetError(f"the column {name} is {column.type} with {column.null_count} nulls, want {wanted}")
        columns[name] = column.to_numpy()
    return columns
