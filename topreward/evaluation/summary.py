"""Numbers over episodes, each beside its control.

In go episodes as rows; out comes a Summary per estimator: VOC, tau and slope of the real video and of every
control, whether the real VOC is evidence, what the controls cost, and how the estimator does against labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from topreward.evaluation.rows import EpisodeRows, Row
from topreward.evaluation.success import Success, detect
from topreward.evaluation.truth import Truth, against_truth
from topreward.jobs.plan import DERIVED, FROZEN, REAL, TIME_INDEX, Plan
from topreward.metrics import Interval, bootstrap_mean

Evidence = Literal["yes", "none", "undecided", "by construction", "not asked"]


@dataclass(frozen=True)
class Trend:
    """How curves go with time, over the episodes of one control."""

    episodes: int
    """All of them: also failed answers and errors."""
    voc: Interval
    voc_failures_as_zero: Interval
    """The same where a failed answer counts as 0 instead of undefined."""
    voc_flat_as_zero: Interval
    """The same where a constant curve counts as 0: it does not go with time."""
    voc_median: float
    kendall_tau: Interval
    slope: Interval
    """In `unit` per whole clip."""
    constant: int
    """Curves of one value, or of one prefix: their VOC is undefined."""
    failures: int
    """Answers that could not be read: undefined."""
    errors: int
    """Episodes without a curve: undefined."""

    @property
    def failure_rate(self) -> float:
        """Failed answers per curve that was made."""
        made = self.episodes - self.errors
        return self.failures / made if made else float("nan")


@dataclass(frozen=True)
class Cost:
    """Seconds over all episodes, without decoding."""

    real_seconds: float
    control_seconds: float
    tokens: int
    """Of the real videos, without what other instructions added to their calls."""

    @property
    def ratio(self) -> float:
        """The controls' seconds per second of the real videos."""
        return self.control_seconds / self.real_seconds if self.real_seconds else float("nan")


@dataclass(frozen=True)
class Summary:
    """One estimator over all episodes."""

    estimator: str
    unit: str | None
    trends: dict[str, Trend]
    """By control; `real` first."""
    evidence: Evidence
    """Whether the real VOC stands out from the frozen video's."""
    sentence: str
    """The same, in words; empty where there is nothing to warn of."""
    cost: Cost | None
    """None for what runs no model."""
    success: Success | None
    truth: Truth | None


def summarise(
    episodes: Sequence[EpisodeRows], plan: Plan, *, calibration_split: str | None = None, seed: int = 0
) -> list[Summary]:
    """A Summary per estimator, then the time index where controls were measured.

    `calibration_split`, `seed`: what success thresholds are fitted on, see `success.detect`. Raises ConfigError for
    a split that does not exist.
    """
    out = []
    for estimator in plan.rows:
        rows = [row for episode in episodes for row in episode.rows if row.estimator == estimator]
        trends = {c: trend([row for row in rows if row.control == c]) for c in plan.shown(estimator)}
        trends = {c: t for c, t in trends.items() if t.episodes or c == REAL}
        evidence, sentence = judge(estimator, trends)
        real = [row for row in rows if row.control == REAL]
        out.append(
            Summary(
                estimator=estimator,
                unit=next((row.unit for row in real if row.unit), None),
                trends=trends,
                evidence=evidence,
                sentence=sentence,
                cost=None if estimator in DERIVED or estimator == TIME_INDEX else _cost(episodes, real, estimator),
                success=detect(real, calibration_split=calibration_split, seed=seed),
                truth=against_truth(real),
            )
        )
    return out


def trend(rows: Sequence[Row]) -> Trend:
    """Means over the rows of one estimator and control."""
    vocs = np.array([row.voc for row in rows], dtype=np.float64)
    failed = np.array([row.failure is not None for row in rows], dtype=bool)
    errors = np.array([row.error is not None for row in rows], dtype=bool)
    undefined = np.isnan(vocs)
    return Trend(
        episodes=len(rows),
        voc=bootstrap_mean(vocs),
        voc_failures_as_zero=bootstrap_mean(np.where(failed & undefined, 0.0, vocs)),
        voc_flat_as_zero=bootstrap_mean(np.where(undefined & ~failed & ~errors, 0.0, vocs)),
        voc_median=float(np.median(vocs[~undefined])) if not undefined.all() else float("nan"),
        kendall_tau=bootstrap_mean([row.kendall_tau for row in rows]),
        slope=bootstrap_mean([row.slope for row in rows]),
        constant=int((undefined & ~failed & ~errors).sum()),
        failures=int(failed.sum()),
        errors=int(errors.sum()),
    )


def judge(estimator: str, trends: dict[str, Trend]) -> tuple[Evidence, str]:
    """Whether the real VOC is evidence, and a sentence where it is not.

    It must be defined for at least half of the episodes, above 0, and above the frozen video's: otherwise a video in
    which nothing happens does as well. Both ways to count failed answers must pass. Frozen curves that are constant
    have no VOC; they are what is hoped for: where most are, they count as 0, so that a few that waver decide nothing.
    """
    real, frozen = trends.get(REAL), trends.get(FROZEN)
    if estimator == TIME_INDEX or real is None or frozen is None:
        return "not asked", ""
    if 2 * real.voc.count < real.episodes or np.isnan(real.voc.low):
        return "undecided", (
            f"{estimator}: {real.voc.count} of {real.episodes} VOCs are defined, too few, so nothing is shown."
        )
    shown, counted = min(
        (real.voc, ""), (real.voc_failures_as_zero, " with failed answers as 0"), key=lambda pair: pair[0].low
    )
    if shown.low <= 0:
        return "none", (
            f"{estimator}: the real VOC{counted}, {_short(shown)}, does not stand above 0: it is no evidence that the "
            "model sees progress."
        )
    if estimator == "debiased":
        return "by construction", (
            "debiased: the frozen video is what was subtracted, so that it is flat here by construction; it is no "
            "control of this row."
        )
    return _beside_frozen(estimator, shown, counted, frozen, real.episodes)


def _beside_frozen(estimator: str, shown: Interval, counted: str, frozen: Trend, episodes: int) -> tuple[Evidence, str]:
    """The verdict on a real VOC above 0. `counted`: how its failed answers were counted, in words."""
    told = frozen.voc.count + frozen.constant
    if 2 * told < episodes:
        return "undecided", (
            f"{estimator}: {told} of {episodes} frozen videos have a curve to set the real VOC beside, too few."
        )
    mostly_flat = 2 * frozen.constant > told
    still = frozen.voc_flat_as_zero if mostly_flat else frozen.voc
    if np.isnan(still.high):
        return "undecided", f"{estimator}: too few frozen videos have a curve to set the real VOC beside them."
    if still.high >= shown.low:
        flat = ", flat ones as 0" if mostly_flat else ""
        return "none", (
            f"{estimator}: the frozen video's VOC{flat}, {_short(still)}, reaches the real one's{counted}, "
            f"{_short(shown)}: this VOC is no evidence that the model sees progress."
        )
    return "yes", ""


def _short(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _cost(episodes: Sequence[EpisodeRows], real: Sequence[Row], base: str) -> Cost:
    seconds = [episode.seconds.get(base, {}) for episode in episodes]
    return Cost(
        real_seconds=sum(s.get(REAL, 0.0) for s in seconds),
        control_seconds=sum(value for s in seconds for control, value in s.items() if control != REAL),
        tokens=sum(row.tokens for row in real),
    )
