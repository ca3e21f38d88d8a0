"""How labels are made of curves: every choice that changes a number, and none that changes a curve.

In go numbers and words; out comes a Settings that says what is wrong with them. Knows no curve.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from topreward.errors import ConfigError

ProgressColumn = Literal["progress_anchored", "progress", "probability", "percent"]
"""The per-frame curves that advantages and weights can be made of: those that are shares of a whole."""


@dataclass(frozen=True)
class LabelSettings:
    """How curves become training signals (docs/labelling.md)."""

    column: ProgressColumn = "progress_anchored"
    """The progress that advantages and weights are made of, and LeRobot reads."""
    causal: bool = False
    """Hold the last scored value between scored frames instead of a line to the next one."""
    horizon: int = 50
    """Frames that an advantage looks ahead."""
    step_cost: bool = False
    """RECAP's advantage: each step costs 1 / the task's longest episode."""
    beta: float | None = None
    """Of exp(A / beta); by default the standard deviation of A over the dataset."""
    chunk_size: int = 50
    """Frames that LeRobot's RA-BC looks ahead: the policy's chunk_size."""
    kappa: float | None = None
    """RA-BC's bar for a full weight; by default about half the mean gain over a chunk."""
    positive_share: float = 0.3
    """Share of frames whose advantage counts as positive."""
    positive_over: Literal["all", "task"] = "all"
    """Take that share over all frames, or of each instruction's."""
    force_positive: str | None = None
    """Episodes whose frames are all positive (demonstrations, corrections), as --episodes has them."""
    success_threshold: float | None = None
    """Success scores from here on are predicted successes; by default fitted on the dataset's own labels."""

    def __post_init__(self) -> None:
        for name in ("horizon", "chunk_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{_option(name)} is {getattr(self, name)}, want 1 frame or more")
        if self.beta is not None and not 0 < self.beta < float("inf"):
            raise ConfigError(f"--beta is {self.beta}, want a number above 0")
        if self.kappa is not None and not 0 <= self.kappa < float("inf"):
            raise ConfigError(f"--kappa is {self.kappa}, want a number, 0 or more")
        if not 0 < self.positive_share < 1:
            raise ConfigError(f"--positive-share is {self.positive_share}, want a number between 0 and 1")
        if self.success_threshold is not None and self.success_threshold != self.success_threshold:
            raise ConfigError("--success-threshold is no number")

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
