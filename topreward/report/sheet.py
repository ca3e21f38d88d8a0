"""A contact sheet: an episode's frames above its curve, one picture for papers and chats.

In go a Measured, its plan and its Clip; out comes a matplotlib Figure. Draws only numbers that were computed.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from topreward.errors import CurveError
from topreward.jobs.derive import reading
from topreward.jobs.episode import Measured
from topreward.jobs.plan import FROZEN, REAL, Plan
from topreward.metrics import voc
from topreward.report.plots import COLOURS
from topreward.types import Clip, Curve

FRAMES = 8


def contact_sheet(measured: Measured, plan: Plan, clip: Clip | None, *, frames: int = FRAMES) -> Figure:
    """Frames at the times of evenly chosen prefixes, each with its value, above the curve and its frozen control.

    Raises CurveError where the episode has no curve.
    """
    curves = {name: _curve(measured, plan, name, REAL) for name in plan.bases}
    found = {name: curve for name, curve in curves.items() if curve is not None}
    if not found:
        raise CurveError(f"episode {measured.id}: there is no curve to draw ({measured.failed or 'none was made'})")
    first, curve = next(iter(found.items()))
    figure = Figure(figsize=(9, 4.6 if clip else 3.2), layout="constrained")
    figure.suptitle(shown_text(measured.instruction, 110), x=0.01, ha="left", fontsize=11, fontweight="bold")
    if clip is not None:
        above, chart = figure.subplots(2, 1, height_ratios=[1.0, 2.4])
        chosen = np.unique(np.linspace(0, len(curve) - 1, min(frames, len(curve))).round().astype(int))
        pictures = clip.frames(np.minimum(curve.prefix_lengths[chosen] - 1, clip.num_frames - 1))
        gap = max(2, clip.width // 30)
        sheet = np.full((clip.height, chosen.size * (clip.width + gap) - gap, 3), 255, dtype=np.uint8)
        for i, picture in enumerate(pictures):
            sheet[:, i * (clip.width + gap) : i * (clip.width + gap) + clip.width] = picture
        above.imshow(sheet, aspect="equal")
        above.set_axis_off()
        for i, k in enumerate(chosen):
            text = f"{curve.times[k]:.1f} s   {curve.values[k]:.3g}"
            above.text(
                i * (clip.width + gap) + clip.width / 2, clip.height * 1.06, text, ha="center", va="top", fontsize=7.5
            )
    else:
        chart = figure.subplots()
    for i, (name, drawn) in enumerate(found.items()):
        if drawn.unit != curve.unit:
            continue  # another unit has no place on this axis; the page shows it
        colour = COLOURS[i % len(COLOURS)]
        order = voc(drawn.values)
        label = f"{name}   VOC {'undefined' if np.isnan(order) else f'{order:.2f}'}"
        chart.plot(drawn.times, drawn.values, marker="o", markersize=3.5, color=colour, label=label)
        frozen = _curve(measured, plan, name, FROZEN)
        if frozen is not None and name == first:
            chart.plot(
                frozen.times, frozen.values, ":", color=colour, alpha=0.6, linewidth=1.2, label="its frozen video"
            )
    chart.set_xlabel("time (s)")
    chart.set_ylabel({"nats": "log p(True)   (nats)"}.get(curve.unit, curve.unit))
    chart.grid(alpha=0.25)
    chart.spines[["top", "right"]].set_visible(False)
    chart.legend(frameon=False, fontsize=8, loc="best")
    return figure


def shown_text(text: str, most: int) -> str:
    """Text from outside on one line of a picture: no control characters, no mathematics, at most `most` characters."""
    plain = "".join(c if c.isprintable() else " " for c in text[: 4 * most])
    plain = " ".join(plain.split())
    return (plain if len(plain) <= most else f"{plain[: most - 1]}…").replace("$", r"\$")


def _curve(measured: Measured, plan: Plan, estimator: str, control: str) -> Curve | None:
    found = reading(measured, plan, estimator, control)
    return None if found is None else found.curve
