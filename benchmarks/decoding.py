"""Video files → clips whose sampled frames are in memory. Knows no model, so that a process that only decodes
starts without torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from topreward.config import Protocol
from topreward.sampling import make_schedule
from topreward.types import Clip


@dataclass(frozen=True, eq=False)
class Held:
    """Decoded frames, as a Clip asks for them."""

    indices: NDArray[np.int64]
    """(N,) increasing."""
    frames: NDArray[np.uint8]
    """(N, H, W, 3)"""

    def __call__(self, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.frames[np.searchsorted(self.indices, wanted)]


def in_memory(clip: Clip, indices: NDArray[np.int64]) -> Clip:
    """The clip with these of its frames decoded. `indices`: increasing."""
    return replace(clip, decode=Held(indices, clip.frames(indices)))


def sampled(clip: Clip, protocol: Protocol) -> Clip:
    """The clip with the frames decoded that a protocol asks for."""
    return in_memory(clip, make_schedule(clip.pts_seconds, clip.fps, protocol).indices)


def decode(path: str, protocol: Protocol) -> Clip:
    """A video file, opened and decoded as far as a protocol asks for."""
    from topreward.video import read_video

    return sampled(read_video(path), protocol)
