"""Episodes per second: packed against one by one, and from video files to a parquet file.

In go a model and clips; out come rates. The public ways only: `score_many`, `read_video`.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common import interleaved, median
from decoding import decode, sampled
from topreward.config import Protocol
from topreward.estimators.topreward import TOPReward
from topreward.types import Clip, Curve, Episode

FILES = {"av1, gop 2": ("av1", 2), "h264, gop 250": ("h264", 250)}
"""What LeRobot records by default, and what an encoder does by default: at gop 250 every frame before is decoded."""


def packed_rate(
    estimator: TOPReward, clips: list[Clip], task: str, protocol: Protocol, **repeats: Any
) -> dict[str, Any]:
    """Clips one by one and in batches of growing size, in turn. `repeats`: as `interleaved` has them."""
    episodes = [_episode(sampled(clip, protocol), task, i) for i, clip in enumerate(clips)]
    sizes = sorted({1, 8, 16, 32, len(clips)} & set(range(1, len(clips) + 1)))

    def score(size: int) -> list[Curve]:
        return list(estimator.score_many(episodes, protocol=protocol, batch_size=size))

    start = time.perf_counter()
    first = {size: score(size) for size in sizes}
    ways: dict[str, Callable[[], Any]] = {str(size): partial(score, size) for size in sizes}
    seconds = interleaved(ways, warm=time.perf_counter() - start, **repeats)
    alone = first[1]
    largest = {}
    batches = {}
    for size in sizes[1:]:
        pairs = zip(first[size], alone, strict=True)
        largest[str(size)] = max(float(np.abs(a.values - b.values).max()) for a, b in pairs)
        batches[str(size)] = sorted({curve.provenance["packed"] for curve in first[size]}, reverse=True)
    times = {size: median(s) for size, s in seconds.items()}
    return {
        "clips": len(clips),
        "frames": clips[0].num_frames,
        "tokens": alone[0].provenance["tokens"],
        "seconds": seconds,
        "clips_per_second": {size: len(clips) / t for size, t in times.items()},
        "over_one_by_one": {size: times["1"] / t for size, t in times.items()},
        "batches": batches,
        "largest_difference_to_one_by_one": largest,
    }


@dataclass(frozen=True)
class Labelling:
    """How the videos are decoded and how often all is timed."""

    episodes: int
    workers: int
    processes: bool
    repeats: int

    def pool(self) -> Executor:
        if self.processes:  # spawned: a forked process must not meet a GPU
            return ProcessPoolExecutor(self.workers, mp_context=multiprocessing.get_context("spawn"))
        return ThreadPoolExecutor(self.workers)


def labelling_rate(estimator: TOPReward, clip: Clip, task: str, protocol: Protocol, how: Labelling) -> dict[str, Any]:
    """A video file, decoded again and again by a pool, scored and written; against the model alone."""
    from topreward.demo.mp4 import write_video

    with tempfile.TemporaryDirectory() as name, how.pool() as pool:
        folder = Path(name)
        paths = {
            name: write_video(clip, folder / f"{codec}.mp4", codec=codec, gop=gop)
            for name, (codec, gop) in FILES.items()
        }
        decoding = {name: _seconds_to_decode(path, protocol) for name, path in paths.items()}
        held = decode(str(next(iter(paths.values()))), protocol)

        def alone(episodes: int = how.episodes) -> None:
            list(_scored(estimator, task, protocol, (held for _ in range(episodes))))

        def label(path: Path, episodes: int = how.episodes) -> None:
            work = partial(pool.submit, decode, str(path), protocol)
            _write(folder / "progress.parquet", _scored(estimator, task, protocol, _ahead(work, episodes, how.workers)))

        alone(2)
        for path in paths.values():  # every worker starts and meets every codec before the clock does
            label(path, 2 * how.workers)
        ways: dict[str, Callable[[], Any]] = {"alone": alone}
        ways |= {name: partial(label, path) for name, path in paths.items()}
        seconds = interleaved(ways, how.repeats, warm=0.0)
        sizes = {name: path.stat().st_size for name, path in paths.items()}
    times = {name: median(s) for name, s in seconds.items()}
    return {
        "episodes": how.episodes,
        "frames": clip.num_frames,
        "decoding_with": "processes" if how.processes else "threads",
        "decoding_workers": how.workers,
        "video_bytes": sizes,
        "seconds_to_decode_one": decoding,
        "seconds": seconds,
        "model_only_per_second": how.episodes / times["alone"],
        "decode_to_parquet_per_second": {name: how.episodes / times[name] for name in FILES},
        "share_of_model_only": {name: times["alone"] / times[name] for name in FILES},
    }


def _seconds_to_decode(path: Path, protocol: Protocol) -> float:
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        decode(str(path), protocol)
        spent.append(time.perf_counter() - start)
    return median(spent)


def _scored(estimator: TOPReward, task: str, protocol: Protocol, clips: Iterator[Clip]) -> Iterator[Curve]:
    return estimator.score_many((_episode(clip, task, i) for i, clip in enumerate(clips)), protocol=protocol)


def _episode(clip: Clip, task: str, number: int) -> Episode:
    return Episode(str(number), task, lambda: clip)


def _ahead(work: Callable[[], Future[Clip]], count: int, workers: int) -> Iterator[Clip]:
    """Clips in order; a few more are asked for than there are workers, so that none waits."""
    waiting: deque[Future[Clip]] = deque()
    for _ in range(count):
        waiting.append(work())
        if len(waiting) > workers + 1:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _write(path: Path, curves: Iterator[Curve]) -> None:
    """One row per frame, as a LeRobot dataset's progress file has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = [(name, pa.int64()) for name in ("index", "episode_index", "frame_index")]
    schema = pa.schema([*whole, ("progress_sparse", pa.float32())])
    with pq.ParquetWriter(path, schema) as writer:
        for episode, curve in enumerate(curves):
            frames = np.arange(curve.num_frames)
            progress = curve.to_frames(curve.progress()).astype(np.float32)
            columns = [episode * curve.num_frames + frames, np.full_like(frames, episode), frames, progress]
            writer.write_table(pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema))
