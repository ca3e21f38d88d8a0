"""How an arm moves in time: keys, smooth stretches between them, uneven speed.

In: a random generator and what is to happen. Out: keys, and their values at given times. Pure; knows
nothing of tables, tasks or pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Position = tuple[float, float, float]
"""(x, y, z), m."""


@dataclass(frozen=True)
class Key:
    """What is true at the end of one stretch of an episode."""

    weight: float
    """Length of the stretch before this key, relative to the other stretches, > 0."""
    stage: float
    """How far the thing in hand is, in [0, 1]."""
    hold: float
    """1: the gripper is on the thing, 0: it is at `free`; in between it is on its way."""
    free: Position
    """Where the gripper goes when it is not on the thing, m."""


def min_jerk(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """The minimum-jerk step from 0 to 1, as hands and arms move (Flash & Hogan 1985)."""
    return np.asarray(u * u * u * (10 - 15 * u + 6 * u * u))


def uneven(rng: np.random.Generator, weight: float, start: Key, stage: float) -> list[Key]:
    """Keys that bring `start.stage` to `stage` in 1 to 4 strokes of uneven size, with pauses here and there."""
    strokes = int(rng.integers(1, 5))
    shares = rng.dirichlet(np.full(strokes, 2.0))
    reached = start.stage + (stage - start.stage) * np.cumsum(shares)
    reached[-1] = stage  # exactly, whatever the sum rounds to
    spans = rng.dirichlet(np.full(strokes, 3.0)) * weight
    keys: list[Key] = []
    for index, (span, level) in enumerate(zip(spans, reached, strict=True)):
        last = index == strokes - 1
        pause = 0.0 if last or rng.random() > 0.4 else float(rng.uniform(0.2, 0.5))
        keys.append(Key(float(span) * (1 - pause), float(level), 1.0, start.free))
        if pause:
            keys.append(Key(float(span) * pause, float(level), 1.0, start.free))
    return keys


def play(
    keys: list[Key], times: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The keys' values at `times` (T,), s: stage (T,), hold (T,), free (T, 3).

    The first key is where everything starts (its weight is ignored); the last one is reached at `times[-1]`.
    """
    weights = np.array([0.0] + [key.weight for key in keys[1:]])
    at = np.cumsum(weights) / weights.sum() * times[-1]
    at[-1] = times[-1]
    after = np.clip(np.searchsorted(at, times, side="right"), 1, len(keys) - 1)
    u = np.clip((times - at[after - 1]) / np.maximum(at[after] - at[after - 1], 1e-9), 0.0, 1.0)
    step = min_jerk(u)[:, None]
    values = np.array([(key.stage, key.hold, *key.free) for key in keys])
    out = values[after - 1] + (values[after] - values[after - 1]) * step
    return np.clip(out[:, 0], 0.0, 1.0), np.clip(out[:, 1], 0.0, 1.0), out[:, 2:]
