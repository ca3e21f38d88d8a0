"""The episodes of a LeRobot dataset, as its metadata list them: where each one's rows and frames are.

In: a root and its Info. Out: one EpisodeRecord per episode, the same for v2 and v3.0. Opens no data or video
file. What the listing as a whole must satisfy is checked when it is read, what concerns one episode when that
episode is asked for: a defect in an episode that nobody chose stops nobody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from topreward.datasets.lerobot_info import INFO, Info
from topreward.datasets.lerobot_places import Places, VideoPart, alone, find_places
from topreward.datasets.messages import short
from topreward.datasets.paths import fill_template
from topreward.datasets.roots import Root
from topreward.datasets.tables import Kind, column_names, json_lines, read_columns
from topreward.errors import DatasetError
from topreward.limits import hold


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode, before its data are opened."""

    index: int
    length: int
    """Frames, >= 1."""
    first_row: int
    """Global index of its first frame (`dataset_from_index`)."""
    tasks: tuple[str, ...] | None
    """Distinct texts; in which order, LeRobot's writers do not say. None: only the episode's rows say."""
    data_file: str
    """Path within the dataset of the parquet file with its rows."""
    videos: Mapping[str, VideoPart]
    """By camera key; only the cameras asked for."""


class EpisodeTable(Protocol):
    """All episodes of a dataset; `episode_index` runs from 0 without gaps."""

    def __len__(self) -> int: ...

    def record(self, index: int) -> EpisodeRecord:
        """One episode, checked. Raises DatasetError naming it."""


def read_episodes(root: Root, info: Info, tasks: Mapping[int, str], cameras: Sequence[str]) -> EpisodeTable:
    """List the episodes; `cameras` are the keys of the video-backed ones that will be read."""
    if cameras:
        _hold_cameras_apart(root, info)
    if info.major == 2:
        return _read_v2(root, info, tasks, cameras)
    return _read_v3(root, info, tasks, cameras)


def _hold_cameras_apart(root: Root, info: Info) -> None:
    """Raise DatasetError where the template gives several cameras one file."""
    assert info.video_path is not None  # read_info: there is one where there are video features
    streams = [camera.key for camera in info.cameras if camera.kind == "video"]
    names = ("episode_index", "episode_chunk", "chunk_index") if info.major == 2 else ("chunk_index", "file_index")
    where = f"{root.name}: {INFO}"
    zeros: dict[str, int | str] = dict.fromkeys(names, 0)
    filled = {fill_template(info.video_path, zeros | {"video_key": key}, where=where) for key in "ab"}
    if len(filled) == 1 and len(streams) > 1:
        raise DatasetError(
            f"{where}: video_path {info.video_path!r} names one file for the cameras {', '.join(streams)}"
        )


# -- v2.0, v2.1: one line, one parquet file and one mp4 per camera for each episode -----------------------------

_V2 = "meta/episodes.jsonl"


@dataclass(frozen=True)
class _V2Table:
    where: str
    info: Info
    tasks: Mapping[int, str]
    cameras: Sequence[str]
    lines: Sequence[Mapping[str, Any]]
    lengths: Sequence[int]
    first_rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)

    def record(self, index: int) -> EpisodeRecord:
        where = f"{self.where}, episode {index}"
        # `chunk_index` is no name of v2, but some converters write it into their templates
        chunk = index // self.info.chunks_size
        length = _positive(self.lengths[index], where)
        videos = {}
        for key in self.cameras:
            path = self._video(key, index, where)
            # A template without the episode's number gives all of a chunk one file; a neighbour tells.
            near = [other for other in (index - 1, index + 1) if 0 <= other < len(self)]
            same = next((other for other in near if self._video(key, other, where) == path), None)
            videos[key] = alone(path, length, also=same)
        fields = {"episode_index": index, "episode_chunk": chunk, "chunk_index": chunk}
        line = self.lines[index]
        return EpisodeRecord(
            index=index,
            length=length,
            first_row=self.first_rows[index],
            tasks=_task_texts(line["tasks"], self.tasks, where) if "tasks" in line else None,
            data_file=fill_template(self.info.data_path, fields, where=where),
            videos=videos,
        )

    def _video(self, key: str, index: int, where: str) -> str:
        assert self.info.video_path is not None  # as above
        chunk = index // self.info.chunks_size
        fields = {"episode_index": index, "episode_chunk": chunk, "chunk_index": chunk}
        return fill_template(self.info.video_path, {**fields, "video_key": key}, where=where)


