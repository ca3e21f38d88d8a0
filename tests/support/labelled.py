"""Runs to make labels of: folders as a job writes them, with curves that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topreward.evaluation import Folder, Plan
from topreward.jobs.episode import Measured, Reading
from topreward.jobs.plan import FROZEN, REAL
from topreward.types import Curve

FPS = 10.0


@dataclass(frozen=True)
class Made:
    """An episode of a run, and what its curve is to be."""

    scored: Sequence[int]
    """Raw frames that values speak for."""
    values: Sequence[float]
    frames: int = 12
    instruction: str = "open the drawer"
    success: bool | None = None
    split: str | None = None
    error: str | None = None
    frozen: Sequence[float] | None = None
    unit: Any = "nats"
    failure: Mapping[str, str] | None = None
    times: NDArray[np.float64] | None = None
    """(T,) s, where they are uneven."""


def write_run(
    folder: Path,
    episodes: Sequence[Made],
    *,
    base: str = "topreward",
    lerobot: bool = True,
    planned: int | None = None,
    dataset: str | None = None,
) -> Path:
    """A run's folder with these curves, `dataset_from_index` and all; `planned`: episodes it was to have."""
    first = 0
    also = tuple(name(i) for i, made in enumerate(episodes) if made.frozen is not None)
    plan = Plan((base,), controls=False, also_frozen=also)
    settings = {
        "model": {"name": "none"},
        "dataset": {"dataset": dataset},
        "plan": plan.settings(),
        "episodes": {"count": len(episodes) if planned is None else planned, "sha256": "0"},
    }
    with Folder(folder) as kept:
        kept.open(settings)
        for number, made in enumerate(episodes):
            place = {"episode_index": number, "dataset_from_index": first} if lerobot else None
            first += made.frames
            known = {"success": made.success, "split": made.split, "place": place}
            if made.error is not None:
                kept.write(Measured(name(number), made.instruction, **known, error=made.error))
                continue
            readings = [Reading(base, REAL, _curve(made, made.values), None, 1.0)]
            if made.frozen is not None:
                readings.append(Reading(base, FROZEN, _curve(made, made.frozen), None, 1.0))
            measured = Measured(
                name(number),
                made.instruction,
                **known,
                num_frames=made.frames,
                readings=tuple(readings),
                stamp={"fps": FPS},
                frame_times=made.times,
            )
            kept.write(measured)
    return folder


def name(number: int) -> str:
    return f"episode_{number:06d}"


def _curve(made: Made, values: Sequence[float]) -> Curve:
    times = np.arange(made.frames) / FPS if made.times is None else made.times
    lengths = np.array(made.scored) + 1
    nats = made.unit == "nats"
    made_by = {"failure": made.failure} if made.failure else {}
    return Curve(
        made.instruction,
        lengths,
        times[lengths - 1],
        np.array(values, dtype=np.float64),
        made.unit,
        made.frames,
        log_prob_true=np.array(values) if nats else None,
        log_prob_false=np.log(-np.expm1(values)) if nats and max(values) < 0 else None,
        provenance=made_by,
    )


def some(count: int = 12, seed: int = 0, frames: int = 40) -> list[Made]:
    """Episodes whose values rise, each with its own wobble; every second one fails half-way."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        length = frames + int(rng.integers(-8, 9))
        scored = np.unique(np.linspace(3, length - 1, 7, dtype=int))
        top = -0.2 if number % 2 else -2.0
        values = np.linspace(-5, top, scored.size) + rng.normal(0, 0.4, scored.size)
        out.append(Made(scored.tolist(), np.minimum(values, -0.05).tolist(), length, success=bool(number % 2)))
    return out
