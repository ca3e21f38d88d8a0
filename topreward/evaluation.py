"""Estimator × episodes → rows of results, and their means.

In go episodes and something that scores a clip; out comes a row each, with its curve or its error. An
episode that fails is a row too, and is counted. Knows nothing of terminals or files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from topreward.errors import TopRewardError
from topreward.metrics import Interval, bootstrap_mean, kendall_tau, voc
from topreward.provenance import software
from topreward.types import Clip, Curve, Episode

RESULTS_FORMAT = 1


@dataclass(frozen=True)
class Row:
    """One episode's result."""

    episode_id: str
    instruction: str
    curve: Curve | None
    error: str | None
    """One line, where the episode failed."""
    seconds: float
    """Wall time of decoding and scoring, s."""

    @property
    def voc(self) -> float:
        """NaN where the curve is constant or missing."""
        return float("nan") if self.curve is None else voc(self.curve.values)

    @property
    def kendall_tau(self) -> float:
        return float("nan") if self.curve is None else kendall_tau(self.curve.values)


@dataclass(frozen=True)
class Summary:
    """Means over episodes. Failed episodes count as undefined; they are never left out of the count."""

    voc: Interval
    kendall_tau: Interval
    failed: int


def evaluate(
    score: Callable[[Clip, str], Curve], episodes: Iterable[Episode], *, fail_fast: bool = False
) -> Iterator[Row]:
    """Score episodes one after the other; each row is yielded as soon as it is done.

    An episode that raises a TopRewardError becomes a row with the error, unless `fail_fast`.
    """
    for episode in episodes:
        start = time.perf_counter()
        curve, error = None, None
        try:
            made = score(episode.clip(), episode.instruction)
            curve = made.with_values(made.values, made.unit, episode_id=episode.id)
        except TopRewardError as failure:
            if fail_fast:
                raise
            error = str(failure)
        yield Row(episode.id, episode.instruction, curve, error, time.perf_counter() - start)


def summarise(rows: list[Row]) -> Summary:
    """Mean VOC and tau with 95 % bootstrap intervals over episodes."""
    return Summary(
        bootstrap_mean(np.array([r.voc for r in rows])),
        bootstrap_mean(np.array([r.kendall_tau for r in rows])),
        sum(r.error is not None for r in rows),
    )


def results_dict(rows: list[Row]) -> dict[str, Any]:
    """Everything, ready for JSON: the means, a row per episode with its whole curve, and what made them."""
    summary = summarise(rows)
    return {
        "format": RESULTS_FORMAT,
        "voc": _interval(summary.voc),
        "kendall_tau": _interval(summary.kendall_tau),
        "failed": summary.failed,
        "episodes": [
            {
                "id": r.episode_id,
                "instruction": r.instruction,
                "voc": _finite(r.voc),
                "kendall_tau": _finite(r.kendall_tau),
                "error": r.error,
                "seconds": r.seconds,
                "curve": None if r.curve is None else r.curve.to_dict(),
            }
            for r in rows
        ],
        "software": software(),
    }


def _interval(interval: Interval) -> dict[str, float | int | None]:
    return {
        "mean": _finite(interval.mean),
        "low": _finite(interval.low),
        "high": _finite(interval.high),
        "confidence": interval.confidence,
        "count": interval.count,
        "undefined": interval.undefined,
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