def _read_v2(root: Root, info: Info, tasks: Mapping[int, str], cameras: Sequence[str]) -> _V2Table:
    where = f"{root.name}: {_V2}"
    lines = [line for _, line in json_lines(root.file(_V2), where)]
    order = _index_order([line.get("episode_index") for line in lines], info, where)
    lines = [lines[position] for position in order]
    lengths = [_integer(line.get("length"), f"{where}, episode {i}: length") for i, line in enumerate(lines)]
    first_rows = [0]
    for index, length in enumerate(lengths):
        if length < 0:  # the rows of every later episode would move
            raise DatasetError(f"{where}, episode {index}: length is {length}")
        hold("max_frames", length, f"{where}, episode {index}: length", error=DatasetError)
        first_rows.append(first_rows[-1] + length)
    first_rows.pop()
    _check_total(lengths, lengths, info, where)
    return _V2Table(where, info, tasks, cameras, lines, lengths, first_rows)


# -- v3.0: tables of episodes; data and video files are shared by many ----------------------------------------

_V3_PATTERN = "meta/episodes/*/*.parquet"
_V3_INTEGERS = (
    "episode_index",
    "length",
    "data/chunk_index",
    "data/file_index",
    "dataset_from_index",
    "dataset_to_index",
)


@dataclass(frozen=True)
class _V3Table:
    where: str
    info: Info
    tasks: Mapping[int, str]
    cameras: Sequence[str]
    columns: Mapping[str, Sequence[Any]]
    order: Sequence[int]
    """Row of each episode."""
    places: Mapping[str, Places]
    """By camera."""

    def __len__(self) -> int:
        return len(self.order)

    def record(self, index: int) -> EpisodeRecord:
        where = f"{self.where}, episode {index}"
        row = self.order[index]

        def number(name: str) -> int:
            return _integer(self.columns[name][row], f"{where}: {name}", least=0)

        length = _positive(self.columns["length"][row], where)
        first, end = number("dataset_from_index"), number("dataset_to_index")
        if end - first != length:
            raise DatasetError(f"{where}: length is {length}, but its rows are {first}..{end} ({end - first} rows)")
        videos = {}
        for key in self.cameras:
            chunk, file = number(f"videos/{key}/chunk_index"), number(f"videos/{key}/file_index")
            start = self._start(key, row, length, where)
            videos[key] = self.places[key].part(index, _video_file(self.info, key, chunk, file, where), start)
        fields = {"chunk_index": number("data/chunk_index"), "file_index": number("data/file_index")}
        return EpisodeRecord(
            index=index,
            length=length,
            first_row=first,
            tasks=_task_texts(self.columns["tasks"][row], self.tasks, where) if "tasks" in self.columns else None,
            data_file=fill_template(self.info.data_path, fields, where=where),
            videos=videos,
        )

    def _start(self, key: str, row: int, length: int, where: str) -> float:
        """Time of the episode's first frame in its file, s, held against where it ends and how long it is."""
        times = []
        for name in (f"videos/{key}/from_timestamp", f"videos/{key}/to_timestamp"):
            value = self.columns[name][row]
            if value is None or not math.isfinite(value) or value < 0:
                raise DatasetError(f"{where}: {name} is {value}, want a finite time in s, 0 or more")
            times.append(float(value))
        start, end = times
        # Longer is a take's stale frames, and nobody's matter. One frame shorter is the time of the last frame, which
        # some writers mean; more than that is no place for the episode. 1.5, since 1 occurs and rounding would decide.
        if (end - start) * self.info.fps < length - 1.5:
            raise DatasetError(
                f"{where}: videos/{key} lasts from {start:.4f} s to {end:.4f} s, but {length} frames at "
                f"{self.info.fps:g} fps last {length / self.info.fps:.4f} s"
            )
        return start


def _read_v3(root: Root, info: Info, tasks: Mapping[int, str], cameras: Sequence[str]) -> _V3Table:
    where = f"{root.name}: meta/episodes"
    files = root.meta_files(_V3_PATTERN)
    if not files:
        raise DatasetError(f"{where}: there are no files {_V3_PATTERN}")
    integers = [*_V3_INTEGERS, *(f"videos/{key}/{part}" for key in cameras for part in ("chunk_index", "file_index"))]
    times = [f"videos/{key}/{part}_timestamp" for key in cameras for part in ("from", "to")]
    kinds: dict[str, Kind] = dict.fromkeys(integers, "integers")
    kinds |= dict.fromkeys(times, "floating-point seconds")
    columns: dict[str, list[Any]] = {name: [] for name in kinds}
    if "tasks" in column_names(root.file(files[0]), f"{root.name}: {files[0]}"):
        kinds["tasks"], columns["tasks"] = "lists of texts", []  # else, as for LeRobot, the rows' task indices say it
    for relative in files:
        place = f"{root.name}: {relative}"
        table = read_columns(root.file(relative), kinds, place)
        hold("max_episodes", len(columns["length"]) + table.num_rows, where, error=DatasetError)
        for name, values in columns.items():
            values.extend(table[name].to_pylist())
    order = _index_order(columns["episode_index"], info, where)
    lengths, starts, ends = (columns[name] for name in ("length", "dataset_from_index", "dataset_to_index"))
    spans = [(ends[row] or 0) - (starts[row] or 0) for row in order]
    _check_total([lengths[row] or 0 for row in order], spans, info, where)
    places = {key: _places(info, key, columns, order, f"{root.name}: {INFO}") for key in cameras}
    return _V3Table(where, info, tasks, cameras, columns, order, places)


