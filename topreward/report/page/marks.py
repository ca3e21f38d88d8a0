"""Where a curve is worth a look: it drops, jumps or stands still.

In go a curve's values and times; out come Marks, in words and seconds. Judged on the curve's own range, but only where
that range is more than jitter: of a curve that hardly moves, the one mark says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from topreward.rewards import progress
from topreward.types import Curve

Kind = Literal["drop", "jump", "stall", "flat"]

DROP = 0.15
"""Least fall of progress, over a falling stretch."""
JUMP = 0.4
"""Least rise of progress from one prefix to the next."""
STALL_SHARE, STALL_SECONDS = 0.2, 1.0
"""A stall lasts at least this share of the video and this long, s."""
STALL_RISE = 0.02
"""The running maximum rises by less than this while a curve stalls."""
FLAT = {"nats": 0.25, "percent": 3.0, "probability": 0.03}
"""Range below which a curve is called flat, by unit."""


@dataclass(frozen=True)
class Mark:
    """A stretch of a curve, and what it does there."""

    kind: Kind
    start: float
    """s"""
    end: float
    """s"""
    text: str


def marks(curve: Curve) -> list[Mark]:
    """In order of time. None for curves with undefined values or fewer than two prefixes."""
    if len(curve) < 2 or np.isnan(curve.values).any():
        return []
    reach = float(np.ptp(curve.values))
    if reach < FLAT[curve.unit]:
        text = f"flat: {reach:.2g} {curve.unit} from lowest to highest"
        return [Mark("flat", float(curve.times[0]), float(curve.times[-1]), text)]
    own = progress(curve.values)
    found = [*_drops(own, curve.times), *_jumps(own, curve.times), *_stalls(own, curve.times)]
    return sorted(found, key=lambda mark: (mark.start, mark.end))


def _drops(own: NDArray[np.float64], times: NDArray[np.float64]) -> list[Mark]:
    falling = np.diff(own) < 0
    out = []
    for first, last in _stretches(falling):
        fall = own[first] - own[last + 1]
        if fall >= DROP:
            text = f"drops by {fall:.2f} of its range"
            out.append(Mark("drop", float(times[first]), float(times[last + 1]), text))
    return out


def _jumps(own: NDArray[np.float64], times: NDArray[np.float64]) -> list[Mark]:
    steps = np.diff(own)
    return [
        Mark("jump", float(times[i]), float(times[i + 1]), f"jumps by {steps[i]:.2f} of its range")
        for i in np.flatnonzero(steps >= JUMP)
    ]


def _stalls(own: NDArray[np.float64], times: NDArray[np.float64]) -> list[Mark]:
    """Stretches in which the running maximum hardly rises. The end of a curve that stays at its top is none."""
    best = np.maximum.accumulate(own)
    least = max(STALL_SECONDS, STALL_SHARE * float(times[-1]))
    out, first = [], 0
    for last in range(1, own.size + 1):
        if last < own.size and best[last] - best[first] < STALL_RISE:
            continue
        stays_up = last == own.size and own[first:].min() > 1 - DROP
        if times[last - 1] - times[first] >= least and not stays_up:
            seconds = times[last - 1] - times[first]
            out.append(Mark("stall", float(times[first]), float(times[last - 1]), f"no progress for {seconds:.1f} s"))
        first = last
    return out


def _stretches(which: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, last) of every run of True."""
    padded = np.concatenate([[False], which, [False]]).astype(np.int8)
    edges = np.diff(padded)
    return [(int(a), int(b) - 1) for a, b in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)]
