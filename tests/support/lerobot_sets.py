"""LeRobot datasets of format v3.0 that tests are made of, written with PyAV and pyarrow, whole or damaged.

Frame t of episode e carries the number 128 e + t, so that a frame tells whose it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from topreward.demo.mp4 import Mp4
from topreward.types import Clip
from videos import numbers_of, picture

KEY = "observation.images.top"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


def numbers(episode: int, length: int) -> list[int]:
    return [128 * episode + frame for frame in range(length)]


def write_set(
    root: Path,
    lengths: Sequence[int],
    films: Mapping[int, Sequence[int]],
    places: Sequence[tuple[int, float, float]],
    *,
    fps: float = 10.0,
    tasks: Sequence[str] | None = None,
    task_rows: Sequence[Sequence[int]] | None = None,
    **info: Any,
) -> Path:
    """`films`: file number → the numbers of its frames; `places`: (file, from, to) of each episode, s.

    `tasks`: what each episode's metadata say; None leaves the column out, and `task_rows` (a task index a frame, by
    episode) says it alone. `info`: keys of info.json that differ.
    """
    ends = np.cumsum([0, *lengths])
    for folder in ("meta/episodes/chunk-000", "data/chunk-000", f"videos/{KEY}/chunk-000"):
        (root / folder).mkdir(parents=True)
    wordings = list(dict.fromkeys(tasks)) if tasks is not None else ["wave", "stop"]
    said = task_rows or [[0 if tasks is None else wordings.index(tasks[e])] * n for e, n in enumerate(lengths)]
    rows = {
        "timestamp": pa.array([t / fps for n in lengths for t in range(n)], pa.float32()),
        "frame_index": [t for n in lengths for t in range(n)],
        "episode_index": [e for e, n in enumerate(lengths) for _ in range(n)],
        "index": list(range(ends[-1])),
        "task_index": [index for episode in said for index in episode],
    }
    pq.write_table(pa.table(rows), root / "data/chunk-000/file-000.parquet")
    nothing = [0] * len(lengths)
    table: dict[str, Any] = {
        "episode_index": list(range(len(lengths))),
        "length": list(lengths),
        "data/chunk_index": nothing,
        "data/file_index": nothing,
        "dataset_from_index": ends[:-1],
        "dataset_to_index": ends[1:],
        f"videos/{KEY}/chunk_index": nothing,
        f"videos/{KEY}/file_index": [file for file, _, _ in places],
        f"videos/{KEY}/from_timestamp": [float(start) for _, start, _ in places],
        f"videos/{KEY}/to_timestamp": [float(end) for _, _, end in places],
    }
    if tasks is not None:
        table["tasks"] = [[task] for task in tasks]
    pq.write_table(pa.table(table), root / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.table({"task_index": list(range(len(wordings))), "task": wordings}), root / "meta/tasks.parquet")
    for number, content in films.items():
        write_film(root / f"videos/{KEY}/chunk-000/file-{number:03d}.mp4", content, fps)
    told = {
        "codebase_version": "v3.0",
        "fps": fps,
        "total_episodes": len(lengths),
        "total_frames": int(ends[-1]),
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": {KEY: {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]}},
    }
    (root / "meta/info.json").write_text(json.dumps(told | info))
    return root


def write_film(path: Path, content: Sequence[int], fps: float) -> None:
    """An mp4 of numbered pictures, 48x64 px."""
    film = Mp4(path, fps, 48, 64, "h264", 2)
    for number in content:
        film.add(picture(number, 48, 64)[None])
    film.close()


def in_a_row(
    lengths: Sequence[int], fps: float = 10.0, *, longer: int = 0, file: int = 0
) -> list[tuple[int, float, float]]:
    """Places of episodes one behind the other, each with `longer` frames behind it that are nobody's."""
    places, start = [], 0.0
    for length in lengths:
        places.append((file, start, start + (length + longer) / fps))
        start = places[-1][2]
    return places


def shown(clip: Clip) -> list[int]:
    """The numbers of all frames."""
    return numbers_of(clip.frames(np.arange(clip.num_frames)))
