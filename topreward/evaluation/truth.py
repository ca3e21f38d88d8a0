"""Against true progress, where a dataset knows it: errors per episode, correlations over all judged frames.

In go the rows of real videos; out comes a summary. A judged frame is the last one of a prefix: nothing between them
is made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from topreward.evaluation.rows import Row
from topreward.metrics import Interval, bootstrap_mean


@dataclass(frozen=True)
class Truth:
    """How close one estimator comes to true progress."""

    episodes: int
    """That know it, and have a curve."""
    frames: int
    """Judged frames with a value, over all of them."""
    undefined: int
    """Judged frames without."""
    mae: Interval
    """Over episodes: mean absolute error of the values read as a share of the task. Undefined for differences."""
    mae_minmax: Interval
    """The same for each episode's values stretched to 0 … 1, which knows neither level nor failure."""
    pearson: float
    """Over all judged frames, of the values read as a share (of the values themselves, where they cannot be)."""
    spearman: float
    """The same for the values."""
    pearson_minmax: float


def against_truth(rows: Sequence[Row]) -> Truth | None:
    """Judge one estimator's real rows; None where no episode knows its progress."""
    known = [row for row in rows if row.pool is not None]
    pools = [row.pool for row in known if row.pool is not None]
    if not pools:
        return None
    truth = np.concatenate([pool.truth for pool in pools])
    values = np.concatenate([pool.values for pool in pools])
    shared = all(pool.shares is not None for pool in pools)
    shares = np.concatenate([pool.shares for pool in pools if pool.shares is not None]) if shared else values
    return Truth(
        episodes=len(pools),
        frames=int(np.sum(~np.isnan(values))),
        undefined=int(np.sum(np.isnan(values))),
        mae=bootstrap_mean([row.mae for row in known]),
        mae_minmax=bootstrap_mean([row.mae_minmax for row in known]),
        pearson=_correlation(shares, truth, rank=False),
        spearman=_correlation(values, truth, rank=True),
        pearson_minmax=_correlation(np.concatenate([pool.minmax for pool in pools]), truth, rank=False),
    )


def _correlation(values: NDArray[np.float64], truth: NDArray[np.float64], *, rank: bool) -> float:
    """Over the frames with a value; NaN where either side is constant."""
    defined = ~np.isnan(values)
    a, b = values[defined], truth[defined]
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    if rank:
        a, b = stats.rankdata(a), stats.rankdata(b)
    return float(np.corrcoef(a, b)[0, 1])
