"""From values as they come to what one wants to know of a running robot: is it getting on, is it done, is it stuck?

In go times and values, one at a time; out comes a Reading each. Pure Python: knows no model and no stream. One hard
bar is not enough: a value may touch it once, a robot may hang at half way, and what was done may be undone. So a state
holds only after it was seen several times in a row, and progress and success are told apart.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from topreward.errors import ConfigError, CurveError

State = Literal["running", "success", "stalled", "regressed"]


@dataclass(frozen=True)
class Reading:
    """What the values so far say."""

    state: State
    """`success`: at the threshold or above. `regressed`: below the floor after having reached it. `stalled`: no change
    beyond the tolerance within the plateau's time. `running`: none of these. Each after `patience` values in a row."""
    seconds: float
    value: float
    progress: float
    """Where the value stands between floor (0) and threshold (1), cut off at both; says nothing about success."""
    succeeded_at: float | None
    """s, when `success` first held; it stays known if the state is lost again."""


class SuccessMonitor:
    """Watches one attempt."""

    def __init__(
        self,
        threshold: float,
        floor: float,
        plateau_seconds: float,
        patience: int = 2,
        *,
        tolerance: float | None = None,
    ) -> None:
        """`threshold`, `floor`, `tolerance`: in the values' unit; values of different instructions are on no common
        scale, so the bars belong to one. `tolerance`: by default a tenth of the way from floor to threshold.
        `patience`: values in a row that a state takes. Raises ConfigError.
        """
        if not (math.isfinite(threshold) and math.isfinite(floor) and floor < threshold):
            raise ConfigError(f"floor {floor!r} and threshold {threshold!r}: want two numbers, the floor below")
        if not (math.isfinite(plateau_seconds) and plateau_seconds > 0):
            raise ConfigError(f"plateau_seconds is {plateau_seconds!r}, want a number above 0")
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ConfigError(f"patience is {patience!r}, want a whole number of at least 1")
        tolerance = (threshold - floor) / 10 if tolerance is None else tolerance
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise ConfigError(f"tolerance is {tolerance!r}, want 0 or a number above it")
        self.threshold, self.floor, self.tolerance = threshold, floor, tolerance
        self.plateau_seconds, self.patience = plateau_seconds, patience
        self.reset()

    def reset(self) -> None:
        """Begin with another attempt."""
        self.state: State = "running"
        self.succeeded_at: float | None = None
        self._reached_floor = False
        self._coming: State = "running"
        self._times = 0
        self._window: deque[tuple[float, float]] = deque()
        """Values of the plateau's time, and the last one before it."""

    def update(self, seconds: float, value: float) -> Reading:
        """One more value. `seconds`: later than the one before. Raises CurveError for a time that is not, and NaN."""
        seconds, value = float(seconds), float(value)
        if math.isnan(value) or not math.isfinite(seconds):
            raise CurveError(f"value {value!r} at {seconds!r} s: want numbers")
        if self._window and seconds <= self._window[-1][0]:
            raise CurveError(f"a value at {seconds:g} s after one at {self._window[-1][0]:g} s: times must increase")
        self._window.append((seconds, value))
        while len(self._window) > 1 and self._window[1][0] <= seconds - self.plateau_seconds:
            self._window.popleft()
        seen = self._seen(seconds, value)
        self._reached_floor |= value >= self.floor
        self._times = self._times + 1 if seen == self._coming else 1
        self._coming = seen
        if self._times >= self.patience:
            self.state = seen
        if self.state == "success" and self.succeeded_at is None:
            self.succeeded_at = seconds
        progress = min(max((value - self.floor) / (self.threshold - self.floor), 0.0), 1.0)
        return Reading(self.state, seconds, value, progress, self.succeeded_at)

    def _seen(self, seconds: float, value: float) -> State:
        """What this value alone would make it."""
        if value >= self.threshold:
            return "success"
        if self._reached_floor and value < self.floor:
            return "regressed"
        values = [v for _, v in self._window]
        covered = self._window[0][0] <= seconds - self.plateau_seconds
        if covered and max(values) - min(values) <= self.tolerance:
            return "stalled"
        return "running"
