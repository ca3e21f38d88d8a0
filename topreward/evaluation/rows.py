"""A measured episode as numbers: one row per estimator and control.

In goes a Measured; out come Rows, small enough to keep for thousands of episodes while their curves are on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topreward.jobs.derive import as_share, reading
from topreward.jobs.episode import Measured, Reading
from topreward.jobs.identity import how_made
from topreward.jobs.plan import DERIVED, FROZEN, FROZEN_OTHER, OTHER, REAL, TIME_INDEX, Plan
from topreward.metrics import kendall_tau, slope, voc
from topreward.rewards import progress
from topreward.types import Curve

SHARING = ((REAL, OTHER), (FROZEN, FROZEN_OTHER))
"""Controls whose curves come from one call."""

LAST_PREFIXES = 3
"""Prefixes whose mean value is the score of an episode (TOPReward, section on success detection)."""

NAN = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """A real video's values beside its true progress, where that is known."""

    values: NDArray[np.float64]
    """(K,) as read."""
    shares: NDArray[np.float64] | None
    """(K,) read as a share of the task, where they can be."""
    minmax: NDArray[np.float64]
    """(K,) the values' own range as 0 … 1."""
    truth: NDArray[np.float64]
    """(K,) true progress at each prefix's last frame."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One estimator's result on one episode's real video, or on one of its controls."""

    episode_id: str
    estimator: str
    control: str
    instruction: str
    """The one that was scored."""
    success: bool | None
    split: str | None
    num_frames: int | None
    prefixes: int = 0
    """K"""
    unit: str | None = None
    voc: float = NAN
    """NaN for a constant curve, a single prefix, a failed answer, an error."""
    kendall_tau: float = NAN
    slope: float = NAN
    """Least squares, in `unit` per whole clip."""
    first: float = NAN
    last: float = NAN
    score: float = NAN
    """What success is told by: the mean of the last three values; VOC for gvl; the duration in s for time_index."""
    probability: float = NAN
    """The last prefix's value read as a probability of success, where it can be."""
    mae: float = NAN
    """Mean absolute error of the values read as shares of the task, against true progress."""
    mae_minmax: float = NAN
    """The same for the values' own range stretched to 0 … 1."""
    failure: str | None = None
    """Why the model's answer could not be read: the curve is NaN, and counts as undefined."""
    error: str | None = None
    """Why there is no curve."""
    seconds: float = 0.0
    """Of scoring, without decoding; derived curves have their base's."""
    tokens: int = 0
    """Prefilled and answered. Where several instructions shared a call, they share the branches' tokens evenly, and
    the trunk's are the first one's, as with `seconds`."""
    pool: Pool | None = None


@dataclass(frozen=True, eq=False)
class EpisodeRows:
    """An episode, as far as it is kept in memory."""

    id: str
    instruction: str
    other_instruction: str | None
    success: bool | None
    split: str | None
    num_frames: int | None
    decode_seconds: float
    decoded_frames: int
    error: str | None
    """The first one, of the episode or of any of its curves."""
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    seconds: Mapping[str, Mapping[str, float]]
    """base → control → s of scoring."""
    made: dict[str, str]
    """base → how its curves were made, as JSON."""
    software: Mapping[str, str | None] | None = None
    """The versions that measured it, where that is known."""


def episode_rows(measured: Measured, plan: Plan) -> EpisodeRows:
    """All rows of an episode. Where it failed as a whole, each estimator has one row, with the error."""
    shown = [(estimator, control) for estimator in plan.rows for control in plan.shown(estimator)]
    rows = [row for row in (row_of(measured, plan, *which) for which in shown) if row is not None]
    seconds: dict[str, dict[str, float]] = {}
    made: dict[str, str] = {}
    for r in measured.readings:
        seconds.setdefault(r.base, {})[r.control] = r.seconds
        if r.curve is not None and r.base not in made:
            made[r.base] = how_made(r.curve)
    return EpisodeRows(
        measured.id,
        measured.instruction,
        measured.other_instruction,
        measured.success,
        measured.split,
        measured.num_frames,
        measured.decode_seconds,
        measured.decoded_frames,
        measured.failed or next((r.error for r in rows if r.error is not None), None),
        _notes(measured),
        tuple(rows),
        seconds,
        made,
        _software(measured),
    )


