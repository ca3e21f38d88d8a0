"""An episode's frames, decoded once for everything that asks for them.

In go a Clip and the frames that will be asked for; out comes a Clip that keeps them. Knows nothing of who asks.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from topreward.types import Clip

LIMIT_BYTES = 2 * 2**30
"""Most pixels that are kept: 2300 frames of 640x480, 345 of 1920x1080."""


class Remembered:
    """A clip whose chosen frames are decoded in one go and kept, unless they are too many to keep.

    `clip`: looks like the original. Where the frames would take more than `limit_bytes`, none is kept: each is
    decoded whenever it is asked for, and `note` says so.
    """

    def __init__(self, clip: Clip, indices: NDArray[np.int64], *, limit_bytes: int = LIMIT_BYTES) -> None:
        """`indices`: raw frames that will be asked for, in any order. Decodes them: raises VideoError."""
        self._original = clip
        self._kept = np.unique(np.asarray(indices, dtype=np.int64))
        size = self._kept.size * clip.height * clip.width * 3
        self.note: str | None = None
        self.seconds = 0.0
        """Spent in the original's decoder, s."""
        self.decoded = 0
        """Frames that the original's decoder gave."""
        if size > limit_bytes:
            self.note = (
                f"{self._kept.size} frames would take {size / 2**30:.1f} GiB, more than the {limit_bytes / 2**30:.1f} "
                "that are kept: they were decoded anew for each estimator and control"
            )
            self._kept = self._kept[:0]
        self._pixels = self._decode(self._kept)
        self.clip = replace(clip, decode=self._frames)

    def _frames(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        if not self._kept.size:
            return self._decode(indices)
        place = np.minimum(np.searchsorted(self._kept, indices), self._kept.size - 1)
        known = self._kept[place] == indices
        if known.all():
            return self._pixels[place]
        out = np.empty((indices.size, *self._pixels.shape[1:]), dtype=np.uint8)
        out[known] = self._pixels[place[known]]
        out[~known] = self._decode(indices[~known])
        return out

    def _decode(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        start = time.perf_counter()
        pixels = self._original.frames(indices)
        self.seconds += time.perf_counter() - start
        self.decoded += int(indices.size)
        return pixels
