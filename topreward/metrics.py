"""How well a curve orders time, and how well a score tells success: VOC, tau, ROC-AUC, intervals over episodes.

In go plain arrays of values, out come floats. Undefined is NaN, counted and never dropped in silence.
Knows nothing of videos, models or Curves. Arrays of the wrong shape or kind are a CurveError, parameters that make no
sense a ConfigError; both are ValueErrors.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from topreward.errors import ConfigError, CurveError


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


def slope(values: ArrayLike, at: ArrayLike) -> float:
    """Least-squares slope of values over `at`, in the values' unit per unit of `at`.

    `values`, `at`: (K,). NaN for fewer than two values, for one that is not finite, or when `at` is constant. A
    constant curve has slope 0: unlike its VOC, that is defined.
    """
    array, places = _series(values), _series(at)
    if array.shape != places.shape:
        raise CurveError(f"values has shape {array.shape}, at has {places.shape}")
    if array.size < 2 or not (np.isfinite(array).all() and np.isfinite(places).all()) or np.ptp(places) == 0:
        return float("nan")
    centred = places - places.mean()
    return float(centred @ (array - array.mean()) / (centred @ centred))


def roc_auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Probability that a success scores higher than a failure, ties half (area under the ROC curve).

    `scores`: (N,), NaN = undefined, left out: count them. `labels`: (N,) booleans. NaN unless both classes are left.
    """
    array, truth = _labelled(scores, labels)
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    ranks = stats.rankdata(array)
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def best_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """The threshold t for which `score >= t` agrees with most labels.

    `scores`: (N,), NaN = undefined, left out. `labels`: (N,) booleans. Candidates lie midway between neighbouring
    scores, and beyond both ends; of equally good ones the middle one is taken. NaN unless both classes are left.
    """
    array, truth = _labelled(scores, labels)
    if truth.all() or not truth.any():
        return float("nan")
    distinct = np.unique(array)
    middles = (distinct[:-1] + distinct[1:]) / 2
    candidates = np.concatenate([distinct[:1], middles, [np.nextafter(distinct[-1], np.inf)]])
    agreeing = np.array([np.sum((array >= t) == truth) for t in candidates])
    best = np.flatnonzero(agreeing == agreeing.max())
    return float(candidates[best[(best.size - 1) // 2]])


@dataclass(frozen=True)
class Reliability:
    """How probabilities compare with what happened (Guo et al., arXiv 1706.04599)."""

    ece: float
    """Expected calibration error: mean over episodes of |share that succeeded - mean probability| of their bin."""
    brier: float
    """Mean squared difference of probability and outcome."""
    edges: NDArray[np.float64]
    """(B + 1,) bins of equal width over [0, 1]."""
    counts: NDArray[np.int64]
    """(B,) episodes in each bin."""
    probability: NDArray[np.float64]
    """(B,) mean probability, NaN in an empty bin."""
    succeeded: NDArray[np.float64]
    """(B,) share that succeeded, NaN in an empty bin."""


def reliability(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 10) -> Reliability:
    """Compare probabilities with outcomes. `probabilities`: (N,) in [0, 1], NaN = undefined, left out: count them.

    `labels`: (N,) booleans. A bin holds its lower edge, the last one its upper edge too. Raises CurveError for a
    probability outside [0, 1], ConfigError for bins below 1.
    """
    _whole("bins", bins, least=1)
    array, truth = _labelled(probabilities, labels)
    if ((array < 0) | (array > 1)).any():
        raise CurveError(f"probabilities reach from {array.min()} to {array.max()}, want 0 to 1")
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.minimum(np.searchsorted(edges, array, side="right") - 1, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 of an empty bin is the NaN that is meant
        probability = np.bincount(place, weights=array, minlength=bins) / counts
        succeeded = np.bincount(place, weights=truth, minlength=bins) / counts
    filled = counts > 0
    gaps = np.abs(probability - succeeded)[filled]
    ece = float(np.average(gaps, weights=counts[filled])) if array.size else float("nan")
    brier = float(np.mean((array - truth) ** 2)) if array.size else float("nan")
    return Reliability(ece, brier, edges, counts.astype(np.int64), probability, succeeded)


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
    episode says nothing about the spread. The same seed gives the same interval. Raises ConfigError unless
    confidence is between 0 and 1, resamples 1 or more and seed 0 or more.
    """
    _hold_bootstrap(confidence, resamples, seed)
    array = _series(np.atleast_1d(np.asarray(values)))
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


def bootstrap_difference(
    first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean of `first` minus mean of `second`, with a percentile bootstrap interval; both groups are resampled.

    `first`: (N,), `second`: (M,), NaN = undefined. `count` and `undefined` are those of both groups together. NaN
    where a group has no defined value; no interval where one has fewer than two. Raises as `bootstrap_mean`.
    """
    _hold_bootstrap(confidence, resamples, seed)
    groups = [_series(np.atleast_1d(np.asarray(values))) for values in (first, second)]
    defined = [group[~np.isnan(group)] for group in groups]
    count = sum(group.size for group in defined)
    undefined = sum(group.size for group in groups) - count
    if not all(group.size for group in defined):
        return Interval(np.nan, np.nan, np.nan, count, undefined, confidence)
    difference = float(defined[0].mean() - defined[1].mean())
    if any(group.size < 2 for group in defined):
        return Interval(difference, np.nan, np.nan, count, undefined, confidence)
    rng = np.random.default_rng(seed)
    means = [
        np.concatenate(
            [
                group[rng.integers(0, group.size, (rows, group.size))].mean(axis=1)
                for rows in _rows(resamples, group.size)
            ]
        )
        for group in defined
    ]
    low, high = np.quantile(means[0] - means[1], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(difference, float(low), float(high), count, undefined, confidence)


def _labelled(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Defined scores and their labels."""
    array, given = _series(scores), np.asarray(labels)
    if array.shape != given.shape:
        raise CurveError(f"scores has shape {array.shape}, labels has {given.shape}")
    truth = given.astype(bool)
    # NaN, None and texts would all be True or False
    if given.size and not (given.dtype.kind in "buif" and (given == truth).all()):
        raise CurveError(f"labels are {given.dtype}, want booleans, or numbers 0 and 1")
    defined = ~np.isnan(array)
    return array[defined], truth[defined]


def _rows(resamples: int, width: int) -> list[int]:
    # At most 500 k indices at a time: thousands of episodes must not cost gigabytes.
    step = max(1, 500_000 // width)
    return [min(step, resamples - start) for start in range(0, resamples, step)]


def _series(values: ArrayLike) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CurveError(f"values are no numbers ({error})") from error
    if array.ndim != 1:
        raise CurveError(f"values has shape {array.shape}, want (K,)")
    return array


def _hold_bootstrap(confidence: Any, resamples: Any, seed: Any) -> None:
    if not isinstance(confidence, Real) or not 0 < float(confidence) < 1:
        raise ConfigError(f"confidence is {confidence!r}, want a number between 0 and 1")
    _whole("resamples", resamples, least=1)
    _whole("seed", seed, least=0)


def _whole(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ConfigError(f"{name} is {value!r}, want a whole number, {least} or more")


def _ordered(array: NDArray[np.float64]) -> bool:
    return array.size >= 2 and not np.isnan(array).any() and bool((array != array[0]).any())
