"""How many frames are in memory at once, whichever estimator looks at them."""

FRAMES_AT_ONCE = 128
"""Sampled frames decoded, resized and seen together: a long video is never whole in memory."""
