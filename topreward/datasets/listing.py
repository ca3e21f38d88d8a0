"""A CSV or JSONL listing of videos → Episodes.

In: a listing with the columns path and instruction, and perhaps success, split, id, fps, camera. Out: Episodes
in its order. Opens no video. A listing may come from strangers: its paths stay under its folder, unless the
caller names a wider root.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topreward.datasets.messages import one_line, short
from topreward.datasets.paths import kind_of, user_path
from topreward.errors import DatasetError, VideoError
from topreward.files import read_text
from topreward.limits import hold, hold_fps
from topreward.types import Clip, Episode, is_encodable
from topreward.video import read_video

REQUIRED = ("path", "instruction")
OPTIONAL = ("success", "split", "id", "fps", "camera")

MOST_COLUMNS = 1000

_YES = ("true", "1", "yes", "success")
_NO = ("false", "0", "no", "failure")


def read_listing(path: str | Path, *, root: str | Path | None = None, instruction: str | None = None) -> list[Episode]:
    """Episodes out of a `.csv` or `.jsonl` listing, in its order; no video is opened.

    Columns: `path` (a video file or a folder of images, relative to the listing) and `instruction` are required;
    `success` (true/false/1/0/yes/no, or empty), `split`, `id` (default: the path), `fps` (frames/s; needed for,
    and only for, folders of images) and `camera` may follow; any other column goes to `Episode.extra`.

    A path must lie under the listing's own folder, links followed, or under `root` where that is given (absolute
    paths are then allowed too). `instruction` replaces every row's and makes the column optional. Raises
    DatasetError naming the file and the line. A missing video is found out when the episode is opened.
    """
    if instruction is not None and not instruction.strip():
        raise DatasetError(f"{path}: the instruction given for all rows is empty")
    limit = None if root is None else user_path(str(root), where="root=")
    listing = _Listing(user_path(str(path), where="the listing "), limit, instruction)
    episodes: list[Episode] = []
    lines: dict[str, int] = {}
    for number, row in _rows(listing.file):
        where = f"{listing.file}, line {number}"
        episode = listing.episode(row, where)
        if episode.id in lines:
            raise DatasetError(
                f"{where}: the id {episode.id!r} is that of line {lines[episode.id]} too; give each row its own"
            )
        lines[episode.id] = number
        episodes.append(episode)
        hold("max_episodes", len(episodes), listing.file, error=DatasetError)
    if not episodes:
        raise DatasetError(f"{listing.file}: lists no episodes")
    return episodes


# -- rows of text ----------------------------------------------------------------------------------------------


def _rows(listing: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number from 1, column → value) for every row."""
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    reader = readers.get(listing.suffix.lower())
    if reader is None:
        raise DatasetError(f"{listing}: a listing is a .csv or a .jsonl file")
    # utf-8-sig: spreadsheets put a byte order mark before the first column's name
    yield from reader(listing, read_text(listing, error=DatasetError, encoding="utf-8-sig"))


def _csv_rows(listing: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_columns(header, f"{listing}, line 1")
        repeated = next((name for name in header if header.count(name) > 1), None)
        if repeated is not None:
            raise DatasetError(f"{listing}, line 1: the column {repeated!r} appears more than once")
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise DatasetError(
                    f"{listing}, line {reader.line_num}: {len(values)} fields, the header names {len(header)}"
                )
            yield reader.line_num, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise DatasetError(f"{listing}, line {reader.line_num}: {one_line(error)}") from error


def _check_columns(names: Sequence[str], where: str) -> None:
    """A slip of the pen (`Path`, `sucess`) must not turn a known column into an unknown one."""
    if len(names) > MOST_COLUMNS:  # each is looked at, in each row of a .jsonl
        raise DatasetError(f"{where}: {len(names)} columns, want {MOST_COLUMNS} at most")
    known = REQUIRED + OPTIONAL
    for name in names:
        if name not in known:
            alike = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.85)
            if alike and alike[0] not in names:
                raise DatasetError(f"{where}: unknown column {name!r} (did you mean {alike[0]!r}?)")
    if "path" not in names:
        raise DatasetError(f"{where}: the column 'path' is missing; there are {one_line(', '.join(names) or 'none')}")


