"""Pictures → an H.264 mp4 for people to look at: small, with the pictures' own times, quick to seek in.

In go RGB frames and their times; out comes a file that browsers play. Not for datasets: `demo.mp4` writes those.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from topreward.types import Clip

TICKS = 90_000
"""Ticks per second of a film's clock."""
BATCH = 32
"""Frames decoded at a time."""
OPTIONS = {"crf": "26", "preset": "veryfast", "bf": "0", "threads": "1", "x264-params": "mbtree=0"}
"""No B-frames: a browser then shows the frame that it was asked for. One thread and no mbtree: the same bytes again."""


class Film:
    """An mp4 being written."""

    def __init__(self, container: Any, fps: float, height: int, width: int) -> None:
        self._container, self._size = container, (height, width)
        self._stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        # A keyframe a second: a seek decodes at most one second.
        self._stream.options = {**OPTIONS, "g": str(max(1, min(round(fps), 60)))}
        self._stream.codec_context.time_base = Fraction(1, TICKS)

    def add(self, pixels: NDArray[np.uint8], seconds: float) -> None:
        """Append a frame (H, W, 3) uint8 RGB of any size at its time, s; times increase."""
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        height, width = self._size
        picture = picture.reformat(width=width, height=height, format="yuv420p", interpolation="AREA")
        picture.pts, picture.time_base = round(seconds * TICKS), Fraction(1, TICKS)
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode(None))


@contextmanager
def open_film(path: Path, fps: float, height: int, width: int) -> Iterator[Film]:
    """A Film of `height` x `width` px, both even; `fps` is nominal."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        film = Film(container, fps, height, width)
        yield film
        film.finish()


def each_frame(clip: Clip) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Every raw frame of a clip with its index, a few decoded at a time."""
    for start in range(0, clip.num_frames, BATCH):
        indices = np.arange(start, min(start + BATCH, clip.num_frames))
        yield from zip(indices.tolist(), clip.frames(indices), strict=True)