def row_of(measured: Measured, plan: Plan, estimator: str, control: str) -> Row | None:
    """One estimator's row of one control; None where the episode has none."""
    found = reading(measured, plan, estimator, control)
    return None if found is None else _row(measured, estimator, control, found)


def _software(measured: Measured) -> Mapping[str, str | None] | None:
    """What the episode says, else (of earlier versions) its curves."""
    if measured.software is not None:
        return measured.software
    said = (r.curve.provenance.get("software") for r in measured.readings if r.curve is not None)
    return next((found for found in said if isinstance(found, Mapping)), None)


def _notes(measured: Measured) -> tuple[str, ...]:
    """What a careful reader must know of the episode and of its curves, each sentence once.

    Not that an answer failed: that is in the row, and counted.
    """
    notes = list(measured.notes)
    for curve in (r.curve for r in measured.readings if r.curve is not None):
        failure = failed_answer(curve)
        notes += [note for note in curve.notes if failure is None or not note.endswith(failure)]
    return tuple(dict.fromkeys(notes))


def failed_answer(curve: Curve) -> str | None:
    """Why a curve has undefined values: what its estimator says, else that it has some."""
    failure = curve.provenance.get("failure")
    if isinstance(failure, Mapping):
        return f"{failure.get('kind')}: {failure.get('reason')}"
    undefined = int(np.isnan(curve.values).sum())
    return f"{undefined} of {len(curve)} values are undefined" if undefined else None


def tokens_of(measured: Measured, found: Reading, curve: Curve) -> int:
    """A curve's own part of its call's tokens: see `Row.tokens`."""
    tokens = curve.provenance.get("tokens", {})
    if "branch" not in tokens:
        return int(sum(tokens.values()))
    together = next((names for names in SHARING if found.control in names), (found.control,))
    there = [r for r in (measured.reading(found.base, name) for name in together) if r is not None]
    trunk = tokens.get("trunk", 0) if found.control == together[0] else 0
    return int(trunk + round(tokens["branch"] / max(len(there), 1)))


def episode_score(estimator: str, curve: Curve) -> float:
    """What tells success: see `Row.score`."""
    if estimator == TIME_INDEX:
        return float(curve.times[-1])
    if estimator == "gvl":
        return voc(curve.values)
    return float(np.mean(curve.values[-LAST_PREFIXES:]))


def _row(measured: Measured, estimator: str, control: str, found: Reading) -> Row:
    known: dict[str, Any] = {
        "episode_id": measured.id,
        "estimator": estimator,
        "control": control,
        "instruction": (measured.other_instruction or "") if control == OTHER else measured.instruction,
        "success": measured.success,
        "split": measured.split,
        "num_frames": measured.num_frames,
        "seconds": found.seconds,
    }
    curve = found.curve
    if curve is None:
        return Row(**known, error=found.error)
    shares = as_share(estimator, curve)
    pool = _pool(measured, curve, shares) if control == "real" else None
    counted = 0 if estimator in DERIVED or estimator == TIME_INDEX else tokens_of(measured, found, curve)
    return Row(
        **known,
        prefixes=len(curve),
        unit=curve.unit,
        voc=voc(curve.values),
        kendall_tau=kendall_tau(curve.values),
        slope=slope(curve.values, curve.prefix_lengths / curve.num_frames),
        first=float(curve.values[0]),
        last=float(curve.values[-1]),
        score=episode_score(estimator, curve),
        probability=NAN if shares is None or estimator == TIME_INDEX else float(shares[-1]),
        mae=NAN if pool is None or pool.shares is None else float(np.abs(pool.shares - pool.truth).mean()),
        mae_minmax=NAN if pool is None else float(np.abs(pool.minmax - pool.truth).mean()),
        failure=failed_answer(curve),
        tokens=counted,
        pool=pool,
    )


def _pool(measured: Measured, curve: Curve, shares: NDArray[np.float64] | None) -> Pool | None:
    if measured.progress is None:
        return None
    truth = measured.progress[curve.prefix_lengths - 1]
    return Pool(curve.values, shares, progress(curve.values, constant="nan"), truth)