def _places(info: Info, key: str, columns: Mapping[str, Sequence[Any]], order: Sequence[int], where: str) -> Places:
    """Where all episodes of a camera lie; what makes no sense is left to the episode's own error."""

    def numbers(name: str) -> list[Any]:
        return [columns[name][row] for row in order]

    pairs = list(zip(numbers(f"videos/{key}/chunk_index"), numbers(f"videos/{key}/file_index"), strict=True))
    plain = {pair for pair in pairs if all(isinstance(number, int) and number >= 0 for number in pair)}
    named = {pair: _video_file(info, key, *pair, where=where) for pair in plain}
    starts = np.array([np.nan if x is None else x for x in numbers(f"videos/{key}/from_timestamp")], dtype=np.float64)
    lengths = np.array([np.nan if x is None else x for x in numbers("length")], dtype=np.float64)
    starts[starts < 0] = np.nan
    return find_places([named.get(pair) for pair in pairs], starts, lengths, info.fps)


def _video_file(info: Info, key: str, chunk: int, file: int, where: str) -> str:
    assert info.video_path is not None  # as above
    return fill_template(info.video_path, {"chunk_index": chunk, "file_index": file, "video_key": key}, where=where)


# -- what both share -------------------------------------------------------------------------------------------


_MOST = 10**15
"""Rows, files and the like: numbers that can still be added up in 64 bits."""


def _index_order(indices: Sequence[Any], info: Info, where: str) -> list[int]:
    """Row of every episode 0, 1, 2, …; raises DatasetError for repeated or missing episodes."""
    rows: dict[int, int] = {}
    for row, value in enumerate(indices):
        index = _integer(value, f"{where}, row {row}: episode_index", least=0)
        if index in rows:
            raise DatasetError(f"{where}: episode {index} appears more than once")
        rows[index] = row
    count = len(rows) if info.total_episodes is None else info.total_episodes
    missing = next((index for index in range(count) if index not in rows), None)
    if missing is not None:
        raise DatasetError(f"{where}: episode {missing} is missing ({len(rows)} listed, info.json counts {count})")
    if len(rows) > count:
        raise DatasetError(f"{where}: {len(rows)} episodes are listed, info.json counts {count}")
    return [rows[index] for index in range(count)]


def _check_total(lengths: Sequence[int], spans: Sequence[int], info: Info, where: str) -> None:
    """`lengths` and `spans` (rows from first to last): (episodes,), equal where nothing is wrong."""
    if info.total_frames is None or sum(lengths) == info.total_frames:
        return
    pairs = enumerate(zip(lengths, spans, strict=True))
    odd = next((index for index, (length, span) in pairs if length < 1 or length != span), None)
    culprit = "" if odd is None else f"; episode {odd} has length {lengths[odd]} and {spans[odd]} rows"
    raise DatasetError(
        f"{where}: the lengths add up to {sum(lengths)} frames, info.json counts {info.total_frames}{culprit}"
    )


def _task_texts(value: Any, tasks: Mapping[int, str], where: str) -> tuple[str, ...]:
    """The episode's tasks as texts; some converters write indices in their place."""
    if not isinstance(value, list) or not all(type(task) in (str, int) for task in value):
        raise DatasetError(f"{where}: tasks is {short(value)}, want a list of texts")
    texts: list[str] = []
    for task in value:
        if isinstance(task, int):
            if task not in tasks:
                raise DatasetError(
                    f"{where}: task index {short(task)} is not among the {len(tasks)} tasks of the dataset"
                )
            task = tasks[task]
        if task not in texts:
            texts.append(task)
    return tuple(texts)


def _integer(value: Any, name: str, *, least: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        raise DatasetError(f"{name} is {short(value)}, want an integer{'' if least is None else f', {least} or more'}")
    if abs(value) > _MOST:
        raise DatasetError(f"{name} is {short(value)}, want an integer below {_MOST}")
    return value


def _positive(value: Any, where: str) -> int:
    length = _integer(value, f"{where}: length")
    if length < 1:
        raise DatasetError(f"{where}: length is {length}, an episode needs at least one frame")
    hold("max_frames", length, f"{where}: length", error=DatasetError)
    return length
