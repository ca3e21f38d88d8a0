"""How a job is carried out: batches, decoders, processes. None of it decides a number.

In go wishes; out come an Engine, which travels to worker processes, and what a run tells of its pace. Knows no model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from topreward.errors import ConfigError

EngineKind = Literal["local", "ray"]

MOST_DECODERS = 4
"""Decoders that a model gets where nobody says how many."""
FEW_EPISODES = 8
"""So few are decoded in the model's process: a decoder would hardly have started."""


@dataclass(frozen=True)
class Shard:
    """One of several runs that share a folder, and nothing else."""

    number: int
    """1 … of"""
    of: int
    lease_seconds: float = 60.0
    """After so long without a heartbeat, an episode is another run's to take."""

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ConfigError(f"shard {self.number}/{self.of}: want i/n with i from 1 to n")
        if not self.lease_seconds > 0:
            raise ConfigError(f"lease_seconds is {self.lease_seconds:g}, want more than 0")


@dataclass(frozen=True)
class Engine:
    """How episodes are measured. As it stands: one after the other, in this process."""

    workers: int = 1
    """Processes with a model each."""
    decoders: int | None = 0
    """Processes per model that decode ahead of it; 0: the model's own process decodes, None: as there are cores."""
    batch_size: int | None = 1
    """Most clips that share a pass; 1: each has its own, None: as many as keep the device busy and fit into memory."""
    shard: Shard | None = None
    kind: EngineKind = "local"
    """`ray`: the models run as actors of Ray Data, on whatever cluster there is."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"num_workers is {self.workers}, want at least 1")
        if self.decoders is not None and self.decoders < 0:
            raise ConfigError(f"decode_workers is {self.decoders}, want at least 0")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}, want at least 1")
        if self.kind == "ray" and self.shard is not None:
            raise ConfigError("ray shares the work out itself; leave out the shard")

    def decoders_for(self, episodes: int) -> int:
        """Decoders for each model, where so many episodes are to be measured."""
        if self.decoders is not None:
            return self.decoders
        if episodes <= FEW_EPISODES * self.workers:
            return 0
        return max(0, min(MOST_DECODERS, cores() // self.workers - 1))


@dataclass
class Pace:
    """What a run has done so far, and what it waited for."""

    frames: int = 0
    """Decoded."""
    waited: float = 0.0
    """s that models waited for frames."""
    elapsed: float = 0.0
    """s that models were at hand, waiting included."""

    @property
    def waiting(self) -> float:
        """The share of their time that models waited."""
        return self.waited / self.elapsed if self.elapsed else 0.0

    def add(self, other: Pace) -> None:
        self.frames += other.frames
        self.waited += other.waited
        self.elapsed += other.elapsed


def parse_shard(text: str, lease_seconds: float) -> Shard:
    """`"2/8"` → the second of eight. Raises ConfigError."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and len(text) < 20):
        raise ConfigError(f"shard is {text!r}, want i/n, as in 2/8")
    return Shard(int(number), int(of), lease_seconds)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
