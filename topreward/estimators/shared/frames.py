"""How many frames are in memory at once, whichever estimator looks at them."""

from topreward.limits import limit

FRAMES_AT_ONCE = 128
"""Sampled frames decoded, resized and seen together: a long video is never whole in memory."""


def fitting(frames: int, height: int, width: int) -> int:
    """How many of `frames` frames, an even number, may be decoded at once: as many as one array may hold."""
    return max(2, min(frames, int(limit("max_array_bytes")) // (height * width * 3) // 2 * 2))
