"""Clips whose frames have been resized ahead, by whoever decoded them.

A ReadyClip is a Clip that also gives frames as a model is shown them, for the sizes that somebody has prepared. Whoever
shows frames to a model asks `shown_as` first. Knows no model, decodes and resizes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from topreward.types import Clip

Indices = NDArray[np.int64]
Give = Callable[[Indices], NDArray[np.uint8]]
"""(N,) frame indices, in any order → (N, height, width, 3) uint8 RGB."""


@dataclass(frozen=True)
class Resize:
    """How frames are resized before a model sees them."""

    how: Literal["square", "keep_aspect"]
    height: int
    """px"""
    width: int
    """px"""


@dataclass(frozen=True, eq=False)
class ReadyClip(Clip):
    """A clip some of whose frames lie ready as they will be shown."""

    resized: Mapping[Resize, Give] = field(default_factory=dict, repr=False)


def shown_as(clip: Clip, resize: Resize) -> Give | None:
    """What gives the clip's frames resized like this; None where nobody has prepared them."""
    return clip.resized.get(resize) if isinstance(clip, ReadyClip) else None


def remapped(clip: Clip, where: Callable[[Indices], Indices], *, source: str) -> Clip:
    """The clip that shows at frame i what `clip` shows at frame `where`(i); the times stay."""

    def through(give: Give) -> Give:
        return lambda indices: give(where(indices))

    if isinstance(clip, ReadyClip):
        resized = {resize: through(give) for resize, give in clip.resized.items()}
        return replace(clip, decode=through(clip.frames), resized=resized, source=source)
    return replace(clip, decode=through(clip.frames), source=source)
