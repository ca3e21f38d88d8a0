"""Clips whose brightness is their progress, and scorers that need no model: some honest, one a clock, some broken.

Module-level and picklable, so that worker processes can load them too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topreward.errors import VideoError
from topreward.evaluation import Scorer
from topreward.jobs.frames import Recipe
from topreward.types import Clip, Curve, Episode

PREFIXES = 6


def bright_clip(levels: Sequence[int], fps: float = 10.0, source: str = "bright") -> Clip:
    """Frame i is 4x6 px of one grey level."""
    frames = np.repeat(np.asarray(levels, dtype=np.uint8), 4 * 6 * 3).reshape(len(levels), 4, 6, 3)
    return Clip.from_array(frames, fps, source=source)


def missing() -> Clip:
    raise VideoError("gone.mp4: no such file")


def broken() -> Clip:
    raise ZeroDivisionError("a bug")


def rising(index: int, frames: int = 12, top: int = 200) -> list[int]:
    """Brightness that rises to `top`, with a wobble that differs from episode to episode."""
    rng = np.random.default_rng(index)
    return [int(v) for v in np.clip(np.linspace(10, top, frames) + rng.integers(-25, 26, frames), 0, 250)]


def episodes(count: int = 6, loads: Mapping[int, Callable[[], Clip]] | None = None) -> list[Episode]:
    """Every second one succeeds and rises higher; all know their progress."""
    out = []
    for i in range(count):
        levels = rising(i, top=220 if i % 2 else 90)
        load = (loads or {}).get(i, partial(bright_clip, levels))
        progress = np.linspace(0, 1.0 if i % 2 else 0.4, len(levels))
        out.append(
            Episode(f"e{i}", f"task {i % 3}", load, success=bool(i % 2), split="ab"[i % 4 // 2], progress=progress)
        )
    return out


def prefix_lengths(num_frames: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(1, num_frames, PREFIXES, dtype=int)).astype(np.int64)


def make_curve(clip: Clip, text: str, values: NDArray[np.float64], **changes: object) -> Curve:
    lengths = prefix_lengths(clip.num_frames)
    return Curve(text, lengths, clip.pts_seconds[lengths - 1], values, "nats", clip.num_frames, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Bright:
    """log p(True) is the log of the brightness of each prefix's last frame; half of it for `task 0`."""

    log: Path | None = None
    """Gets a line per call, with the process."""
    pause: float = 0.0
    """s per call."""

    def frames(self, clip: Clip) -> NDArray[np.int64]:
        return prefix_lengths(clip.num_frames) - 1

    def score(self, clip: Clip, instructions: Sequence[str], *, episode_id: str) -> list[Curve]:
        time.sleep(self.pause)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{episode_id} {clip.source} {len(instructions)} {os.getpid()}\n")
        level = clip.frames(self.frames(clip))[:, 0, 0, 0].astype(np.float64)
        out = []
        for text in instructions:
            share = (level + 1) / (512 if text == "task 0" else 256)
            out.append(
                make_curve(clip, text, np.log(share), log_prob_true=np.log(share), log_prob_false=np.log1p(-share))
            )
        return out


class Foretold(Bright):
    """Tells what it looks at, so that others may decode ahead of it."""

    def recipe(self) -> Recipe:
        return Recipe(self.frames)


class Clock:
    """Sees nothing: the value is the number of frames shown."""

    def frames(self, clip: Clip) -> NDArray[np.int64]:
        return np.zeros(1, dtype=np.int64)

    def score(self, clip: Clip, instructions: Sequence[str], *, episode_id: str) -> list[Curve]:
        return [make_curve(clip, text, prefix_lengths(clip.num_frames).astype(float)) for text in instructions]


@dataclass(frozen=True)
class Answers:
    """Writes percentages, and fails to for some episodes, as GVL may."""

    fails: tuple[str, ...] = ()

    def frames(self, clip: Clip) -> NDArray[np.int64]:
        return prefix_lengths(clip.num_frames) - 1

    def score(self, clip: Clip, instructions: Sequence[str], *, episode_id: str) -> list[Curve]:
        lengths = prefix_lengths(clip.num_frames)
        level = clip.frames(lengths - 1)[:, 0, 0, 0] / 2.55
        failure = {"kind": "refusal", "reason": "no"} if episode_id in self.fails else None
        values = np.full(lengths.size, np.nan) if failure else level
        made = {"failure": failure, "tokens": {"prompt": 100, "answer": 20}, "model": "none"}
        times = clip.pts_seconds[lengths - 1]
        return [
            Curve(text, lengths, times, values, "percent", clip.num_frames, provenance=made) for text in instructions
        ]


class Crashes:
    """Kills its process when it meets e2."""

    frames = Bright().frames

    def score(self, clip: Clip, instructions: Sequence[str], *, episode_id: str) -> list[Curve]:
        if episode_id == "e2":
            os._exit(9)
        return Bright().score(clip, instructions, episode_id=episode_id)


@dataclass(frozen=True)
class Load:
    """Loads given scorers, in any process."""

    scorers: Mapping[str, Scorer]

    def __call__(self, worker: int, workers: int) -> Mapping[str, Scorer]:
        return self.scorers
