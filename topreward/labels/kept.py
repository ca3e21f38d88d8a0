"""What labels keep of a measured episode: one estimator's curve, small enough to hold for thousands of episodes.

In goes a Measured; out comes a Kept, or one that says why there is no curve. Knows no other episode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from topreward.evaluation.rows import Row, row_of
from topreward.jobs.derive import as_share, reading
from topreward.jobs.episode import Measured
from topreward.jobs.plan import FROZEN, REAL, Plan
from topreward.types import Unit


@dataclass(frozen=True, eq=False)
class Kept:
    """One estimator on one episode."""

    id: str
    instruction: str
    success: bool | None
    split: str | None
    place: Mapping[str, int] | None
    """`episode_index` and `dataset_from_index`, where the dataset counts its frames through."""
    real: Row
    """The real video's numbers: score, VOC, error, failure."""
    frozen: Row | None
    """The frozen video's, where it was scored."""
    num_frames: int = 0
    """T; 0 where there is no curve."""
    unit: Unit | None = None
    scored: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False)
    """(K,) raw frames that a value speaks for: the last one of each prefix."""
    values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), repr=False)
    """(K,) as read, in `unit`."""
    probability: NDArray[np.float64] | None = field(default=None, repr=False)
    """(K,) p(True); None for an estimator that reads none."""
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), repr=False)
    """(K,) s, of the scored frames."""
    uneven: NDArray[np.float64] | None = field(default=None, repr=False)
    """(T,) s, of every raw frame, where they are not evenly spaced."""
    frame_seconds: float | None = None
    """From frame to frame, s, where the dataset says it."""

    @property
    def labelled(self) -> bool:
        """Whether there is a curve with a value on it."""
        return bool(self.values.size) and not bool(np.isnan(self.values).all())

    @property
    def why_not(self) -> str | None:
        """Why there are no labels, or not for every frame."""
        return self.real.error or self.real.failure

    def times(self) -> NDArray[np.float64]:
        """(T,) s, of every raw frame: as they were, or evenly spaced through the scored ones."""
        if self.uneven is not None:
            return self.uneven
        rate = self.frame_seconds if self.frame_seconds is not None else float("nan")
        if self.scored[-1] > 0:
            rate = float(self.seconds[-1]) / int(self.scored[-1])
        times = np.arange(self.num_frames, dtype=np.float64) * rate
        times[0] = 0.0  # also where no rate is known
        return times


def keep(measured: Measured, plan: Plan, estimator: str) -> Kept:
    """One estimator's part of a measured episode."""
    real = row_of(measured, plan, estimator, REAL) or _missing(measured, estimator)
    frozen = row_of(measured, plan, estimator, FROZEN)
    kept = Kept(
        measured.id,
        measured.instruction,
        measured.success,
        measured.split,
        measured.place,
        replace(real, pool=None),
        None if frozen is None else replace(frozen, pool=None),
    )
    found = reading(measured, plan, estimator, REAL)
    if found is None or found.curve is None:
        return kept
    curve = found.curve
    rate = (measured.stamp or {}).get("fps")
    return replace(
        kept,
        num_frames=curve.num_frames,
        unit=curve.unit,
        scored=curve.prefix_lengths - 1,
        values=curve.values,
        probability=None if curve.unit == "percent" else as_share(estimator, curve),
        seconds=curve.times,
        uneven=measured.frame_times,
        frame_seconds=1.0 / rate if isinstance(rate, int | float) and rate > 0 else None,
    )


def _missing(measured: Measured, estimator: str) -> Row:
    return Row(
        measured.id,
        estimator,
        REAL,
        measured.instruction,
        measured.success,
        measured.split,
        measured.num_frames,
        error=f"{estimator} was not measured",
    )
