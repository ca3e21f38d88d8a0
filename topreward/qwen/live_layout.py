"""The tokens of a video that grows: what comes next after the blocks that are there.

In go times, grid sizes and questions; out come the tokens of one pass, as `layout` lays them out for a whole video:
first whole blocks that stay, then what is only asked: a block that may yet change, and the questions. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topreward.qwen.layout import Encode, Tokens, VisionTokens, Writer, stamp


@dataclass(frozen=True)
class End:
    """Where a trunk ends, or its beginning."""

    tokens: int = 0
    position: int = 0
    """M-RoPE position of what comes next."""


@dataclass(frozen=True, eq=False)
class Next:
    """The tokens of one pass of one video."""

    tokens: Tokens
    """(n,) blocks that stay, then the stem and the tails of what is asked."""
    begin: End
    """Where they go on from."""
    ends: tuple[End, ...]
    """After each block that stays."""
    stem_stop: int
    """Tokens before it are seen by all that come after them; tail i is [previous stop, tail_stops[i])."""
    tail_stops: tuple[int, ...]
    """One a question; none where nothing is asked."""

    @property
    def kept(self) -> int:
        """The first tokens, whose keys stay."""
        return (self.ends[-1].tokens if self.ends else self.begin.tokens) - self.begin.tokens

    @property
    def tail_starts(self) -> NDArray[np.int64]:
        """(n,) first token that each token sees of those behind the stem; 0 for the stem's own."""
        starts = np.zeros(len(self.tokens), dtype=np.int64)
        first = self.stem_stop
        for stop in self.tail_stops:
            starts[first:stop] = first
            first = stop
        return starts


def lay_out_next(
    encode: Encode,
    vision: VisionTokens,
    *,
    opening: str,
    grid: tuple[int, int],
    begin: End,
    stays: Sequence[float],
    passing: Sequence[float] = (),
    shared: Sequence[int] = (),
    tails: Sequence[Sequence[int]] = (),
) -> Next:
    """Lay out one pass.

    `stays`: s, times of the blocks that stay; `passing`: of those that are shown this once. `shared`, `tails`: token
    ids of the questions, what all begin with and the rest of each.
    """
    writer = Writer(vision, grid)
    writer.position = begin.position
    ends = []
    for number, seconds in enumerate((*stays, *passing)):
        first = not begin.tokens and not number  # opening and first time are one run of text
        writer.text(encode(opening + stamp(seconds) if first else stamp(seconds)))
        writer.block()
        if number < len(stays):
            ends.append(End(begin.tokens + len(writer.ids), writer.position))
    writer.text(list(shared))
    stem_stop, position = len(writer.ids), writer.position
    stops = []
    for tail in tails:
        writer.position = position
        writer.text(list(tail))
        stops.append(len(writer.ids))
    return Next(writer.tokens(), begin, tuple(ends), stem_stop, tuple(stops))
