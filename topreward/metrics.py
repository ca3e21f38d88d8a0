"""How well a curve orders time: VOC, Kendall's tau, and intervals over episodes.

In go plain arrays of values, out come floats. Undefined is NaN, counted and never dropped in silence.
Knows nothing of videos, models or Curves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


def voc(values: ArrayLike) -> float:
    """Value-order correlation: Spearman's rank correlation of values with time (GVL, arXiv 2411.04549, eq. 2).

    `values`: (K,) in order of time. Equal values share their average rank. Returns a float in [-1, 1], or NaN
    where it is undefined: fewer than two values, constant values, or a NaN among them.
    """
    array = _series(values)
    if not _ordered(array):
        return float("nan")
    return float(stats.spearmanr(np.arange(array.size), array).statistic)


def kendall_tau(values: ArrayLike) -> float:
    """Kendall's tau-b of values with time: pairs in order minus pairs out of order, corrected for ties.

    `values`: (K,) in order of time. Returns a float in [-1, 1], NaN where `voc` would be NaN.
    """
    array = _series(values)
    if not _ordered(array):
        return float("nan")
    return float(stats.kendalltau(np.arange(array.size), array, variant="b").statistic)


@dataclass(frozen=True)
class Interval:
    """A mean over episodes with its bootstrap interval; `undefined` episodes are counted, not averaged."""

    mean: float
    """Over the defined values; NaN where there are none."""
    low: float
    high: float
    count: int
    """Defined values."""
    undefined: int
    """NaN values, left out of the mean."""
    confidence: float = 0.95

    def __str__(self) -> str:
        text = f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]" if self.count else "undefined"
        return f"{text} (n={self.count}, undefined {self.undefined})"


def bootstrap_mean(values: ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean of per-episode values with a percentile bootstrap interval over episodes.

    `values`: (N,), NaN = undefined. The interval is NaN with fewer than two defined values, since one
    episode says nothing about the spread. The same seed gives the same interval.
    """
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    defined = array[~np.isnan(array)]
    undefined = int(array.size - defined.size)
    if defined.size == 0:
        return Interval(np.nan, np.nan, np.nan, 0, undefined, confidence)
    mean = float(defined.mean())
    if defined.size == 1:
        return Interval(mean, np.nan, np.nan, 1, undefined, confidence)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            defined[rng.integers(0, defined.size, (rows, defined.size))].mean(axis=1)
            for rows in _rows(resamples, defined.size)
        ]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, float(low), float(high), int(defined.size), undefined, confidence)


def _rows(resamples: int, width: int) -> list[int]:
    # At most 4 M indices at a time: thousands of episodes must not cost gigabytes.
    step = max(1, 4_000_000 // width)
    return [min(step, resamples - start) for start in range(0, resamples, step)]


def _series(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"values has shape {array.shape}, want (K,)")
    return array


def _ordered(array: NDArray[np.float64]) -> bool:
    return array.size >= 2 and not np.isnan(array).any() and bool((array != array[0]).any())
