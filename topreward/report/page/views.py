"""A curve in every way that people look at it: log p, log-odds, probability, progress, rewards, advantages.

In goes a Curve; out come arrays of one number per prefix, by the same functions that make labels. What a curve cannot
show is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topreward.errors import CurveError
from topreward.jobs.derive import as_share, log_odds
from topreward.labels.signals import horizon_advantages
from topreward.rewards import dense_rewards, progress
from topreward.types import Curve

Values = NDArray[np.float64]

HORIZONS_SECONDS = (0.5, 1.0, 2.0, 4.0)
"""How far ahead an advantage looks, s."""


@dataclass(frozen=True)
class View:
    """A way to look at a curve."""

    key: str
    name: str
    unit: str
    """Behind the axis; empty for shares."""
    explained: str


VIEWS = (
    View("log_prob", "log p", "nats", "log p(True): what TOPReward reads"),
    View(
        "debiased", "log p − frozen", "nats", "log p(True) minus that of the frozen video, which shows as many frames"
    ),
    View("log_odds", "log-odds", "nats", "log p(True) − log p(False)"),
    View("probability", "probability", "", "the value read as a probability, or a share of the task"),
    View("progress", "progress", "", "the curve's own range as 0 … 1: it stretches jitter too"),
    View("dense_reward", "dense reward", "", "clip(τ·exp(step of progress), 0, δ), as in the paper: τ = δ = 2"),
    *(
        View(
            f"advantage_{seconds:g}",
            f"advantage, {seconds:g} s",
            "",
            f"progress {seconds:g} s later minus progress now",
        )
        for seconds in HORIZONS_SECONDS
    ),
)


def views(estimator: str, curve: Curve, fps: float, *, odds: bool = True) -> dict[str, Values | None]:
    """(K,) per view of VIEWS, or None. `fps`: raw frames/s, which turns a horizon into frames. `odds`: whether a curve
    of log p is shown as log-odds too; not where those are an estimator of their own."""
    own = progress(curve.values)
    of_odds, of_debiased = estimator == "log_odds", estimator == "debiased"
    out: dict[str, Values | None] = {
        "log_prob": curve.values if curve.unit == "nats" and not (of_odds or of_debiased) else None,
        "debiased": curve.values if of_debiased else None,
        "log_odds": curve.values if of_odds else _odds(curve) if odds else None,
        "probability": as_share(estimator, curve),
        "progress": own,
        "dense_reward": dense_rewards(own),
    }
    everywhere = curve.to_frames(own)
    for seconds in HORIZONS_SECONDS:
        ahead = horizon_advantages(everywhere, max(1, round(seconds * fps)))
        out[f"advantage_{seconds:g}"] = ahead[curve.prefix_lengths - 1]
    return out


def defined(found: Mapping[str, Values | None]) -> dict[str, Values]:
    """The views that a curve has, an undefined one (all NaN) among them."""
    return {key: values for key, values in found.items() if values is not None}


def _odds(curve: Curve) -> Values | None:
    try:
        return log_odds(curve).values
    except CurveError:
        return None
