"""Token ids and M-RoPE positions of one video's trunk and branches.

In go texts, times and grid sizes; out come integer arrays. Pure numpy, no transformers: a library upgrade
cannot change the prompt. The one thing taken from outside is `encode`, the checkpoint's tokenizer.

A prompt is laid out as Qwen3-VL was trained (transformers <= 5.9; later stock processors put a second
`<|vision_start|> … <|vision_end|>` around the whole video):

    opening  [<0.2 seconds> <|vision_start|> <|video_pad|> x h·w <|vision_end|>] x blocks  question

Everything up to a block's end is the same in every prefix that contains the block. So the whole blocks
are laid out once, as the *trunk*; what differs is one *branch* per prefix, which starts where its last
whole block ends:

    branch = stem (padded block of an odd prefix, and what all questions begin with) + one tail a question
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topreward.sampling import TEMPORAL_PATCH, patch_seconds

# Raised whenever a prompt of the same wording would be laid out with other tokens or positions.
LAYOUT_VERSION = 1

VISION_START, VISION_END, VIDEO_PAD = "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class VisionTokens:
    """Ids of the tokens around and inside a block."""

    start: int
    end: int
    pad: int


@dataclass(frozen=True, eq=False)
class Tokens:
    """A run of tokens with their places; or one run a row, padded on the right, of several videos."""

    ids: NDArray[np.int64]
    """(L,), or (E, L)"""
    positions: NDArray[np.int64]
    """(3, L) or (3, E, L) M-RoPE position in time, height and width."""
    visual: NDArray[np.bool_]
    """(L,) or (E, L) true where a visual token stands."""

    def __getitem__(self, span: slice) -> Tokens:
        """These tokens of every row."""
        return Tokens(self.ids[..., span], self.positions[..., span], self.visual[..., span])

    def __len__(self) -> int:
        return int(self.ids.size)


@dataclass(frozen=True)
class Branch:
    """One prefix: where it leaves the trunk, and its span of the flat branch tokens."""

    trunk_length: int
    """Trunk tokens it sees."""
    start: int
    stem_stop: int
    """The stem is [start, stem_stop); every tail sees it."""
    tail_stops: tuple[int, ...]
    """Tail i is [previous stop, tail_stops[i]); it sees trunk, stem and itself. One per instruction."""
    row: int = 0
    """Which of several packed videos it belongs to."""

    @property
    def stop(self) -> int:
        return self.tail_stops[-1]

    def __len__(self) -> int:
        return self.stop - self.start

    def mask(self) -> NDArray[np.bool_]:
        """(n, n) true where query i of this branch sees its key j."""
        n = len(self)
        seen = np.tril(np.ones((n, n), dtype=bool))
        stem = self.stem_stop - self.start
        first = stem
        for stop in self.tail_stops:
            last = stop - self.start
            seen[first:last, stem:first] = False  # a tail does not see the tails before it
            first = last
        return seen


@dataclass(frozen=True, eq=False)
class Passes:
    """What the two passes run: the tokens of one video, or of several packed ones (`topreward.qwen.packing`)."""

    trunk: Tokens
    branch: Tokens
    """All branches, one after the other."""
    branches: tuple[Branch, ...]
    """(D,) one per distinct prefix, increasing."""
    scored: NDArray[np.int64]
    """(D, I) index into the flat `branch` of the last token of each prefix's question: where the answer is read."""


@dataclass(frozen=True, eq=False)
class Layout(Passes):
    """A video, all its distinct prefixes and all questions, as tokens."""

    trunk_blocks: int
    """Whole temporal patches."""
    odd_counts: tuple[int, ...]
    """Sampled-frame counts of the odd prefixes, whose padded blocks stand in their branches, in order."""
    grid: tuple[int, int]
    """Visual tokens per block, (height, width)."""


