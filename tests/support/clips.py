"""Clips and frames that tests are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topreward.types import Clip


def rolled_frames(seed: int, count: int, height: int, width: int, shift: int) -> NDArray[np.uint8]:
    """Noise that moves sideways: frame i is frame 0 rolled by i * shift. (count, height, width, 3)."""
    base = (np.random.Generator(np.random.PCG64(seed)).random((height, width, 3)) * 255).astype(np.uint8)
    return np.stack([np.roll(base, i * shift, axis=1) for i in range(count)])


def rolled_clip(
    seed: int = 0, count: int = 240, height: int = 128, width: int = 160, shift: int = 3, fps: float = 30.0
) -> Clip:
    return Clip.from_array(rolled_frames(seed, count, height, width, shift), fps)
