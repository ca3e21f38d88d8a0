"""Streams of several environments that step together: one vision call and one decoder call a tick for all.

In go a frame for each environment; out comes a value for each, as its own stream would have it alone. The streams share
one cache, a row each; what is due of them in a tick stands side by side in one pass, padded on the right.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike

from topreward.config import Protocol
from topreward.errors import ConfigError, TopRewardError
from topreward.estimators.topreward.stream import Stream, run_together
from topreward.estimators.topreward.stream_state import StreamValue, WhenFull, Work
from topreward.qwen.live import LiveCache
from topreward.qwen.model import QwenVL


class StreamPool:
    """A stream for each environment. Made by `TOPReward.stream_pool`."""

    def __init__(
        self,
        model: QwenVL,
        instructions: Sequence[str | Sequence[str]],
        *,
        fps: float,
        protocol: Protocol,
        max_blocks: int = 256,
        when_full: WhenFull = "refuse",
        memory_limit: int | None = None,
    ) -> None:
        """`instructions`: for each environment, one or several. Raises what `Stream` raises."""
        if isinstance(instructions, str) or not len(instructions):
            raise ConfigError(f"a pool takes a list of instructions, one for each environment, got {instructions!r}")
        cache = LiveCache(model, len(instructions), memory_limit=memory_limit)
        self.streams = [
            Stream(
                model,
                instruction,
                fps=fps,
                protocol=protocol,
                max_blocks=max_blocks,
                when_full=when_full,
                cache=cache,
                row=row,
            )
            for row, instruction in enumerate(instructions)
        ]
        """Each may be finished, reset and asked for its curve by itself."""

    def __len__(self) -> int:
        return len(self.streams)

    @torch.inference_mode()
    def push(
        self, frames: Sequence[ArrayLike | None], seconds: Sequence[float | None] | None = None
    ) -> list[StreamValue | None]:
        """A tick: a frame for each environment, None for those that rest. Returns a value or None for each.

        An environment whose frame is refused keeps none of the others from theirs: its error, which names it, is raised
        after they are done; their values are then in their streams' curves. Raises what `Stream.push` raises.
        """
        times = [None] * len(self) if seconds is None else list(seconds)
        if len(frames) != len(self) or len(times) != len(self):
            raise ConfigError(f"{len(frames)} frames and {len(times)} times for a pool of {len(self)} environments")
        due: dict[tuple[int, int], list[tuple[int, Work]]] = {}
        refused: tuple[int, TopRewardError] | None = None
        for number, (frame, time) in enumerate(zip(frames, times, strict=True)):
            if frame is None:
                continue
            try:
                work = self.streams[number].take(frame, time)
            except TopRewardError as error:
                refused = refused or (number, error)
                continue
            if work is not None:  # the tower takes blocks of one size
                due.setdefault(self.streams[number].grid, []).append((number, work))
        out: list[StreamValue | None] = [None] * len(self)
        for mine in due.values():
            values = run_together([self.streams[number] for number, _ in mine], [work for _, work in mine])
            for (number, _), value in zip(mine, values, strict=True):
                out[number] = value
        if refused is not None:
            number, cause = refused
            raise type(cause)(f"environment {number}: {cause}") from cause
        return out
