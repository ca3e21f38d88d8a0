"""From values to training signals: progress, dense rewards, advantage weights.

In go plain arrays, one value per prefix; out come arrays of the same length. Knows nothing of videos,
models or Curves. Formulas: TOPReward (arXiv 2602.19313).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray


def progress(values: ArrayLike, *, constant: Literal["nan", "ones"] = "nan") -> NDArray[np.float64]:
    """Min-max normalised values of one episode (TOPReward, eq. 4).

    `values`: (K,). Returns (K,) in [0, 1]; NaN values stay NaN and do not count for the range. Where all
    values are equal (or there is one) the range says nothing: NaN everywhere, or ones with
    `constant="ones"`, as the original implementation has it. Mind that min-max stretches the jitter of a
    frozen video to 0…1 as well: keep the raw range in sight.
    """
    array = np.array(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"values has shape {array.shape}, want (K,) with K >= 1")
    if constant not in ("nan", "ones"):
        raise ValueError(f"constant is {constant!r}, want 'nan' or 'ones'")
    defined = ~np.isnan(array)
    if not defined.any():
        return array
    low, high = array[defined].min(), array[defined].max()
    if high == low:
        return np.where(defined, 1.0 if constant == "ones" else np.nan, np.nan)
    scaled: NDArray[np.float64] = (array - low) / (high - low)
    return scaled


def dense_rewards(progress: ArrayLike, *, tau: float = 2.0, maximum: float = 2.0) -> NDArray[np.float64]:
    """Weight of each step: clip(tau · exp(s_k - s_{k-1}), 0, maximum) (TOPReward, eq. 5).

    `progress`: (K,) s_k. Returns (K,); the first is NaN, because there is no step before it. With the
    paper's tau = maximum = 2 it saturates: every step that does not lose progress weighs 2.0.
    """
    steps = advantages(progress)
    return np.clip(tau * np.exp(steps), 0.0, maximum)


def advantage_weights(progress: ArrayLike, *, beta: float = 1.0) -> NDArray[np.float64]:
    """Advantage-weighted regression: exp(A_k / beta) with A_k = s_k - s_{k-1} (Peng et al., arXiv 1910.00177).

    `progress`: (K,). Returns (K,), the first NaN. Raises ValueError unless beta > 0.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}, want a positive number")
    return np.exp(advantages(progress) / beta)


def advantages(progress: ArrayLike) -> NDArray[np.float64]:
    """(K,) gain of each step, s_k - s_{k-1}; the first is NaN."""
    array = np.asarray(progress, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"progress has shape {array.shape}, want (K,) with K >= 1")
    return np.concatenate([[np.nan], np.diff(array)])
