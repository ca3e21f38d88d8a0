"""Clips made of other clips: an episode out of a file that holds many, cameras side by side.

In: Clips. Out: Clips. Also keeps the last opened video files, because opening one means to read through all its
packets. Knows nothing of datasets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topreward.errors import VideoError
from topreward.types import Clip
from topreward.video import read_video
from topreward.video.pixels import check_size, empty_frames


def open_video(path: Path) -> Clip:
    """The clip of a whole file, opened once and kept while it is among the last 8 that were asked for."""
    try:
        state = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return read_video(path)  # which says what is wrong with it
    return _opened(os.fspath(path), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _opened(path: str, modified: int, size: int) -> Clip:
    # modified, size: a file that was written anew is another file
    return read_video(path)


def frames_at(clip: Clip, seconds: NDArray[np.float64], *, fps: float, source: str) -> Clip:
    """The frames of `clip` at some times, as a clip of its own that starts at 0 s.

    `seconds`: (T,) times in `clip`. Each takes the frame nearest to it, which must lie within half a frame,
    0.5/fps. Raises VideoError naming the first frame for which there is none, or that would be shown twice.
    """
    pts = clip.pts_seconds
    after = np.clip(np.searchsorted(pts, seconds), 1, max(pts.size - 1, 1))
    if pts.size == 1:
        nearest = np.zeros(seconds.shape, dtype=np.int64)
    else:
        nearest = after - (seconds - pts[after - 1] <= pts[after] - seconds)
    # 1e-3 of a frame for times that went through float32
    missed = np.flatnonzero(~(np.abs(pts[nearest] - seconds) <= 0.501 / fps))
    if missed.size:
        frame = int(missed[0])
        raise VideoError(
            f"{source}: frame {frame} should be at {seconds[frame]:.4f} s of {clip.source}, whose frames are at "
            f"0..{pts[-1]:.4f} s; the nearest is at {pts[nearest[frame]]:.4f} s, more than half a frame away"
        )
    repeated = np.flatnonzero(np.diff(nearest) <= 0)
    if repeated.size:
        frame = int(repeated[0])
        raise VideoError(
            f"{source}: frames {frame} and {frame + 1}, at {seconds[frame]:.4f} s and {seconds[frame + 1]:.4f} s of "
            f"{clip.source}, are one and the same picture there"
        )
    return Clip(
        pts_seconds=pts[nearest] - pts[nearest[0]],
        fps=fps,
        height=clip.height,
        width=clip.width,
        decode=_Part(clip, nearest),
        source=source,
        notes=clip.notes,
    )


@dataclass(frozen=True, eq=False)
class _Part:
    """`Clip.decode` of some frames of another clip."""

    whole: Clip
    frames: NDArray[np.int64]

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.whole.frames(self.frames[indices])


@dataclass(frozen=True, eq=False)
class _Row:
    """`Clip.decode` of views from left to right."""

    clips: tuple[Clip, ...]
    height: int
    widths: tuple[int, ...]

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        out = empty_frames(len(indices), self.height, sum(self.widths))
        left = 0
        for clip, width in zip(self.clips, self.widths, strict=True):
            out[:, :, left : left + width] = _resized(clip.frames(indices), self.height, width)
            left += width
        return out


def side_by_side(clips: Sequence[Clip], *, source: str) -> Clip:
    """Several cameras' views of the same moments as one clip, from left to right.

    Views of one height stand unchanged; otherwise every view is enlarged to the tallest one's height (bicubic,
    keeping its aspect ratio). Times and frame rate are the first one's. Raises VideoError where the clips differ
    in frame count or, by half a frame or more, in time.
    """
    first = clips[0]
    if len(clips) == 1:
        return first
    for clip in clips[1:]:
        if clip.num_frames != first.num_frames:
            raise VideoError(f"{source}: {first!r} and {clip!r} differ in their number of frames")
        if np.abs(clip.pts_seconds - first.pts_seconds).max() >= 0.5 / first.fps:
            raise VideoError(f"{source}: {first!r} and {clip!r} show different moments")
    height = max(clip.height for clip in clips)
    widths = tuple(max(1, round(clip.width * height / clip.height)) for clip in clips)
    check_size(source, height, sum(widths))

    return Clip(
        pts_seconds=first.pts_seconds,
        fps=first.fps,
        height=height,
        width=sum(widths),
        decode=_Row(tuple(clips), height, widths),
        source=source,
        notes=tuple(dict.fromkeys(note for clip in clips for note in clip.notes)),
    )


def _resized(frames: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(N, h, w, 3) → (N, height, width, 3), untouched where the size is right already."""
    if frames.shape[1:3] == (height, width):
        return frames
    out = empty_frames(frames.shape[0], height, width)
    for index, frame in enumerate(frames):
        out[index] = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
    return out
