"""From values to training signals: progress, dense rewards, advantage weights.

In go plain arrays, one value per prefix; out come arrays of the same length. Knows nothing of videos,
models or Curves. Formulas: TOPReward (arXiv 2602.19313). Arrays of the wrong shape are a CurveError, parameters that
make no sense a ConfigError; both are ValueErrors.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from topreward.errors import ConfigError, CurveError


def progress(values: ArrayLike, *, constant: Literal["nan", "ones"] = "nan") -> NDArray[np.float64]:
    """Min-max normalised values of one episode (TOPReward, eq. 4).

    `values`: (K,). Returns (K,) in [0, 1]; NaN values stay NaN and do not count for the range. Where all
    values are equal (or there is one) the range says nothing: NaN everywhere, or ones with
    `constant="ones"`, as the original implementation has it. An infinite range says nothing either: NaN.
    Mind that min-max stretches the jitter of a frozen video to 0…1 as well: keep the raw range in sight.
    """
    array = _numbers("values", values)
    if constant not in ("nan", "ones"):
        raise ConfigError(f"constant is {constant!r}, want 'nan' or 'ones'")
    defined = ~np.isnan(array)
    if not defined.any():
        return array
    low, high = array[defined].min(), array[defined].max()
    if high == low:
        return np.where(defined, 1.0 if constant == "ones" else np.nan, np.nan)
    if not (np.isfinite(low) and np.isfinite(high)):
        return np.full(array.shape, np.nan)
    with np.errstate(over="ignore"):
        wide = bool(np.isinf(high - low))  # two finite numbers may be further apart than any number
    scale = 0.5 if wide else 1.0
    scaled: NDArray[np.float64] = (array * scale - low * scale) / (high * scale - low * scale)
    return scaled


def dense_rewards(progress: ArrayLike, *, tau: float = 2.0, maximum: float = 2.0) -> NDArray[np.float64]:
    """Weight of each step: clip(tau · exp(s_k - s_{k-1}), 0, maximum) (TOPReward, eq. 5).

    `progress`: (K,) s_k. Returns (K,); the first is NaN, because there is no step before it. With the
    paper's tau = maximum = 2 it saturates: every step that does not lose progress weighs 2.0. Raises ConfigError
    unless tau is a positive number and maximum is positive (infinite: no maximum).
    """
    _positive("tau", tau)
    if not _is_number(maximum) or not maximum > 0:
        raise ConfigError(f"maximum is {maximum!r}, want a positive number")
    return np.clip(tau * _exp(advantages(progress)), 0.0, maximum)


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights, and the temperature that made them. numpy functions take it for its values."""

    values: NDArray[np.float64]
    """exp(A / beta), of the advantages' shape, NaN where they are."""
    beta: float
    """The temperature; NaN where the advantages do not vary, so that there is nothing to weigh."""

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[np.float64]:
        return np.array(self.values, dtype=dtype) if copy else np.asarray(self.values, dtype=dtype)

    @property
    def spread(self) -> float:
        """Standard deviation of the weights over their mean: 0 where training with them is plain cloning."""
        return relative_spread(self.values)


HARDLY_DIFFERENT = 0.25
"""A spread of weights below this: nearly all are 1, and weighted cloning is hardly more than plain cloning."""


def advantage_weights(progress: ArrayLike, *, beta: float | None = None) -> Weights:
    """Advantage-weighted regression: exp(A_k / beta) with A_k = s_k - s_{k-1} (Peng et al., arXiv 1910.00177).

    `progress`: (K,). The result's values are (K,), the first NaN. `beta`: by default the standard deviation of A, so
    that a step one deviation better weighs e times as much; progress is in [0, 1] and its gains are small, so that
    with beta = 1 nearly all weights are 1: where given weights hardly differ, a UserWarning says so. Raises
    ConfigError unless beta is a positive number.
    """
    weights = exponential_weights(advantages(progress), beta=beta)
    if beta is not None and weights.spread < HARDLY_DIFFERENT:
        usual = exponential_weights(advantages(progress)).beta
        warnings.warn(
            f"with beta = {beta:g} the weights hardly differ (spread {weights.spread:.2g} of their mean), which is "
            f"nearly plain cloning; the advantages' own spread is {usual:.2g}",
            stacklevel=2,
        )
    return weights


def exponential_weights(advantages: ArrayLike, *, beta: float | None = None, normalise: bool = False) -> Weights:
    """exp(A / beta), of any number of advantages; `normalise`: scaled to a mean of 1 over the defined ones.

    `advantages`: (N,), NaN stays NaN. `beta`: by default their standard deviation. Where they do not vary (or there
    are none) the default is NaN and the weights are 1. Raises ConfigError unless beta is a positive number, and where
    it is so small that weights that are not normalised overflow.
    """
    array = _numbers("advantages", advantages, least=0)
    if beta is not None:
        _positive("beta", beta)
    defined = array[~np.isnan(array)]
    if beta is None and (not defined.size or np.ptp(defined) == 0):
        return Weights(np.where(np.isnan(array), np.nan, 1.0), float("nan"))
    chosen = float(np.std(defined)) if beta is None else float(beta)
    if not normalise or not defined.size:
        with np.errstate(over="ignore"):
            weights = np.exp(array / chosen)
        if np.isinf(weights[np.isfinite(array)]).any():
            raise ConfigError(
                f"beta is {chosen!r}: the weight of an advantage of {defined.max():g} is beyond all numbers"
            )
        return Weights(weights, chosen)
    # The largest exponent is 0, so that no beta overflows; the mean takes it out again.
    weights = np.exp((array - defined.max()) / chosen)
    return Weights(weights / np.nanmean(weights), chosen)


def relative_spread(weights: ArrayLike) -> float:
    """Standard deviation over mean of the defined weights; NaN where there are none, or their mean is 0."""
    array = _numbers("weights", weights, least=0)
    defined = array[~np.isnan(array)]
    mean = float(defined.mean()) if defined.size else 0.0
    return float(defined.std()) / mean if mean else float("nan")


def advantages(progress: ArrayLike) -> NDArray[np.float64]:
    """(K,) gain of each step, s_k - s_{k-1}; the first is NaN."""
    with np.errstate(invalid="ignore"):  # from infinity to infinity is the NaN that is meant
        return np.concatenate([[np.nan], np.diff(_numbers("progress", progress))])


def _exp(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        return np.exp(steps)


def _numbers(name: str, values: ArrayLike, *, least: int = 1) -> NDArray[np.float64]:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CurveError(f"{name} are no numbers ({error})") from error
    if array.ndim != 1 or array.size < least:
        raise CurveError(f"{name} has shape {array.shape}, want (K,) with K >= {least}")
    return array


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _positive(name: str, value: float) -> None:
    if not _is_number(value) or not 0 < value < np.inf:
        raise ConfigError(f"{name} is {value!r}, want a positive number")
