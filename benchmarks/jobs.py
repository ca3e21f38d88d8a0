"""The clips and protocols that are timed, each with the ways to time it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topreward.config import Protocol, load_protocol
from topreward.types import Clip

TASKS = ["pick up the cup", "open the drawer", "close the drawer", "put the cup on the plate",
         "push the block", "lift the lid", "fold the towel", "wipe the table"]  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One clip, one protocol, and the ways to time."""

    frames: int
    """Raw frames, at 30 frames/s."""
    protocol: Protocol
    height: int = 256
    width: int = 256
    instructions: int = 1
    ways: tuple[str, ...] = ("floor", "ours", "score", "append", "alone", "recompute")
    once: tuple[str, ...] = ()
    """Ways that take too long to repeat."""

    def clip(self, seed: int = 0, *, smooth: bool = False) -> Clip:
        """Noise that moves sideways, drawn when asked for; `smooth`: as easy to encode as a camera's picture."""
        random = np.random.default_rng(seed)
        if smooth:
            few = random.integers(0, 256, (self.height // 16, self.width // 16, 3), dtype=np.uint8)
            base = np.asarray(Image.fromarray(few).resize((self.width, self.height), Image.Resampling.BICUBIC))
        else:
            base = random.integers(0, 256, (self.height, self.width, 3), dtype=np.uint8)

        def decode(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
            return np.stack([np.roll(base, 3 * int(i), axis=1) for i in indices])

        return Clip(np.arange(self.frames) / 30.0, 30.0, self.height, self.width, decode, source="noise")

    def smaller(self) -> Job:
        """For a run that only shows that all works."""
        protocol = load_protocol(self.protocol, frame_pixels=min(self.protocol.frame_pixels, 128 * 96))
        return replace(self, frames=min(max(self.frames // 6, 90), 1200), height=96, width=128, protocol=protocol)


JOBS: dict[str, Job] = {
    "paper": Job(984, load_protocol("paper")),
    "patches": Job(984, load_protocol("dense")),
    "every-patch": Job(984, load_protocol("dense", num_prefixes=0)),
    "native": Job(984, load_protocol("dense", frame_pixels=480 * 640), 480, 640),
    "90s": Job(2700, load_protocol("dense")),
    "8-instructions": Job(984, load_protocol("dense"), instructions=8, ways=("floor", "ours", "score", "one-by-one")),
    "10min": Job(18_000, load_protocol("dense"), once=("recompute",)),
}
SHORT = Job(90, load_protocol("dense"))
