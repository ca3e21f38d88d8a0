"""Demo episodes as files: mp4 videos, and a LeRobot v3.0 dataset.

In: episodes of the demo world. Out: a folder as LeRobot's own recorder leaves it, with several episodes in each
mp4. The folder is whole or absent: built under a temporary name and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from topreward.demo.episodes import rollout_of
from topreward.demo.mp4 import batches, open_mp4, write_video
from topreward.errors import ConfigError, DatasetError
from topreward.types import Clip, Episode

__all__ = ["write_lerobot_dataset", "write_video"]

CAMERA_KEY = "observation.images.front"
STATE_NAMES = ["x", "y", "z", "opening"]
CHUNK = 1000
"""Files per folder."""
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def write_lerobot_dataset(
    episodes: Iterable[Episode],
    root: str | os.PathLike[str],
    *,
    codec: str = "h264",
    gop: int = 2,
    episodes_per_file: int = 50,
) -> Path:
    """Write demo episodes as a LeRobot v3.0 dataset: one camera, the gripper as state, its next state as action.

    `next.reward` is the true progress, `next.success` is true on the last frame of a success. Every
    `episodes_per_file` episodes a new parquet and a new mp4 are begun; `gop` 2 is LeRobot's own. All episodes
    must share a size. Raises DatasetError where `root` already holds something or there is no episode.
    """
    target = Path(root)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(f"{target}: already there; want a folder that is empty or does not exist yet")
    if episodes_per_file < 1:
        raise ConfigError(f"episodes_per_file is {episodes_per_file}, want 1 or more")
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        _build(list(episodes), building, codec, gop, episodes_per_file)
        building.chmod(0o755)
        building.replace(target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return target


def _build(episodes: list[Episode], root: Path, codec: str, gop: int, episodes_per_file: int) -> None:
    if not episodes:
        raise DatasetError("no episodes to write")
    tasks = list(dict.fromkeys(episode.instruction for episode in episodes))
    tables: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    pixels = PixelStatistics()
    like = episodes[0].clip()
    first = 0
    for file, start in enumerate(range(0, len(episodes), episodes_per_file)):
        place = {"chunk_index": file // CHUNK, "file_index": file % CHUNK}
        signals: list[pa.Table] = []
        path = _file(root, VIDEO_PATH.format(video_key=CAMERA_KEY, **place))
        with open_mp4(path, like, codec, gop) as video:
            for index, episode in enumerate(episodes[start : start + episodes_per_file], start):
                clip = episode.clip()
                if (clip.height, clip.width, clip.fps) != (like.height, like.width, like.fps):
                    raise DatasetError(
                        f"episode {episode.id} is {clip!r}, the first is {like!r}; want one size and rate"
                    )
                rows.append(_row(episode, index, first, clip, place, video.frames_written))
                signals.append(_signals(episode, index, first, tasks.index(episode.instruction)))
                first += clip.num_frames
                for frames in batches(clip):
                    video.add(frames)
                    pixels.add(frames[:: int(clip.fps)])
        tables.append(pa.concat_tables(signals))
        pq.write_table(tables[-1], _file(root, DATA_PATH.format(**place)))
    pq.write_table(pa.Table.from_pylist(rows), _file(root, "meta/episodes/chunk-000/file-000.parquet"))
    pq.write_table(_tasks_table(tasks), _file(root, "meta/tasks.parquet"))
    info = _info(len(episodes), first, len(tasks), like, codec)
    stats = {**_statistics(pa.concat_tables(tables)), CAMERA_KEY: pixels.result()}
    for name, content in (("info", info), ("stats", stats)):
        _file(root, f"meta/{name}.json").write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _row(
    episode: Episode, index: int, first: int, clip: Clip, place: dict[str, int], frames_before: int
) -> dict[str, Any]:
    """The line of `meta/episodes` for one episode; `frames_before` of others lie before it in the same mp4."""
    return {
        "episode_index": index,
        "tasks": [episode.instruction],
        "length": clip.num_frames,
        **{f"data/{key}": value for key, value in place.items()},
        "dataset_from_index": first,
        "dataset_to_index": first + clip.num_frames,
        **{f"videos/{CAMERA_KEY}/{key}": value for key, value in place.items()},
        f"videos/{CAMERA_KEY}/from_timestamp": frames_before / clip.fps,
        f"videos/{CAMERA_KEY}/to_timestamp": (frames_before + clip.num_frames) / clip.fps,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }


def _file(root: Path, path: str) -> Path:
    full = root / path
    full.parent.mkdir(parents=True, exist_ok=True)
    return full


def _signals(episode: Episode, episode_index: int, first: int, task_index: int) -> pa.Table:
    """The parquet rows of one episode: state, action, reward, and the five indices that LeRobot wants."""
    rollout = rollout_of(episode)
    length = rollout.num_frames
    state = rollout.gripper.astype(np.float32)
    action = np.concatenate([state[1:], state[-1:]])
    last = np.arange(length) == length - 1
    vector = pa.list_(pa.float32(), len(STATE_NAMES))
    columns = {
        "observation.state": pa.FixedSizeListArray.from_arrays(state.reshape(-1), type=vector),
        "action": pa.FixedSizeListArray.from_arrays(action.reshape(-1), type=vector),
        "next.reward": rollout.progress[rollout.task].astype(np.float32),
        "next.done": last,
        "next.success": last & rollout.success,
        "timestamp": (np.arange(length) / rollout.fps).astype(np.float32),
        "frame_index": np.arange(length),
        "episode_index": np.full(length, episode_index),
        "index": first + np.arange(length),
        "task_index": np.full(length, task_index),
    }
    return pa.table(columns)


def _tasks_table(tasks: list[str]) -> pa.Table:
    """Task texts as the index of a pandas frame with one column, `task_index`: the form LeRobot reads."""
    text = {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    number = {**text, "name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
    names = {**text, "name": None, "field_name": None, "metadata": {"encoding": "UTF-8"}}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [names],
        "columns": [number, text],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    table = pa.table({"task_index": np.arange(len(tasks)), "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _info(num_episodes: int, num_frames: int, num_tasks: int, clip: Clip, codec: str) -> dict[str, Any]:
    def scalar(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [1], "names": None}

    vector = {"dtype": "float32", "shape": [len(STATE_NAMES)], "names": STATE_NAMES}
    video = {
        "video.height": clip.height,
        "video.width": clip.width,
        "video.codec": codec,
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": int(clip.fps),
        "video.channels": 3,
        "has_audio": False,
    }
    camera = {"dtype": "video", "shape": [clip.height, clip.width, 3], "names": ["height", "width", "channels"]}
    return {
        "codebase_version": "v3.0",
        "robot_type": "topreward_demo",
        "total_episodes": num_episodes,
        "total_frames": num_frames,
        "total_tasks": num_tasks,
        "chunks_size": CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(clip.fps),
        "splits": {"train": f"0:{num_episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": {
            CAMERA_KEY: {**camera, "info": video},
            "observation.state": vector,
            "action": vector,
            "next.reward": scalar("float32"),
            "next.done": scalar("bool"),
            "next.success": scalar("bool"),
            "timestamp": scalar("float32"),
            **{name: scalar("int64") for name in ("frame_index", "episode_index", "index", "task_index")},
        },
    }


def _statistics(table: pa.Table) -> dict[str, dict[str, list[float]]]:
    stats = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
        values = flat.to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(table), -1)
        stats[name] = {
            "min": values.min(0).tolist(),
            "max": values.max(0).tolist(),
            "mean": values.mean(0).tolist(),
            "std": values.std(0).tolist(),
            "count": [len(table)],
        }
    return stats


class PixelStatistics:
    """Running minimum, maximum, mean and deviation of each colour channel, in [0, 1]."""

    def __init__(self) -> None:
        self.frames = self.pixels = 0
        self.low, self.high = np.ones(3), np.zeros(3)
        self.sum, self.squares = np.zeros(3), np.zeros(3)

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Take in (N, H, W, 3) frames."""
        values = frames.reshape(-1, 3).astype(np.float64) / 255
        self.frames, self.pixels = self.frames + len(frames), self.pixels + len(values)
        self.low, self.high = np.minimum(self.low, values.min(0)), np.maximum(self.high, values.max(0))
        self.sum, self.squares = self.sum + values.sum(0), self.squares + (values**2).sum(0)

    def result(self) -> dict[str, Any]:
        """As LeRobot keeps it: per channel (3, 1, 1), and the number of frames."""
        mean = self.sum / self.pixels
        std = np.sqrt(np.maximum(self.squares / self.pixels - mean**2, 0))
        shaped = {"min": self.low, "max": self.high, "mean": mean, "std": std}
        return {**{key: value.reshape(3, 1, 1).tolist() for key, value in shaped.items()}, "count": [self.frames]}
