"""Which frames a protocol shows while a video is still being filmed.

In go the times of frames, one after the other; out comes which of them are sampled for good, and what the video so far
shows. Agrees with `topreward.sampling` on every video so far, at a cost that does not grow with it. Knows no pixels.

Two grids, as there. By index, a frame is sampled or not whatever comes after it. By time, the frame nearest to each
moment is sampled: that is settled by the first frame at or after the moment, and may be the frame before it. And the
last frame of the video so far always stands last, in the place of the frame that the last moment would have had.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from topreward.config import Protocol

SLACK = 1e-6
"""s by which `time_grid` may be early for a moment: a clip of exactly n steps keeps its last one."""


@dataclass(frozen=True)
class Arrived:
    """What one frame has changed."""

    settled: tuple[int, ...]
    """Indices of frames that every longer video samples as well, from now on: this one, the one before it, or both."""
    before: int | None
    """How many of the settled frames stand before this one in the video so far, which shows this one last. None where
    it shows nothing new."""


@dataclass(frozen=True)
class Arriving:
    """The sampling of a video so far."""

    protocol: Protocol
    fps: float
    """Nominal frames/s, as a Clip has it."""
    count: int = 0
    """Frames so far."""
    seconds: float = 0.0
    """Time of the last one."""
    settled: int = 0
    """Frames sampled for good."""
    newest: int = -1
    """Index of the last of them."""
    point: int = 0
    """The first point of the grid that has no frame yet."""
    reached: int = 0
    """Moments that the video so far has reached, by time."""

    def push(self, seconds: float) -> tuple[Arriving, Arrived]:
        """One more frame. `seconds`: its time since the first frame, later than the last one's."""
        return self._by_index(seconds) if self.protocol.frames == "index_grid" else self._by_time(seconds)

    def end(self) -> int | None:
        """If the video ends here: how many settled frames stand before the last one, which is shown last.

        None where the last frame is not shown.
        """
        if self.protocol.frames == "time_grid":
            return self._before_last()
        if self.newest == self.count - 1:
            return self.settled - 1
        # The grid's next point lies before the end, and rounds beyond it: the last frame takes its place.
        return self.settled if self.point < math.ceil(self.count / self._step) else None

    @property
    def _step(self) -> float:
        return max(self.fps / self.protocol.sampling_fps, 1.0)

    def _by_index(self, seconds: float) -> tuple[Arriving, Arrived]:
        index, point = self.count, self.point
        while round(point * self._step) == index:  # half to even, as numpy rounds
            point += 1
        now = replace(self, count=index + 1, seconds=seconds, point=point)
        if point == self.point:
            return now, Arrived((), None)
        return replace(now, settled=self.settled + 1, newest=index), Arrived((index,), self.settled)

    def _by_time(self, seconds: float) -> tuple[Arriving, Arrived]:
        index, rate = self.count, self.protocol.sampling_fps
        first, last = self.point, math.floor(seconds * rate)
        while last / rate > seconds:  # the product may be rounded across a whole number, either way
            last -= 1
        while (last + 1) / rate <= seconds:
            last += 1
        settled = []
        if last >= first:
            # Of the moments between two frames, the earliest is the likeliest to lie nearer to the frame before.
            early, late = first / rate, last / rate
            if index and early - self.seconds <= seconds - early and self.newest != index - 1:
                settled.append(index - 1)
            if not index or late - self.seconds > seconds - late:
                settled.append(index)
        now = replace(
            self,
            count=index + 1,
            seconds=seconds,
            settled=self.settled + len(settled),
            newest=settled[-1] if settled else self.newest,
            point=max(first, last + 1),
            reached=int((seconds + SLACK) * rate) + 1,
        )
        return now, Arrived(tuple(settled), now._before_last() if now.reached > self.reached else None)

    def _before_last(self) -> int:
        # A moment that the slack alone has reached is nobody's yet, and the last frame's if nothing follows.
        shown = self.settled + (self.reached > self.point and self.newest != self.count - 1)
        # Where one frame would be left of several, the last one is added; else it takes the last one's place.
        return 1 if shown == 1 and self.count > 1 else shown - 1
