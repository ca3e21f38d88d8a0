"""An episode's frames, read once for everything that asks for them.

In go an Episode and Recipes (which frames of it are looked at, and at what size); out comes Footage, which travels
between processes, and from it a Clip that has these frames at hand. Knows no model, and not what is measured. Imports
torch only where frames are resized.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topreward.estimators.shared.frames import FRAMES_AT_ONCE
from topreward.types import Clip
from topreward.video.ready import Give, Indices, ReadyClip, Resize

LIMIT_BYTES = 2 * 2**30
"""Most pixels that are kept, counted as decoded: 2300 frames of 640x480, 345 of 1920x1080."""


@dataclass(frozen=True)
class Recipe:
    """What a scorer looks at in a clip. Pickles where its functions do."""

    sample: Callable[[Clip], Indices]
    """Raw frames that the scorer will ask the clip for."""
    resize: Callable[[Clip], Resize] | None = None
    """How they are resized on the CPU; None: the scorer takes them as decoded."""


@dataclass(frozen=True, eq=False)
class View:
    """Frames that are kept, at one size."""

    resize: Resize | None
    """None: as decoded."""
    indices: Indices
    """(N,) raw frames, strictly increasing."""
    pixels: NDArray[np.uint8] = field(repr=False)
    """(N, h, w, 3)"""

    @classmethod
    def empty(cls, clip: Clip, resize: Resize | None, indices: Indices) -> View:
        """Room for these frames."""
        wanted = np.unique(np.asarray(indices, dtype=np.int64))
        size = (clip.height, clip.width) if resize is None else (resize.height, resize.width)
        return cls(resize, wanted, np.empty((wanted.size, *size, 3), dtype=np.uint8))

    def take(self, indices: Indices, frames: NDArray[np.uint8]) -> None:
        """Keep those of some decoded frames that belong here. `indices`: (n,) increasing; `frames`: (n, H, W, 3)."""
        here = np.isin(indices, self.indices)
        if here.any():
            mine = frames if here.all() else frames[here]
            self.pixels[np.searchsorted(self.indices, indices[here])] = resized(mine, self.resize)

    def give(self, otherwise: Give) -> Give:
        """What gives frames by their number; those that are not kept come from `otherwise`."""

        def frames(indices: Indices) -> NDArray[np.uint8]:
            place = np.minimum(np.searchsorted(self.indices, indices), self.indices.size - 1)
            known = self.indices[place] == indices
            if known.all():
                return self.pixels[place]
            out = np.empty((indices.size, *self.pixels.shape[1:]), dtype=np.uint8)
            out[known] = self.pixels[place[known]]
            out[~known] = resized(otherwise(indices[~known]), self.resize)
            return out

        return frames


@dataclass(frozen=True, eq=False)
class Footage:
    """What was read of one clip: its outline, and the frames that are kept. Pickles, without its decoder."""

    pts_seconds: NDArray[np.float64] = field(repr=False)
    fps: float
    height: int
    width: int
    source: str
    views: tuple[View, ...] = ()
    note: str | None = None
    """Where the frames were too many to keep."""
    seconds: float = 0.0
    """Spent in the clip's decoder, s."""
    decoded: int = 0
    """Frames that it gave."""
    stamp: Mapping[str, Any] | None = None
    """What the clip was read from, see `identity.stamp`."""

    @property
    def nbytes(self) -> int:
        """Bytes of the frames that are kept."""
        return sum(view.pixels.nbytes for view in self.views)


def read_footage(
    clip: Clip,
    wanted: Sequence[tuple[Resize | None, Indices]],
    *,
    limit_bytes: int = LIMIT_BYTES,
    stamp: Mapping[str, Any] | None = None,
) -> Footage:
    """Decode what is wanted, each frame once, and resize it. `wanted`: sizes, and (N,) raw frames in any order.

    Where the frames as decoded would take more than `limit_bytes`, none is kept and a note says so. Raises VideoError.
    """
    every = np.unique(np.concatenate([np.asarray(indices, dtype=np.int64) for _, indices in wanted]))
    size = every.size * clip.height * clip.width * 3
    outline = Footage(clip.pts_seconds, clip.fps, clip.height, clip.width, clip.source, stamp=stamp)
    if size > limit_bytes:
        note = (
            f"{every.size} frames would take {size / 2**30:.1f} GiB, more than the {limit_bytes / 2**30:.1f} "
            "that are kept: they were decoded anew for each estimator and control"
        )
        return Footage(**vars(outline) | {"note": note})
    by_size: dict[Resize | None, list[Indices]] = {}
    for resize, indices in wanted:
        by_size.setdefault(resize, []).append(indices)
    views = tuple(View.empty(clip, resize, np.concatenate(parts)) for resize, parts in by_size.items())
    seconds = 0.0
    for start in range(0, every.size, FRAMES_AT_ONCE):
        part = every[start : start + FRAMES_AT_ONCE]
        began = time.perf_counter()
        frames = clip.frames(part)
        seconds += time.perf_counter() - began
        for view in views:
            view.take(part, frames)
    return Footage(**vars(outline) | {"views": views, "seconds": seconds, "decoded": int(every.size)})


class Remembered:
    """A clip that has its footage at hand.

    `clip`: looks like the original. Frames that are not in the footage are decoded whenever they are asked for.
    """

    def __init__(self, footage: Footage, decode: Give) -> None:
        """`decode`: the original's frames by number, in any order."""
        self.footage = footage
        # By itself, so that nothing goes round in a circle: pixels are to go when the last one lets go of them.
        self._more = _Timed(decode)
        whole = next((view for view in footage.views if view.resize is None and view.indices.size), None)
        self.clip = ReadyClip(
            pts_seconds=footage.pts_seconds,
            fps=footage.fps,
            height=footage.height,
            width=footage.width,
            decode=self._more if whole is None else whole.give(self._more),
            source=footage.source,
            resized={
                view.resize: view.give(self._more)
                for view in footage.views
                if view.resize is not None and view.indices.size
            },
        )

    @property
    def seconds(self) -> float:
        """Spent in the original's decoder, s."""
        return self.footage.seconds + self._more.seconds

    @property
    def decoded(self) -> int:
        """Frames that the original's decoder gave."""
        return self.footage.decoded + self._more.decoded


class _Timed:
    """A decoder that counts."""

    def __init__(self, decode: Give) -> None:
        self._decode = decode
        self.seconds = 0.0
        self.decoded = 0

    def __call__(self, indices: Indices) -> NDArray[np.uint8]:
        start = time.perf_counter()
        pixels = self._decode(indices)
        self.seconds += time.perf_counter() - start
        self.decoded += int(indices.size)
        return pixels


def resized(frames: NDArray[np.uint8], resize: Resize | None) -> NDArray[np.uint8]:
    """(N, H, W, 3) → (N, h, w, 3), on the CPU."""
    if resize is None:
        return frames
    from topreward.qwen import pixels

    out: NDArray[np.uint8] = pixels.resized(frames, resize).permute(0, 2, 3, 1).numpy()
    return out
