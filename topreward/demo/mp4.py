"""Clips as mp4 files.

In: frames, or a Clip. Out: an H.264 or AV1 video that is whole or absent: written under a temporary name and
renamed. Knows nothing of episodes.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from topreward.errors import ConfigError, VideoError, nearest
from topreward.files import sweep, whole_file
from topreward.types import Clip

ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"crf": "18", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}),
    "av1": ("libsvtav1", {"crf": "24", "preset": "10"}),
}
"""Codec → its encoder in PyAV's wheels, and options that keep the small pictures crisp, and the same from write to
write: x264's macroblock tree gives another file now and then, and each number of threads one of its own."""
BATCH = 32
"""Frames drawn at a time."""


class Mp4:
    """An mp4 being written, of frames (H, W, 3) uint8 RGB at a constant rate."""

    def __init__(self, path: Path, fps: float, height: int, width: int, codec: str, gop: int) -> None:
        if codec not in ENCODERS:
            raise ConfigError(f"unknown codec {codec!r}{nearest(codec, ENCODERS)}; want one of {', '.join(ENCODERS)}")
        if height % 2 or width % 2:
            raise VideoError(f"{path}: yuv420p wants even sides, got {height}x{width} px")
        encoder, options = ENCODERS[codec]
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1001))
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        self._stream.options = {**options, "g": str(gop)}
        with same_priority():
            self._stream.codec_context.open(strict=False)
        self.frames_written = 0

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Append (N, H, W, 3) frames."""
        for pixels in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            picture.pts = self.frames_written
            picture.time_base = 1 / self._stream.average_rate
            self._container.mux(self._stream.encode(picture))
            self.frames_written += 1

    def close(self, *, finish: bool = True) -> None:
        """Write what the encoder still holds, and the index; without `finish`, just let go of the file."""
        if finish:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def write_video(clip: Clip, path: str | os.PathLike[str], *, codec: str = "h264", gop: int = 15) -> Path:
    """Write a clip of constant frame rate as mp4, yuv420p; a keyframe every `gop` frames.

    Raises VideoError on odd sides or uneven frame times, ConfigError on an unknown codec and where the file cannot be
    written. Returns the path.
    """
    uneven = np.abs(clip.pts_seconds - np.arange(clip.num_frames) / clip.fps).max()
    if uneven > 0.5 / clip.fps:
        raise VideoError(
            f"{clip.source}: frame times are up to {uneven:.3g} s off {clip.fps:g} fps, want a constant rate"
        )
    target = Path(path)
    sweep(target.parent, lambda name: name == target.name)  # what a killed run has left of it
    with whole_file(target) as temporary, open_mp4(temporary, clip, codec, gop) as video:
        for frames in batches(clip):
            video.add(frames)
    return target


@contextmanager
def same_priority() -> Iterator[None]:
    """Give the program's threads back the scheduling that they had; for opening an encoder in.

    As root, SVT-AV1 puts the thread that opens it, and its own, before all others of the machine (SCHED_FIFO, 99), and
    they stay there: whatever the program starts later inherits it, and an encoder that waits by spinning (libvpx)
    then starves the very thread that it waits for, for ever.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    before = _scheduling()
    usual = before[threading.get_native_id()]
    yield
    for thread, now in _scheduling().items():
        policy, priority = before.get(thread, usual)
        if (policy, priority) != now:
            with suppress(ProcessLookupError):  # it has ended since
                os.sched_setscheduler(thread, policy, os.sched_param(priority))


def _scheduling() -> dict[int, tuple[int, int]]:
    """Thread of this process → its policy and real-time priority."""
    found = {}
    for thread in (int(task.name) for task in Path("/proc/self/task").iterdir()):
        with suppress(ProcessLookupError):
            found[thread] = (os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority)
    return found


@contextmanager
def open_mp4(path: Path, like: Clip, codec: str, gop: int) -> Iterator[Mp4]:
    """An Mp4 for frames like those of a clip; finished where the block ends without an error."""
    video = Mp4(path, like.fps, like.height, like.width, codec, gop)
    try:
        yield video
    except BaseException:
        video.close(finish=False)
        raise
    video.close()


def batches(clip: Clip) -> Iterator[NDArray[np.uint8]]:
    """All frames of a clip, (up to BATCH, H, W, 3) at a time."""
    for start in range(0, clip.num_frames, BATCH):
        yield clip.frames(np.arange(start, min(start + BATCH, clip.num_frames)))
