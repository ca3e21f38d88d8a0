"""Success detection: does an estimator's score tell the episodes that succeeded from those that failed?

In go the rows of real videos with success labels; out come a threshold and its accuracy on other episodes, ROC-AUC,
the gap between the classes, and calibration. An episode without a score is never left out of an accuracy: it counts
as told wrongly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topreward.evaluation.rows import Row
from topreward.jobs.inputs import check_split
from topreward.metrics import Interval, Reliability, best_threshold, bootstrap_difference, reliability, roc_auc


@dataclass(frozen=True)
class Success:
    """How well one estimator's score tells success."""

    score: str
    """What the score is, in words."""
    successes: int
    failures: int
    undefined: int
    """Labelled episodes without a score."""
    roc_auc: float
    """Over the episodes with a score."""
    gap: Interval
    """Mean score of successes minus that of failures, in the score's unit."""
    threshold: float
    """Fitted on the calibration split: `score >= threshold` means success."""
    fitted_on: int
    """Labelled episodes of the calibration split."""
    tested_on: int
    """Labelled episodes of the rest."""
    accuracy: float
    """On the rest; an episode without a score counts as told wrongly. NaN without a threshold or a rest."""
    majority: float
    """Accuracy on the rest of always saying what is more frequent there."""
    calibration: Reliability | None
    """The last value read as a probability; None where it is no probability."""
    split: str
    """How the calibration split was drawn, in words."""


LAST_SCORE = "mean of the last three values"
SCORES = {"gvl": "VOC", "time_index": "duration"}
"""What the score is, where it is not that."""


def detect(rows: Sequence[Row], *, calibration_split: str | None = None, seed: int = 0) -> Success | None:
    """Judge one estimator's real rows; None where no episode is labelled.

    `calibration_split`: the episodes of that split fit the threshold; by default half of each class, drawn by a hash
    of `seed` and the episode's id. Raises ConfigError where no labelled episode is of that split.
    """
    labelled = [row for row in rows if row.success is not None]
    if not labelled:
        return None
    labels = np.array([bool(row.success) for row in labelled])
    scores = np.array([row.score for row in labelled])
    probabilities = np.array([row.probability for row in labelled])
    fitting = _calibration_part(labelled, calibration_split, seed)
    threshold = best_threshold(scores[fitting], labels[fitting])
    rest = ~fitting
    told = scores[rest] >= threshold  # NaN is never above; below, it is wrong whatever the label
    right = (told == labels[rest]) & ~np.isnan(scores[rest])
    judged = bool(rest.any()) and not np.isnan(threshold)
    share = float(labels[rest].mean()) if rest.any() else float("nan")
    return Success(
        score=SCORES.get(labelled[0].estimator, LAST_SCORE),
        successes=int(labels.sum()),
        failures=int((~labels).sum()),
        undefined=int(np.isnan(scores).sum()),
        roc_auc=roc_auc(scores, labels),
        gap=bootstrap_difference(scores[labels], scores[~labels]),
        threshold=threshold,
        fitted_on=int(fitting.sum()),
        tested_on=int(rest.sum()),
        accuracy=float(right.mean()) if judged else float("nan"),
        majority=max(share, 1 - share),
        calibration=None if np.isnan(probabilities).all() else reliability(probabilities, labels),
        split=f"the split '{calibration_split}'" if calibration_split else f"half of each class, drawn by seed {seed}",
    )


def _calibration_part(rows: Sequence[Row], split: str | None, seed: int) -> NDArray[np.bool_]:
    """(N,) true for the episodes that the threshold is fitted on."""
    if split is not None:
        check_split([row.split for row in rows], split)
        return np.array([row.split == split for row in rows])
    chosen = np.zeros(len(rows), dtype=bool)
    for label in (True, False):
        places = [i for i, row in enumerate(rows) if row.success is label]
        places.sort(key=lambda i: hashlib.sha256(f"{seed}:{rows[i].episode_id}".encode()).digest())
        chosen[places[: (len(places) + 1) // 2]] = True
    return chosen
