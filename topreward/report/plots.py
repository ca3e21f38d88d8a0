"""Curves as pictures: what the model saw, above what it said.

In go Curves and the Clips they are of; out comes a matplotlib Figure or an image file. Draws only numbers that
were computed: one point per prefix, nothing in between but a line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from topreward.errors import ConfigError, nearest
from topreward.metrics import voc
from topreward.types import Clip, Curve

FORMATS = ("png", "svg", "pdf", "jpg", "webp")
COLOURS = ("#2f6db3", "#d1495b", "#e0a100", "#3c8d5a", "#7a5ea8", "#7f7f7f")
STRIP_FRAMES = 8


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
        axis.set_title(label, loc="left", fontsize=9, color=colours[label])
    chart = axes[-1]
    for label, curve in curves.items():
        text = f"{label}   VOC {_number(voc(curve.values))}"
        chart.plot(curve.times, curve.values, marker="o", markersize=3.5, color=colours[label], label=text)
    units = sorted({curve.unit for curve in curves.values()})
    chart.set_xlabel("time (s)")
    chart.set_ylabel(_axis_label(units))
    chart.grid(alpha=0.25)
    chart.spines[["top", "right"]].set_visible(False)
    # Below the axis: four long labels would cover the curves.
    chart.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=2)
    return figure


def figure_format(path: str | os.PathLike[str]) -> str:
    """What a file's ending says. Raises ConfigError for an unknown one."""
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise ConfigError(f"{path}: cannot draw '.{ending}'{nearest(ending, FORMATS)}; there are {', '.join(FORMATS)}")
    return ending


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write an image file; its ending says the format. Raises ConfigError for an unknown one."""
    target = Path(path).expanduser()
    ending = figure_format(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    try:
        figure.savefig(temporary, format=ending, dpi=150)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


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
