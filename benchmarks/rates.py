"""Episodes per second: packed against one by one, and from video files to a parquet file.

In go a model and clips; out come rates. The public ways only: `score_many`, `read_video`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common import interleaved, median, timed
from topreward.config import Protocol
from topreward.estimators.topreward import TOPReward
from topreward.sampling import make_schedule
from topreward.types import Clip, Curve, Episode
from ways import in_memory


def packed_rate(
    estimator: TOPReward, clips: list[Clip], task: str, protocol: Protocol, repeats: int, budget: float
) -> dict[str, Any]:
    """Clips one by one and in batches of growing size, in turn."""
    episodes = [_episode(_held(clip, protocol), task, i) for i, clip in enumerate(clips)]
    sizes = sorted({1, 8, 16, 32, len(clips)} & set(range(1, len(clips) + 1)))

    def score(size: int) -> list[Curve]:
        return list(estimator.score_many(episodes, protocol=protocol, batch_size=size))

    ways: dict[str, Callable[[], Any]] = {str(size): partial(score, size) for size in sizes}
    seconds = interleaved(ways, repeats, budget=budget)
    alone = score(1)
    largest = {}
    batches = {}
    for size in sizes[1:]:
        together = score(size)
        pairs = zip(together, alone, strict=True)
        largest[str(size)] = max(float(np.abs(a.values - b.values).max()) for a, b in pairs)
        batches[str(size)] = sorted({curve.provenance["packed"] for curve in together}, reverse=True)
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


def labelling_rate(estimator: TOPReward, clip: Clip, task: str, protocol: Protocol, episodes: int) -> dict[str, Any]:
    """A video file, decoded `episodes` times by a pool of threads, scored and written; against the model alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from topreward import read_video
    from topreward.demo.mp4 import write_video

    workers = max(1, (os.cpu_count() or 1) - 1)
    with tempfile.TemporaryDirectory() as folder:
        path = write_video(clip, Path(folder) / "clip.mp4")

        def decoded() -> Clip:
            return _held(read_video(path), protocol)

        start = time.perf_counter()
        held = decoded()
        decoding = time.perf_counter() - start
        list(estimator.score_many([_episode(held, task, 0)], protocol=protocol))  # warm-up
        alone = timed(lambda: list(_scored(estimator, task, protocol, (held for _ in range(episodes)))))

        def label() -> None:
            out = Path(folder) / "progress.parquet"
            with ThreadPoolExecutor(workers) as pool, pq.ParquetWriter(out, _schema(pa)) as writer:
                clips = _ahead(pool, decoded, episodes, workers + 2)
                for i, curve in enumerate(_scored(estimator, task, protocol, clips)):
                    writer.write_table(_table(pa, curve, i))

        whole = timed(label)
        size = path.stat().st_size
    return {
        "episodes": episodes,
        "frames": clip.num_frames,
        "decoding_threads": workers,
        "seconds_to_decode_one": decoding,
        "video_bytes": size,
        "model_only_per_second": episodes / alone,
        "decode_to_parquet_per_second": episodes / whole,
        "share_of_model_only": alone / whole,
    }


def _scored(estimator: TOPReward, task: str, protocol: Protocol, clips: Iterator[Clip]) -> Iterator[Curve]:
    return estimator.score_many((_episode(clip, task, i) for i, clip in enumerate(clips)), protocol=protocol)


def _episode(clip: Clip, task: str, number: int) -> Episode:
    return Episode(str(number), task, lambda: clip)


def _held(clip: Clip, protocol: Protocol) -> Clip:
    return in_memory(clip, make_schedule(clip.pts_seconds, clip.fps, protocol).indices)


def _ahead(pool: ThreadPoolExecutor, decoded: Callable[[], Clip], count: int, most: int) -> Iterator[Clip]:
    """Clips in order, at most `most` of them decoded before they are asked for."""
    waiting: deque[Future[Clip]] = deque()
    for _ in range(count):
        waiting.append(pool.submit(decoded))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _schema(pa: Any) -> Any:
    columns = [("index", pa.int64()), ("episode_index", pa.int64()), ("frame_index", pa.int64())]
    return pa.schema([*columns, ("progress_sparse", pa.float32())])


def _table(pa: Any, curve: Curve, episode: int) -> Any:
    frames = np.arange(curve.num_frames)
    progress = curve.to_frames(curve.progress()).astype(np.float32)
    columns = [episode * curve.num_frames + frames, np.full_like(frames, episode), frames, progress]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=_schema(pa))
