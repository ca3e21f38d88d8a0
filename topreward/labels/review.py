"""Which episodes deserve a look, and why.

In goes what is known of an episode and its progress per frame; out come numbers and reasons in words, each with a
weight that orders episodes. Decides nothing: people do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topreward.labels.kept import Kept
from topreward.labels.signals import largest_drop, longest_stall

DROP = 0.5
"""A fall of progress from here on is worth a look."""

STALL = 0.5
"""A stall over this share of the episode, too."""

ENDS_LOW = 0.25
"""An episode that ends below this progress, too, unless it is known to have failed."""


@dataclass(frozen=True)
class Facts:
    """What an episode's progress looks like."""

    largest_drop: float
    """Most that progress falls below what was reached before."""
    longest_stall: float
    """s in which the running maximum of progress rises by less than .02."""
    reasons: tuple[str, ...]
    """Why to look at it, the weightiest first."""
    weight: float
    """Over all reasons; 0 without any."""


def look(kept: Kept, progress: NDArray[np.float64], times: NDArray[np.float64], predicted: bool | None) -> Facts:
    """Facts of one episode. `progress`, `times`: (T,), empty where there is no curve. `predicted`: success."""
    drop, stall = largest_drop(progress), longest_stall(progress, times)
    found: list[tuple[float, str]] = []
    real = kept.real
    if real.error is not None:
        found.append((3.0, f"has no labels: {real.error}"))
    elif real.failure is not None:
        found.append((2.5, f"an answer failed: {real.failure}"))
    elif np.isnan(real.voc):
        found.append((1.5, "the curve is flat"))
    elif real.voc < 0:
        found.append((1.0 - real.voc, f"the value falls with time (VOC {real.voc:.2f})"))
    if kept.success is True and predicted is False:
        found.append((2.0, "called a success, scored like a failure"))
    if kept.success is False and predicted is True:
        found.append((2.0, "called a failure, scored like a success"))
    if drop >= DROP:
        found.append((drop, f"progress falls by {drop:.2f}"))
    duration = float(times[-1] - times[0]) if times.size else float("nan")
    if duration > 0 and stall >= STALL * duration:
        found.append((stall / duration, f"no progress for {stall:.1f} of {duration:.1f} s"))
    if progress.size and progress[-1] < ENDS_LOW and kept.success is not False:
        found.append((0.5 + ENDS_LOW - float(progress[-1]), f"ends at {progress[-1]:.2f} of progress"))
    found.sort(key=lambda pair: -pair[0])
    return Facts(drop, stall, tuple(text for _, text in found), sum(weight for weight, _ in found))