def _jsonl_rows(listing: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{listing}, line {number}"
        try:
            row = json.loads(line, object_pairs_hook=_no_repeats)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{where}: not JSON ({one_line(error)})") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{where}: holds a {type(row).__name__}, want an object")
        if tuple(row) not in seen:
            _check_columns(list(row), where)
            seen = {tuple(row), *seen} if len(seen) < 100 else seen
        yield number, row


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("a key appears more than once")
    return row


# -- rows to episodes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Listing:
    file: Path
    root: Path | None
    """The folder that no path may leave; None is the listing's own, and then no path may be absolute either."""
    instruction: str | None

    def episode(self, row: Mapping[str, Any], where: str) -> Episode:
        instruction = self.instruction if self.instruction is not None else _text(row, "instruction", where)
        path = _text(row, "path", where)
        if path is None or instruction is None:
            raise DatasetError(f"{where}: {'path' if path is None else 'instruction'} is missing")
        name = _text(row, "id", where) or path
        video = self._inside(path, where)
        unknown = {key: value for key, value in row.items() if key not in REQUIRED + OPTIONAL}
        return Episode(
            id=name,
            instruction=instruction,
            load=VideoLoader(video, self._limit(), _fps(row.get("fps"), where), f"{where} ({name})"),
            success=_success(row.get("success"), where),
            camera=_text(row, "camera", where),
            split=_text(row, "split", where),
            extra={"dataset_uri": f"folder:{self.file}", **unknown},
        )

    def _limit(self) -> Path:
        return (self.root or self.file.parent).resolve()

    def _inside(self, path: str, where: str) -> Path:
        if "\0" in path:
            raise DatasetError(f"{where}: path {path!r} holds a null character")
        video = self.file.parent / path
        absolute = Path(path).is_absolute() and self.root is None
        try:
            inside = video.resolve().is_relative_to(self._limit())
        except (OSError, RuntimeError) as error:  # RuntimeError: links that go round in a circle
            raise DatasetError(f"{where}: path {path!r} cannot be followed ({one_line(error)})") from error
        if absolute or not inside:
            raise DatasetError(
                f"{where}: path {path!r} leaves the folder {str(self._limit())!r}; if you trust this listing, "
                "name the folder that holds its videos with root="
            )
        return video


def _text(row: Mapping[str, Any], column: str, where: str) -> str | None:
    value = row.get(column)
    if value is None or value == "":
        return None
    if column == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DatasetError(f"{where}: {column} is {short(value)}, want a text")
    hold("max_instruction", len(value), f"{where}: {column}", error=DatasetError)
    if not is_encodable(value):
        raise DatasetError(f"{where}: {column} {value[:200]!a} holds what is no character")
    return value.strip() or None


def _success(value: Any, where: str) -> bool | None:
    if value is None or value == "":
        return None
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    if word in _YES or word in _NO:
        return word in _YES
    raise DatasetError(f"{where}: success is {short(value)}, want one of {', '.join(_YES + _NO)}, or nothing")


def _fps(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        fps = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        fps = math.nan
    if not math.isfinite(fps) or fps <= 0:
        raise DatasetError(f"{where}: fps is {short(value)}, want a positive number of frames/s")
    hold_fps(fps, f"{where}: fps", error=DatasetError)
    return fps


@dataclass(frozen=True)
class VideoLoader:
    """Opens a row's video when called. Can be pickled, so that another process may call it."""

    path: Path
    limit: Path
    """The folder that nothing it reads may lie outside of."""
    fps: float | None
    name: str

    def __call__(self) -> Clip:
        try:
            kind = kind_of(self.path, where=str(self.path))
            entries = sorted(self.path.iterdir()) if kind == "folder" else []
        except (DatasetError, OSError) as error:
            raise VideoError(f"{self.name}: {one_line(error)}") from error
        if kind is None:
            raise VideoError(f"{self.name}: the video {self.path} is missing")
        for image in entries:
            try:
                inside = image.resolve().is_relative_to(self.limit)
            except (OSError, RuntimeError) as error:
                raise VideoError(f"{self.name}: {image} cannot be followed ({one_line(error)})") from error
            if not inside:
                raise VideoError(f"{self.name}: {image} is a link out of {self.limit}")
        try:
            return read_video(self.path, fps=self.fps)
        except VideoError as error:
            raise VideoError(f"{self.name}: {error}") from error
