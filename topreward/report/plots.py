"""Curves as pictures: what the model saw, above what it said.

In go Curves and the Clips they are of; out comes a matplotlib Figure or an image file. Draws only numbers that
were computed: one point per prefix, nothing in between but a line.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from topreward.errors import ConfigError, nearest
from topreward.files import whole_file
from topreward.metrics import voc
from topreward.report.text import shorten
from topreward.types import Clip, Curve

FORMATS = ("png", "svg", "pdf", "jpg", "webp")
COLOURS = ("#2f6db3", "#d1495b", "#e0a100", "#3c8d5a", "#7a5ea8", "#7f7f7f")
STRIP_FRAMES = 8
LONGEST = 100
"""Letters of text from outside in a row of the picture; its middle is left out beyond that."""


def plot_curves(
    curves: Mapping[str, Curve], clips: Mapping[str, Clip] | None = None, *, frames: int = STRIP_FRAMES
) -> Figure:
    """Curves over time, by label, each below a film strip of its clip where there is one.

    Values in nats are drawn as they are; a second axis would suggest a scale that log-probabilities do not
    have. `frames`: pictures in a strip.
    """
    clips = clips or {}
    strips = [label for label in curves if label in clips]
    figure = Figure(figsize=(8, 3.4 + 1.05 * len(strips)), layout="constrained")
    axes = figure.subplots(len(strips) + 1, 1, height_ratios=[1.0] * len(strips) + [3.2], squeeze=False)[:, 0]
    colours = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(curves)}
    for label, axis in zip(strips, axes[:-1], strict=True):
        _draw_strip(axis, clips[label], frames)
        axis.set_title(shorten(label, LONGEST), loc="left", fontsize=9, color=colours[label], parse_math=False)
    chart = axes[-1]
    lines = [
        chart.plot(curve.times, curve.values, marker="o", markersize=3.5, color=colours[label])[0]
        for label, curve in curves.items()
    ]
    units = sorted({curve.unit for curve in curves.values()})
    chart.set_xlabel("time (s)")
    chart.set_ylabel(_axis_label(units))
    chart.grid(alpha=0.25)
    chart.spines[["top", "right"]].set_visible(False)
    # Below the axis: four long labels would cover the curves.
    numbers = [str(n) for n in range(len(lines))]  # a label that begins with _ would be left out
    columns = 2 if len(curves) > 1 else 1
    legend = chart.legend(
        lines, numbers, frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=columns
    )
    for shown, (label, curve) in zip(legend.get_texts(), curves.items(), strict=True):
        shown.set_parse_math(False)
        shown.set_text(f"{shorten(label, LONGEST // columns - 12)}   VOC {_number(voc(curve.values))}")
    return figure


def figure_format(path: str | os.PathLike[str]) -> str:
    """What a file's ending says. Raises ConfigError for an unknown one."""
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise ConfigError(f"{path}: cannot draw '.{ending}'{nearest(ending, FORMATS)}; there are {', '.join(FORMATS)}")
    return ending


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write an image file; its ending says the format. Raises ConfigError for an unknown one, and where the file cannot
    be written."""
    ending = figure_format(path)
    with whole_file(path) as temporary, warnings.catch_warnings():
        # A letter that the font does not have is a box in the picture; that is all there is to say of it.
        warnings.filterwarnings("ignore", r"Glyph .* missing from")
        figure.savefig(temporary, format=ending, dpi=150)


def _draw_strip(axis: Axes, clip: Clip, frames: int) -> None:
    indices = np.unique(np.linspace(0, clip.num_frames - 1, frames).round().astype(int))
    pictures = clip.frames(indices)
    gap = np.full((clip.height, max(1, clip.width // 40), 3), 255, dtype=np.uint8)
    row: list[np.ndarray] = [picture for frame in pictures for picture in (frame, gap)][:-1]
    axis.imshow(np.concatenate(row, axis=1), aspect="equal")
    axis.set_axis_off()


def _axis_label(units: Sequence[str]) -> str:
    if list(units) == ["nats"]:
        return "log p(True)   (nats)"
    return " / ".join(units)


def _number(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.2f}"
