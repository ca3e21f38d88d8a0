"""An episode's film and thumbnails, small enough for a page.

In goes a Clip; out come an H.264 mp4 whose times are the clip's own, and one JPEG strip of the scored frames. Frames
are decoded a few at a time, however long the clip is.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topreward.types import Clip
from topreward.video.film import each_frame, open_film

FILM_WIDTH = 320
"""Most px."""
THUMB_HEIGHT = 54
"""px"""
MOST_THUMBS = 40
BATCH = 32
"""Frames decoded at a time."""


@dataclass(frozen=True)
class Strip:
    """Thumbnails side by side in one picture."""

    jpeg: bytes
    width: int
    """Of one, px."""
    height: int
    frames: list[int]
    """Raw frame of each."""


def film_size(height: int, width: int, most: int = FILM_WIDTH) -> tuple[int, int]:
    """(height, width) at most `most` px wide, even, aspect ratio kept."""
    scale = min(1.0, most / width)
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


def write_film(clip: Clip, path: Path, *, width: int = FILM_WIDTH) -> Path:
    """Write the clip as mp4 with its own frame times."""
    height, width = film_size(clip.height, clip.width, width)
    with open_film(path, clip.fps, height, width) as film:
        for index, pixels in each_frame(clip):
            film.add(pixels, float(clip.pts_seconds[index]))
    return path


def thumbnails(clip: Clip, frames: NDArray[np.int64]) -> Strip:
    """The pictures of some raw frames, at most MOST_THUMBS of them, evenly chosen."""
    chosen = np.unique(frames)
    if chosen.size > MOST_THUMBS:
        chosen = chosen[np.unique(np.linspace(0, chosen.size - 1, MOST_THUMBS).round().astype(int))]
    width = max(1, round(clip.width * THUMB_HEIGHT / clip.height))
    strip = Image.new("RGB", (width * chosen.size, THUMB_HEIGHT))
    place = 0
    for start in range(0, chosen.size, BATCH):
        for pixels in clip.frames(chosen[start : start + BATCH]):
            small = Image.fromarray(pixels).resize((width, THUMB_HEIGHT), Image.Resampling.BOX)
            strip.paste(small, (place, 0))
            place += width
    out = io.BytesIO()
    strip.save(out, "JPEG", quality=80)
    return Strip(out.getvalue(), width, THUMB_HEIGHT, [int(i) for i in chosen])
