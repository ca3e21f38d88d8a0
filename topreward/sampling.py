"""Which frames the model sees, and which prefixes are scored.

In go frame counts, rates and times; out come raw frame indices and prefix lengths. Pure numpy: no pixels,
no tokens. "Raw" frames are the video's own; "sampled" frames are those that the model is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topreward.config import Protocol
from topreward.errors import ConfigError

Indices = NDArray[np.int64]

# Qwen3-VL merges two frames into one temporal patch.
TEMPORAL_PATCH = 2

MOST_GRID_POINTS = 200_000_000
"""Two frames a second of a clip as long as its limits allow, which takes seconds."""
GRID_POINTS_AT_ONCE = 1_000_000


@dataclass(frozen=True, eq=False)
class Schedule:
    """The sampled frames of a clip and the prefixes over them."""

    indices: Indices
    """(N,) raw index of each sampled frame, strictly increasing."""
    prefix_lengths: Indices
    """(K,) raw frames in each prefix, strictly increasing."""
    counts: Indices
    """(K,) sampled frames in each prefix, >= 1. Prefixes of equal count show the same frames."""
    seconds: NDArray[np.float64]
    """(N,) time that the prompt gives each sampled frame, s."""

    @property
    def distinct_counts(self) -> Indices:
        """(D,) the different counts, increasing: what has to be scored."""
        return np.unique(self.counts)


def make_schedule(pts_seconds: NDArray[np.float64], fps: float, protocol: Protocol) -> Schedule:
    """What a protocol shows and scores of a clip. `pts_seconds`: (T,) s; `fps`: nominal frames/s."""
    num_frames = pts_seconds.size
    if protocol.frames == "index_grid":
        indices = index_grid(num_frames, fps, protocol.sampling_fps)
    else:
        indices = time_grid(pts_seconds, protocol.sampling_fps)
    seconds = indices / fps if protocol.timestamps == "index" else pts_seconds[indices]
    if protocol.prefix_ends == "patches":
        return schedule_patches(indices, protocol.num_prefixes, seconds)
    return schedule_frames(num_frames, indices, frame_prefixes(num_frames, protocol.num_prefixes), seconds)


def index_grid(num_frames: int, fps: float, sampling_fps: float = 2.0) -> Indices:
    """The original's frames: round(arange(0, T, max(fps / sampling_fps, 1))), duplicates dropped.

    numpy's rounding (half to even). Often leaves out the last frame: 100 frames at 30 fps stop at 90.
    """
    step = max(fps / sampling_fps, 1.0)
    indices = np.round(np.arange(0, num_frames, step)).astype(np.int64)
    return np.unique(np.clip(indices, 0, num_frames - 1))


def time_grid(pts_seconds: NDArray[np.float64], sampling_fps: float = 2.0) -> Indices:
    """The frame nearest to every multiple of 1/sampling_fps seconds, the last one moved to the last frame.

    `pts_seconds`: (T,) true presentation times. Where only one frame would be left of a longer clip, the
    first frame is kept and the last one added, so that there is a beginning and an end. Raises ConfigError for
    more than MOST_GRID_POINTS multiples.
    """
    last = pts_seconds.size - 1
    # 1e-6 s: a clip of exactly n steps keeps its last grid point in spite of rounding.
    count = int((pts_seconds[-1] + 1e-6) * sampling_fps) + 1
    if count > MOST_GRID_POINTS:
        raise ConfigError(
            f"{pts_seconds[-1]:g} s sampled at {sampling_fps:g} frames/s are {count} moments, at most "
            f"{MOST_GRID_POINTS} are looked at; sample fewer frames a second"
        )
    nearest = []
    for start in range(0, count, GRID_POINTS_AT_ONCE):  # a clip may be of few frames and of many hours
        targets = np.arange(start, min(start + GRID_POINTS_AT_ONCE, count)) / sampling_fps
        right = np.clip(np.searchsorted(pts_seconds, targets), 0, last)
        left = np.maximum(right - 1, 0)
        closer_left = targets - pts_seconds[left] <= pts_seconds[right] - targets
        nearest.append(np.unique(np.where(closer_left, left, right)))
    indices = np.unique(np.concatenate(nearest))
    if indices.size == 1 and last > 0:
        return np.array([indices[0], last], dtype=np.int64)
    indices[-1] = last
    return indices.astype(np.int64)


def frame_prefixes(num_frames: int, num_prefixes: int) -> Indices:
    """The original's prefixes: linspace(1, T, num_prefixes) truncated to integers, duplicates dropped.

    `num_prefixes` 0 means every frame. Clips of one or two frames have one prefix, the whole clip.
    """
    if num_frames <= 2:
        return np.array([num_frames], dtype=np.int64)
    if num_prefixes == 0:
        return np.arange(1, num_frames + 1, dtype=np.int64)
    return np.unique(np.linspace(1, num_frames, num_prefixes, dtype=int)).astype(np.int64)


def patch_prefixes(num_sampled: int, num_prefixes: int) -> Indices:
    """Sampled-frame counts that end on temporal-patch boundaries, evenly spread, the whole clip last.

    `num_prefixes` 0, or more than there are patches, means every patch. Returns (K,) counts; the last is
    `num_sampled` even where that is odd (its last patch holds one frame twice).
    """
    patches = -(-num_sampled // TEMPORAL_PATCH)
    if num_prefixes == 0 or num_prefixes >= patches:
        ends = np.arange(1, patches + 1)
    elif num_prefixes == 1:
        ends = np.array([patches])
    else:
        ends = np.round(np.linspace(1, patches, num_prefixes)).astype(np.int64)
    return np.minimum(ends * TEMPORAL_PATCH, num_sampled).astype(np.int64)


def schedule_frames(
    num_frames: int, indices: Indices, prefix_lengths: Indices, seconds: NDArray[np.float64]
) -> Schedule:
    """Count the sampled frames below each prefix length; every prefix holds at least the first frame."""
    if prefix_lengths[-1] > num_frames or indices[-1] >= num_frames:
        raise ConfigError(f"prefixes up to {prefix_lengths[-1]} and frames up to {indices[-1]} of {num_frames} frames")
    counts = np.maximum(np.searchsorted(indices, prefix_lengths, side="left"), 1).astype(np.int64)
    return Schedule(indices, prefix_lengths, counts, seconds)


def schedule_patches(indices: Indices, num_prefixes: int, seconds: NDArray[np.float64]) -> Schedule:
    """Prefixes on temporal-patch boundaries; a prefix's raw length reaches to its last sampled frame."""
    counts = patch_prefixes(indices.size, num_prefixes)
    return Schedule(indices, indices[counts - 1] + 1, counts, seconds)


def patch_seconds(seconds: NDArray[np.float64]) -> list[float]:
    """Mean time of each temporal patch, s. `seconds`: (N,) per sampled frame; an odd last one stands twice."""
    padded = [float(t) for t in seconds]
    if len(padded) % TEMPORAL_PATCH:
        padded.append(padded[-1])
    # (a + b) / 2 in float64, as the stock processor has it: `.1f` of another order of operations may differ.
    return [(padded[i] + padded[i + 1]) / 2 for i in range(0, len(padded), TEMPORAL_PATCH)]
