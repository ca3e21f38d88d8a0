"""What is measured of every episode: which estimators, and whether with their controls.

In go names; out comes a Plan. Knows no video and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from topreward.errors import ConfigError, nearest

ESTIMATORS = ("topreward", "log_odds", "debiased", "gvl")
"""topreward: log p(True). log_odds: log p(True) - log p(False). debiased: log p(True) minus that of the same
prefix length of the frozen video. gvl: percentages that the model writes."""

DERIVED = {"log_odds": "topreward", "debiased": "topreward"}
"""Estimators that run no model of their own, and whose curves they are computed from."""

REAL = "real"
FROZEN, REVERSED, OTHER = "frozen", "reversed", "other_instruction"
CONTROLS = (FROZEN, REVERSED, OTHER)
FROZEN_OTHER = "frozen_other_instruction"
"""Measured for `debiased` alone: what to take from the curve of the other instruction."""

TIME_INDEX = "time_index"
"""Not an estimator: the share of frames shown, as if it were one."""


@dataclass(frozen=True)
class Plan:
    """The curves wanted of every episode."""

    estimators: tuple[str, ...] = ESTIMATORS
    """Names in ESTIMATORS, or of scorers of your own."""
    controls: bool = True
    seed: int = 0
    """Decides whose instruction an episode is scored with as a control."""
    also_frozen: tuple[str, ...] = ()
    """Ids of episodes whose frozen video is scored where controls are off: a sample that tells whether curves follow
    the clock. Not by gvl, which is shown its frames in random order."""

    def __post_init__(self) -> None:
        if not self.estimators:
            raise ConfigError("no estimator is named")
        if twice := sorted({name for name in self.estimators if self.estimators.count(name) > 1}):
            raise ConfigError(f"estimators are named twice: {', '.join(twice)}")
        if TIME_INDEX in self.estimators:
            raise ConfigError(f"'{TIME_INDEX}' is a control, measured wherever controls are")

    @property
    def bases(self) -> tuple[str, ...]:
        """The estimators that run a model, in order."""
        return tuple(dict.fromkeys(DERIVED.get(name, name) for name in self.estimators))

    def needs_frozen(self, base: str, episode_id: str) -> bool:
        """Whether an episode's frozen video is scored: as a control, for `debiased`, or as one of a sample."""
        sampled = base != "gvl" and episode_id in self.also_frozen
        return self.controls or self.debiases(base) or sampled

    def debiases(self, base: str) -> bool:
        """Whether `debiased` is computed from this estimator's curves."""
        return "debiased" in self.estimators and DERIVED["debiased"] == base

    def shown(self, estimator: str) -> tuple[str, ...]:
        """The controls that an estimator has rows for, the real video first."""
        if not self.controls or estimator == TIME_INDEX:
            return (REAL,)
        return (REAL, *CONTROLS)

    @property
    def rows(self) -> tuple[str, ...]:
        """All that has rows: the estimators, and with the controls the time index."""
        return (*self.estimators, TIME_INDEX) if self.controls else self.estimators

    def settings(self) -> dict[str, Any]:
        """What decides the numbers, as JSON has it; a sample only where there is one, so that older runs go on."""
        sample = {"also_frozen": list(self.also_frozen)} if self.also_frozen else {}
        plain = {name: value for name, value in asdict(self).items() if name != "also_frozen"}
        return {**plain, "estimators": list(self.estimators), **sample}


def parse_estimators(names: str | Sequence[str]) -> tuple[str, ...]:
    """`"topreward,gvl"` → names. Raises ConfigError for an unknown one, with the one that was probably meant."""
    parts = names.split(",") if isinstance(names, str) else list(names)
    chosen = tuple(part.strip() for part in parts if part.strip())
    for name in chosen:
        if name not in ESTIMATORS:
            raise ConfigError(
                f"no estimator named '{name}'{nearest(name, ESTIMATORS)}; there are {', '.join(ESTIMATORS)}"
            )
    if not chosen:
        raise ConfigError(f"no estimator is named; there are {', '.join(ESTIMATORS)}")
    return chosen
