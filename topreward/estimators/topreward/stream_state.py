"""What a stream says and what it remembers: values, the frames it shows, its part of the cache, its past values.

Data only: `stream` decides what is shown, and runs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from topreward.errors import CurveError
from topreward.qwen.live_layout import End

WhenFull = Literal["refuse", "restart", "thin"]
Made = Literal["whole", "restarted", "thinned"]


@dataclass(frozen=True, eq=False)
class StreamValue:
    """What is known at one moment. `float(value)` is log p(True), where there is one instruction."""

    prefix_length: int
    """n, raw frames so far."""
    seconds: float
    """Time of the last of them since the first, s."""
    log_prob_true: NDArray[np.float64]
    """(I,) nats, one an instruction."""
    log_prob_false: NDArray[np.float64]
    """(I,) nats."""
    made: Made
    """Of all frames so far by the protocol (`whole`); of those since a new beginning; or of a coarser schedule."""
    first_frame: int
    """Raw index of the frame that it begins with: 0, unless it was restarted."""
    frames: NDArray[np.int64]
    """(N,) raw index of each frame that was shown."""
    frame_seconds: NDArray[np.float64]
    """(N,) time that the prompt gave each of them, s."""

    def __float__(self) -> float:
        if self.log_prob_true.size != 1:
            raise CurveError(f"{self.log_prob_true.size} instructions have no single value; take log_prob_true")
        return float(self.log_prob_true[0])

    def __repr__(self) -> str:
        nats = ", ".join(f"{v:.3f}" for v in self.log_prob_true)
        return f"StreamValue({nats} nats at {self.seconds:.2f} s, {self.frames.size} of {self.prefix_length} frames)"


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame that the model is shown."""

    index: int
    """Raw index."""
    seconds: float
    """In the prompt."""
    pixels: Tensor | None
    """(1, 3, h, w) uint8; None where nobody will need them again."""

    @property
    def held(self) -> Tensor:
        """The pixels of one that is to be seen."""
        assert self.pixels is not None, f"frame {self.index} was let go of"
        return self.pixels


@dataclass(eq=False)
class Work:
    """One value that is due: what the model has to run for it."""

    shown: list[Shown]
    """All frames of the prompt, in order."""
    kept_blocks: int
    """The first blocks, which no later frame changes."""


@dataclass(eq=False)
class Trunk:
    """The part of the cache that a stream has filled, and the frames it is made of."""

    frames: list[Shown] = field(default_factory=list)
    """Sampled for good, in order, as far as they are kept."""
    ends: list[End] = field(default_factory=lambda: [End()])
    """Where the trunk ends after each number of blocks."""
    stride: int = 1
    """Of the frames sampled for good, every that many-th is kept."""

    @property
    def blocks(self) -> int:
        return len(self.ends) - 1


@dataclass(eq=False)
class Record:
    """What a stream remembers of its values."""

    lengths: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    answers: list[NDArray[np.float64]] = field(default_factory=list)
    """(I, 2) each."""
    counts: list[int] = field(default_factory=list)
    """Frames shown."""
    made: list[Made] = field(default_factory=list)
    first_frames: list[int] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    """Raw index of every frame sampled for good since the last beginning."""
    trunk_tokens: int = 0
    """Through the decoder, of blocks that stayed."""
    branch_tokens: int = 0
    """Those that did not."""