def lay_out(
    encode: Encode,
    vision: VisionTokens,
    *,
    opening: str,
    seconds: NDArray[np.float64],
    grid: tuple[int, int],
    counts: Sequence[int],
    questions: Sequence[Sequence[str]],
) -> Layout:
    """Lay out a video for all its prefixes.

    `seconds`: (N,) time of each sampled frame. `grid`: visual tokens per block (height, width).
    `counts`: (D,) sampled frames in each distinct prefix, increasing, in [1, N]. `questions`: D rows of I
    texts, what follows the video in each prefix for each instruction.
    """
    block_text = [stamp(t) for t in patch_seconds(seconds)]
    trunk_blocks = max(counts) // TEMPORAL_PATCH
    trunk = Writer(vision, grid)
    ends = [(0, 0)]  # (tokens, next position) after b whole blocks; nothing is shared before the first
    for b in range(trunk_blocks):
        # The opening and the first timestamp are one run of text: a tokenizer may join them.
        trunk.text(encode(opening + block_text[0] if b == 0 else block_text[b]))
        trunk.block()
        ends.append((len(trunk.ids), trunk.position))

    flat = Writer(vision, grid)
    branches, scored, odd_counts = [], [], []
    for count, texts in zip(counts, questions, strict=True):
        whole, odd = divmod(count, TEMPORAL_PATCH)
        trunk_length, position = ends[whole]
        start = len(flat.ids)
        flat.position = position
        if odd:
            last = float(seconds[count - 1])
            time = stamp((last + last) / 2)
            flat.text(encode(opening + time if whole == 0 else time))
            flat.block()
            odd_counts.append(count)
        tails = [encode(text) for text in texts]
        shared = common_prefix(tails)
        flat.text(tails[0][:shared])
        stem_stop, stem_position = len(flat.ids), flat.position
        stops = []
        for tail in tails:
            flat.position = stem_position
            flat.text(tail[shared:])
            stops.append(len(flat.ids))
        branches.append(Branch(trunk_length, start, stem_stop, tuple(stops)))
        scored.append([stop - 1 for stop in stops])
    return Layout(
        trunk.tokens(),
        flat.tokens(),
        tuple(branches),
        np.array(scored, dtype=np.int64),
        trunk_blocks,
        tuple(odd_counts),
        grid,
    )


def prompt_text(opening: str, seconds: NDArray[np.float64], grid: tuple[int, int], question: str) -> str:
    """The whole prompt of one prefix as one string: what a plain forward is given.

    `seconds`: (n,) times of this prefix's sampled frames.
    """
    pads = VIDEO_PAD * (grid[0] * grid[1])
    blocks = [f"{stamp(t)}{VISION_START}{pads}{VISION_END}" for t in patch_seconds(seconds)]
    return opening + "".join(blocks) + question


def stamp(seconds: float) -> str:
    """A block's time, as it stands before it."""
    return f"<{seconds:.1f} seconds>"


def common_prefix(tails: list[list[int]]) -> int:
    """How many tokens all questions begin with, each's last one left out, where its answer is read. One shares none."""
    if len(tails) == 1:
        return 0
    shortest = min(map(len, tails)) - 1
    return next((i for i in range(shortest) if len({tail[i] for tail in tails}) > 1), shortest)


class Writer:
    """Appends text and blocks, and keeps count of M-RoPE positions. `image_layout` writes with it too."""

    def __init__(self, vision: VisionTokens, grid: tuple[int, int]) -> None:
        self.vision = vision
        self.grid = grid
        self.position = 0
        self.ids: list[int] = []
        self._positions: list[NDArray[np.int64]] = []

    def text(self, ids: list[int]) -> None:
        # Text moves all three axes on together, one step a token.
        self.ids.extend(ids)
        self._positions.append(np.tile(self.position + np.arange(len(ids)), (3, 1)))
        self.position += len(ids)

    def block(self) -> None:
        height, width = self.grid
        self.text([self.vision.start])
        # A block stands still in time; rows and columns count from its start, and what follows goes on
        # after the longer side.
        rows, columns = np.divmod(np.arange(height * width), width)
        self.ids.extend([self.vision.pad] * (height * width))
        self._positions.append(self.position + np.stack([np.zeros_like(rows), rows, columns]))
        self.position += max(height, width)
        self.text([self.vision.end])

    def tokens(self) -> Tokens:
        ids = np.array(self.ids, dtype=np.int64)
        positions = np.concatenate(self._positions, axis=1) if self._positions else np.zeros((3, 0), dtype=np.int64)
        return Tokens(ids, positions.astype(np.int64), ids == self.vision.pad)
