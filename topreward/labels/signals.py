"""What training reads, per raw frame: spread curves, advantages over a horizon, weights, the positive indicator.

In go plain arrays; out come arrays of the same length. Knows nothing of Curves, episodes or files. Sources: TOPReward
(arXiv 2602.19313), RECAP (arXiv 2511.14759), LeRobot's reward-aligned cloning (`lerobot.utils.rabc`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topreward.rewards import dense_rewards, progress

RABC_EPSILON = 1e-6
"""LeRobot's default."""


def spread(
    values: ArrayLike, scored: NDArray[np.int64], times: NDArray[np.float64], *, causal: bool = False
) -> NDArray[np.float64]:
    """(T,) the values of every raw frame.

    `values`: (K,) at the frames `scored`, (K,) increasing indices. `times`: (T,) s, of all raw frames. Between two
    scored frames linear in time; before the first its value, after the last the last one's. `causal`: no frame knows
    what is scored after it: the last scored value is held, and before the first there is none: NaN.
    """
    array = np.asarray(values, dtype=np.float64)
    if causal:
        last = np.searchsorted(scored, np.arange(times.size), side="right") - 1
        return np.where(last >= 0, array[np.maximum(last, 0)], np.nan)
    return np.interp(times, times[scored], array)


def step_rewards(
    values: ArrayLike, scored: NDArray[np.int64], num_frames: int, *, tau: float = 2.0, maximum: float = 2.0
) -> NDArray[np.float64]:
    """(T,) the paper's weight of each step between two scored frames, held over the frames of the step.

    A step's frames are those after its first scored frame, up to its second. NaN up to the first scored frame, which
    no step leads to, and after the last.
    """
    rewards = dense_rewards(progress(values), tau=tau, maximum=maximum)
    step = np.searchsorted(scored, np.arange(num_frames), side="left")
    inside = step < scored.size
    out = np.full(num_frames, np.nan)
    out[inside] = rewards[step[inside]]
    return out


def horizon_advantages(values: ArrayLike, horizon: int, *, longest: int | None = None) -> NDArray[np.float64]:
    """(T,) A_t = p[t + n] - p[t] with n = min(horizon, frames left): near the end, to the last frame.

    `values`: (T,) progress per frame. `longest`: frames of the task's longest episode; with it each step costs
    1 / longest, which is RECAP's advantage of the value p - 1: A_t = p[t + n] - p[t] - n / longest. Raises ValueError
    unless horizon >= 1.
    """
    array = np.asarray(values, dtype=np.float64)
    if horizon < 1:
        raise ValueError(f"horizon is {horizon}, want 1 frame or more")
    steps = np.minimum(horizon, array.size - 1 - np.arange(array.size))
    gains = array[np.arange(array.size) + steps] - array
    return gains if longest is None else gains - steps / longest


def clipped_weights(advantages: ArrayLike, *, tau: float = 2.0, maximum: float = 2.0) -> NDArray[np.float64]:
    """(T,) the paper's clip(tau * exp(A), 0, maximum) of any advantage (TOPReward, eq. 5)."""
    return np.clip(tau * np.exp(np.asarray(advantages, dtype=np.float64)), 0.0, maximum)


@dataclass(frozen=True)
class Gains:
    """What LeRobot's weights need to know of all gains of a dataset."""

    mean: float
    """Never below 0, as LeRobot has it."""
    std: float
    """Never below epsilon."""
    raw_mean: float
    """As it is; NaN where no gain is defined."""
    count: int
    """Defined gains."""


def gains_over(gains: NDArray[np.float64], epsilon: float = RABC_EPSILON) -> Gains:
    """Mean and deviation of all frames' gains, NaN left out: `RABCWeights._compute_global_stats`."""
    defined = gains[~np.isnan(gains)]
    if not defined.size:
        return Gains(0.0, epsilon, float("nan"), 0)
    mean = float(defined.mean())
    return Gains(max(mean, 0.0), max(float(defined.std()), epsilon), mean, int(defined.size))


def rabc_weights(
    gains: NDArray[np.float64], over: Gains, kappa: float, epsilon: float = RABC_EPSILON
) -> NDArray[np.float32]:
    """(T,) LeRobot's RA-BC weights, before it scales a batch's to a sum of the batch size.

    1 above kappa, 0 below 0; between, where a gain lies in mean ± 2 deviations; 1 for an undefined gain. In float32,
    as LeRobot compares them.
    """
    deltas = gains.astype(np.float32)
    std = np.float64(over.std)  # not a Python float: the soft part is float64, as LeRobot's is
    soft = np.clip((deltas - (over.mean - 2 * std)) / (4 * std + epsilon), 0.0, 1.0)
    weights = np.zeros_like(deltas)
    weights[deltas > kappa] = 1.0
    between = (deltas >= 0) & (deltas <= kappa)
    weights[between] = soft[between]
    weights[np.isnan(deltas)] = 1.0
    return weights


def suggested_kappa(over: Gains) -> float | None:
    """A kappa of the size that LeRobot's default has for the episodes it was made for; None where gains are not > 0.

    .01 is meant for episodes of about 90 s at 30 fps and 50 frames ahead, whose mean gain is 50 / 2700: so 0.54 times
    the mean gain, to two digits.
    """
    if not over.raw_mean > 0:
        return None
    return float(f"{0.01 / (50 / 2700) * over.raw_mean:.2g}")


def positive_threshold(advantages: NDArray[np.float64], share: float) -> float:
    """The (1 - share) quantile of the defined advantages; NaN where there are none.

    `advantage >= threshold` then holds for `share` of them, for more where many are equal to it.
    """
    defined = advantages[~np.isnan(advantages)]
    return float(np.quantile(defined, 1.0 - share)) if defined.size else float("nan")


def largest_drop(values: NDArray[np.float64]) -> float:
    """How far the values fall below what they had reached before, at most; NaN with a NaN among them."""
    return float((np.maximum.accumulate(values) - values).max()) if values.size else float("nan")


def longest_stall(values: NDArray[np.float64], times: NDArray[np.float64], *, least: float = 0.02) -> float:
    """Longest time, s, in which the running maximum rises by less than `least`; NaN with a NaN among the values.

    `values`, `times`: (T,). Waiting at the end counts too.
    """
    if np.isnan(values).any() or not values.size:
        return float("nan")
    top = np.maximum.accumulate(values)
    ends = np.searchsorted(top, top + least, side="left") - 1
    return float((times[ends] - times).max())
