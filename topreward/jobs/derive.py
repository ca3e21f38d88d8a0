"""Estimators computed from another one's curves: log-odds, debiased values, and the time index.

In goes a measured episode; out come its curves by estimator and control. No model runs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from topreward.errors import CurveError
from topreward.jobs.controls import time_index
from topreward.jobs.episode import Measured, Reading
from topreward.jobs.plan import DERIVED, FROZEN, FROZEN_OTHER, OTHER, REAL, TIME_INDEX, Plan
from topreward.types import Curve


def reading(measured: Measured, plan: Plan, estimator: str, control: str) -> Reading | None:
    """An estimator's curve (or error) of one control; None where the plan or the episode has none."""
    if measured.error is not None:
        return Reading(estimator, control, None, measured.error, 0.0) if control == REAL else None
    if estimator == TIME_INDEX:
        for base in plan.bases:
            made = measured.reading(base, REAL)
            if made is not None and made.curve is not None:
                return Reading(TIME_INDEX, REAL, time_index(made.curve), None, 0.0)
        return Reading(TIME_INDEX, REAL, None, measured.failed or "there is no curve", 0.0)
    made = measured.reading(DERIVED.get(estimator, estimator), control)
    if made is None or made.curve is None or estimator not in DERIVED:
        return made
    try:
        curve = log_odds(made.curve) if estimator == "log_odds" else _debiased(measured, made.curve, control)
    except CurveError as failure:
        return Reading(estimator, control, None, str(failure), made.seconds)
    return Reading(estimator, control, curve, None, made.seconds)


def log_odds(curve: Curve) -> Curve:
    """log p(True) - log p(False), nats. Raises CurveError for a curve that holds neither."""
    if curve.log_prob_true is None or curve.log_prob_false is None:
        raise CurveError("log_odds needs log_prob_true and log_prob_false, which this estimator does not read")
    return curve.with_values(curve.log_prob_true - curve.log_prob_false, "nats")


def debiased(curve: Curve, frozen: Curve) -> Curve:
    """The values minus those of the frozen video's same prefix lengths: what its length alone says is taken out."""
    if not np.array_equal(curve.prefix_lengths, frozen.prefix_lengths):
        raise CurveError(
            f"debiased: the frozen video has prefixes {frozen.prefix_lengths.tolist()}, "
            f"the real one {curve.prefix_lengths.tolist()}"
        )
    return curve.with_values(curve.values - frozen.values, curve.unit, log_prob_true=None, log_prob_false=None)


def as_share(estimator: str, curve: Curve) -> NDArray[np.float64] | None:
    """(K,) the values read as a share in [0, 1]: of the task done, or as a probability of success.

    exp of nats, the logistic of log-odds, a hundredth of percent. None for debiased values, which are a
    difference, and where that gives anything outside [0, 1].
    """
    if estimator == "debiased":
        return None
    if estimator == "log_odds":
        share = expit(curve.values)
    elif curve.unit == "nats":
        share = np.exp(curve.values)
    else:
        share = curve.values / (100.0 if curve.unit == "percent" else 1.0)
    outside = (share < 0) | (share > 1)  # NaN is neither: a failed answer stays undefined
    return None if outside.any() else np.asarray(share, dtype=np.float64)


def _debiased(measured: Measured, curve: Curve, control: str) -> Curve:
    name = FROZEN_OTHER if control == OTHER else FROZEN
    frozen = measured.reading(DERIVED["debiased"], name)
    if frozen is None or frozen.curve is None:
        raise CurveError(f"debiased needs the frozen video: {frozen.error if frozen else 'it was not scored'}")
    return debiased(curve, frozen.curve)
