"""An episode as a page shows it: its curves in every view, its controls, true progress, and what to look at.

In goes a Measured; out comes what JSON holds. Numbers are computed here, by the functions that make rows and labels;
the page draws them and computes none.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topreward.evaluation.rows import failed_answer
from topreward.jobs.derive import reading
from topreward.jobs.episode import Measured
from topreward.jobs.plan import REAL, TIME_INDEX, Plan
from topreward.metrics import voc
from topreward.report.page.marks import marks
from topreward.report.page.views import defined, views
from topreward.types import Curve

MOST_TRUTH = 240
"""Points of true progress that are drawn."""


def episode_data(measured: Measured, plan: Plan) -> dict[str, Any]:
    """All that the page knows of one episode but its film."""
    curves: list[dict[str, Any]] = []
    seen: dict[str, list[dict[str, Any]]] = {}
    first: Curve | None = None
    for estimator in estimators_of(plan):
        for control in plan.shown(estimator):
            found = reading(measured, plan, estimator, control)
            if found is None:
                continue
            if found.curve is None:
                curves.append({"estimator": estimator, "control": control, "error": found.error})
                continue
            first = first or found.curve
            odds = "log_odds" not in plan.estimators
            curves.append(_curve(estimator, control, found.curve, nominal_fps(measured, found.curve), odds))
            if control == REAL:
                seen[estimator] = [vars(mark) for mark in marks(found.curve)]
    return {
        "id": measured.id,
        "instruction": measured.instruction,
        "other": measured.other_instruction,
        "success": measured.success,
        "split": measured.split,
        "frames": measured.num_frames,
        "seconds": None if first is None else float(first.times[-1]),
        "error": measured.error,
        "notes": list(dict.fromkeys([*measured.notes, *_curve_notes(measured)])),
        "curves": curves,
        "marks": seen,
        "truth": None if first is None else _truth(measured, first),
    }


def estimators_of(plan: Plan) -> tuple[str, ...]:
    """Those that are drawn: not the clock, whose curve is a straight line."""
    return tuple(name for name in plan.rows if name != TIME_INDEX)


def nominal_fps(measured: Measured, curve: Curve) -> float:
    """Raw frames/s: what the curve says of its video, else what its times and lengths give."""
    video = curve.provenance.get("video")
    given = video.get("fps") if isinstance(video, dict) else None
    if isinstance(given, int | float) and math.isfinite(given) and given > 0:
        return float(given)
    span = float(curve.times[-1])
    return (int(curve.prefix_lengths[-1]) - 1) / span if span > 0 else 1.0


def numbers(values: ArrayLike, digits: int = 5) -> list[float | None]:
    """As JSON has them, short; what is not finite is None."""
    array = np.asarray(values, dtype=np.float64)
    return [float(f"{x:.{digits}g}") if math.isfinite(x) else None for x in array.tolist()]


def _curve(estimator: str, control: str, curve: Curve, fps: float, odds: bool) -> dict[str, Any]:
    return {
        "estimator": estimator,
        "control": control,
        "unit": curve.unit,
        "times": numbers(curve.times, 7),
        "lengths": curve.prefix_lengths.tolist(),
        "voc": numbers([voc(curve.values)])[0],
        "failure": failed_answer(curve),
        "views": {key: numbers(values) for key, values in defined(views(estimator, curve, fps, odds=odds)).items()},
    }


def _curve_notes(measured: Measured) -> list[str]:
    return [note for r in measured.readings if r.curve is not None for note in r.curve.notes]


def _truth(measured: Measured, curve: Curve) -> dict[str, Any] | None:
    """True progress over time. Frame times are known at the prefixes' ends; between them they are interpolated."""
    if measured.progress is None or not measured.num_frames:
        return None
    frames = np.unique(np.linspace(0, measured.num_frames - 1, MOST_TRUTH).round().astype(int))
    return {"times": numbers(_times_of(curve, frames), 6), "values": numbers(measured.progress[frames], 4)}


def _times_of(curve: Curve, frames: NDArray[np.int64]) -> NDArray[np.float64]:
    known = np.concatenate([[0.0], curve.prefix_lengths - 1.0])
    times = np.concatenate([[0.0], curve.times])
    unique = np.concatenate([[True], np.diff(known) > 0])
    return np.asarray(np.interp(frames, known[unique], times[unique]), dtype=np.float64)
