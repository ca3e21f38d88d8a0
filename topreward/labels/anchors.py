"""Where progress is 0 and 1 over a whole dataset: anchors out of how its episodes begin and end.

In go the first and last values of all episodes and their instructions; out come two values per instruction. Nats of
different instructions are on no common scale, so that an instruction with episodes enough has anchors of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

LOW_QUANTILE, HIGH_QUANTILE = 0.05, 0.95

OWN_FROM = 10
"""Episodes from which on an instruction has anchors of its own."""


@dataclass(frozen=True)
class Anchor:
    """The values that mean nothing done, and all done."""

    low: float
    """5 % quantile of the episodes' first values, in the curves' unit; NaN where there are none."""
    high: float
    """95 % quantile of their last values."""
    over: Literal["instruction", "all"]
    """Whose episodes they are taken over."""
    episodes: int
    """How many those are."""

    @property
    def defined(self) -> bool:
        """Whether there is a scale at all: ends lie above beginnings."""
        return self.high > self.low

    def progress(self, values: ArrayLike) -> NDArray[np.float64]:
        """The values as progress in [0, 1], clipped; NaN throughout where there is no scale."""
        array = np.asarray(values, dtype=np.float64)
        if not self.defined:
            return np.full(array.shape, np.nan)
        return np.clip((array - self.low) / (self.high - self.low), 0.0, 1.0)


def anchors_of(ends: Sequence[tuple[str, float, float]]) -> Mapping[str, Anchor]:
    """Anchors by instruction out of (instruction, first value, last value) of all episodes.

    Episodes with a NaN at either end do not count. Instructions with fewer than `OWN_FROM` episodes share those over
    all episodes, of all instructions.
    """
    counted = [end for end in ends if not (np.isnan(end[1]) or np.isnan(end[2]))]
    everything = _anchor(counted, "all")
    by_instruction: dict[str, list[tuple[str, float, float]]] = {text: [] for text, _, _ in ends}
    for end in counted:
        by_instruction[end[0]].append(end)
    return {
        text: _anchor(own, "instruction") if len(own) >= OWN_FROM else everything
        for text, own in by_instruction.items()
    }


def _anchor(ends: Sequence[tuple[str, float, float]], over: Literal["instruction", "all"]) -> Anchor:
    if not ends:
        return Anchor(float("nan"), float("nan"), over, 0)
    low = float(np.quantile([first for _, first, _ in ends], LOW_QUANTILE))
    high = float(np.quantile([last for _, _, last in ends], HIGH_QUANTILE))
    return Anchor(low, high, over, len(ends))
