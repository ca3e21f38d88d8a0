"""A film whose curve draws itself below it.

In go a Clip and a Curve; out comes an mp4 with the clip's own frame times. At every moment the curve is drawn as far as
it was known then: up to the last prefix that had been seen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from topreward.errors import CurveError
from topreward.report.sheet import shown_text
from topreward.types import Clip, Curve
from topreward.video.film import each_frame, open_film

WIDTH = 480
"""px, at least and at most: small clips are enlarged, so that the curve can be read."""
PANEL = 150
"""px below the picture."""
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 34, 24
INK, SOFT, FAINT, LINE = (22, 25, 29), (96, 105, 117), (205, 212, 221), (29, 95, 209)
SHARPER = 2
"""Lines are drawn this much larger and made small again: smooth edges."""


def write_overlay(
    clip: Clip, curve: Curve, path: Path, *, width: int = WIDTH, on_frame: Callable[[], None] | None = None
) -> Path:
    """Write the film. `on_frame` is called for each raw frame. Raises CurveError where the curve is not the clip's."""
    if curve.num_frames != clip.num_frames:
        raise CurveError(f"the curve is of {curve.num_frames} frames, {clip.source} has {clip.num_frames}")
    width -= width % 2
    height = max(2, round(clip.height * width / clip.width / 2) * 2)
    panel = _Panel(curve, clip, width)
    canvas = np.empty((height + PANEL, width, 3), dtype=np.uint8)
    with open_film(path, clip.fps, height + PANEL, width) as film:
        for index, pixels in each_frame(clip):
            picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
            canvas[:height] = np.asarray(picture)
            canvas[height:] = panel.at(float(clip.pts_seconds[index]))
            film.add(canvas, float(clip.pts_seconds[index]))
            if on_frame:
                on_frame()
    return path


class _Panel:
    """The curve below the film."""

    def __init__(self, curve: Curve, clip: Clip, width: int) -> None:
        self.curve, self.width, self.end = curve, width, max(float(clip.pts_seconds[-1]), 1e-9)
        known = curve.values[np.isfinite(curve.values)]
        self.low, self.high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        if self.high - self.low < 1e-9:
            self.low, self.high = self.low - 0.5, self.high + 0.5
        self.ground = self._ground()

    def at(self, seconds: float) -> NDArray[np.uint8]:
        """(PANEL, width, 3) uint8 at a time of the film."""
        image = self.ground.copy()
        draw = ImageDraw.Draw(image)
        seen = int(np.searchsorted(self.curve.times, seconds + 1e-6, side="right"))
        points = [self._place(k) for k in range(seen)]
        for first, second in pairwise(points):
            if first and second:
                draw.line([first, second], fill=LINE, width=3 * SHARPER)
        if points and points[-1]:
            x, y = points[-1]
            draw.ellipse([x - 8, y - 8, x + 8, y + 8], fill=LINE)
        x = self._x(seconds)
        draw.line([(x, TOP * SHARPER), (x, (PANEL - BOTTOM) * SHARPER)], fill=SOFT, width=SHARPER)
        small = image.resize((self.width, PANEL), Image.Resampling.BOX)
        value = self.curve.values[seen - 1] if seen else np.nan
        said = f"{value:.3f} {self.curve.unit}" if np.isfinite(value) else "not scored yet" if not seen else "undefined"
        ImageDraw.Draw(small).text((self.width - RIGHT, 8), said, fill=LINE, font=_font(14), anchor="ra")
        return np.asarray(small)

    def _ground(self) -> Image.Image:
        image = Image.new("RGB", (self.width * SHARPER, PANEL * SHARPER), "white")
        draw = ImageDraw.Draw(image)
        base = (PANEL - BOTTOM) * SHARPER
        for value in (self.low, self.high):
            y = self._y(value)
            draw.line([(LEFT * SHARPER, y), ((self.width - RIGHT) * SHARPER, y)], fill=FAINT, width=SHARPER)
            text = ((LEFT - 6) * SHARPER, y)
            draw.text(text, f"{value:.3g}", fill=SOFT, font=_font(11 * SHARPER), anchor="rm")
        for seconds, anchor in ((0.0, "la"), (self.end, "ra")):
            place = (self._x(seconds), base + 4 * SHARPER)
            draw.text(place, f"{seconds:.1f} s", fill=SOFT, font=_font(11 * SHARPER), anchor=anchor)
        room = max(10, (self.width - 150) // 7)
        draw.text(
            (10 * SHARPER, 8 * SHARPER),
            shown_text(self.curve.instruction, room).replace(r"\$", "$"),
            fill=INK,
            font=_font(13 * SHARPER),
        )
        return image

    def _place(self, k: int) -> tuple[float, float] | None:
        value = self.curve.values[k]
        return (self._x(float(self.curve.times[k])), self._y(float(value))) if np.isfinite(value) else None

    def _x(self, seconds: float) -> float:
        return (LEFT + seconds / self.end * (self.width - LEFT - RIGHT)) * SHARPER

    def _y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return (TOP + (1 - share) * (PANEL - TOP - BOTTOM)) * SHARPER


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
