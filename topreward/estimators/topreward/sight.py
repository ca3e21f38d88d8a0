"""What the vision tower sees of clips: decoded, resized and looked at, a bounded number of frames at a time.

In go Calls, one after the other; out come the features of their trunks and of their odd prefixes' padded blocks.
A long clip is seen in parts, as it is decoded; the blocks of several short ones wait for each other and are seen
in one call of the tower. Blocks that show the same are seen once. Knows nothing of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topreward.estimators.shared.frames import FRAMES_AT_ONCE, fitting
from topreward.estimators.topreward.call import Call
from topreward.qwen import pixels
from topreward.qwen.model import Features, QwenVL
from topreward.qwen.transfer import upload
from topreward.sampling import TEMPORAL_PATCH


@dataclass(eq=False)
class Seen:
    """A clip's features, part by part. Empty until `Sight.finish`."""

    trunk_parts: list[Features] = field(default_factory=list)
    odd_parts: list[Features] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Part:
    """Blocks of one clip that wait to be seen."""

    seen: Seen
    shown: Tensor
    """(2n, 3, h, w) uint8: the n different blocks."""
    places: NDArray[np.int64]
    """(B,) which of the n each block is: first those of the trunk, then the padded ones."""
    trunk_blocks: int


class Sight:
    """Looks at clips for one call of the passes."""

    def __init__(self, model: QwenVL) -> None:
        self.model = model
        self._waiting: dict[tuple[int, int], list[_Part]] = {}
        """By grid: the tower takes blocks of one size."""
        self._frames = 0

    def look(self, call: Call) -> Seen:
        """Decode a clip and have it seen, now or with the next ones. Raises VideoError."""
        seen = Seen()
        whole = call.layout.trunk_blocks * TEMPORAL_PATCH
        odd = np.array(call.layout.odd_counts, dtype=np.int64) - 1  # the sampled frame that each padded block repeats
        step = fitting(FRAMES_AT_ONCE, call.clip.height, call.clip.width)
        for start in range(0, max(call.counts), step):
            stop = min(start + step, max(call.counts))
            frames = call.frames(call.schedule.indices[start:stop])
            in_trunk = np.arange(start, min(stop, whole)) - start
            repeated = np.repeat(odd[(odd >= start) & (odd < stop)] - start, TEMPORAL_PATCH)
            blocks = np.concatenate([in_trunk, repeated]).reshape(-1, TEMPORAL_PATCH)
            shown, places = _different(call, frames, blocks)
            if self._frames + len(shown) > FRAMES_AT_ONCE:
                self.finish()
            part = _Part(seen, shown, places, in_trunk.size // TEMPORAL_PATCH)
            self._waiting.setdefault(call.grid, []).append(part)
            self._frames += len(shown)
        return seen

    def finish(self) -> None:
        """See all that waits."""
        for grid, parts in self._waiting.items():
            patches = pixels.to_patches(torch.cat([part.shown for part in parts]))
            features = self.model.see(patches, grid)
            cells, row = grid[0] * grid[1], 0
            for part in parts:
                rows = len(part.shown) // TEMPORAL_PATCH * cells
                mine = _spread(features[slice(row, row + rows)], part.places, cells)
                cut = part.trunk_blocks * cells
                part.seen.trunk_parts.append(mine[slice(0, cut)])
                part.seen.odd_parts.append(mine[slice(cut, None)])
                row += rows
        self._waiting.clear()
        self._frames = 0


def _different(call: Call, frames: NDArray[np.uint8], blocks: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
    """Blocks that show the same are seen once (a robot that waits, a frozen video).

    `frames`: (F, H, W, 3) in order of time. `blocks`: (B, 2) the frames of each block. Returns the pixels of the n
    different blocks, (2n, 3, h, w), and (B,) which of them each block is.
    """
    new = np.array([i == 0 or not np.array_equal(frames[i], frames[i - 1]) for i in range(len(frames))])
    alike = np.cumsum(new)[blocks] - 1  # frames that follow each other without change share a number
    _, first, place = np.unique(alike, axis=0, return_index=True, return_inverse=True)
    order = np.sort(first)  # as they come: a video without repetition is seen as it is
    shown = call.pixels(frames if new.all() else frames[new])
    picked = alike[order].ravel()
    if not np.array_equal(picked, np.arange(len(shown))):
        shown = shown[upload(picked, shown.device)]
    return shown, np.searchsorted(order, first[place.ravel()])


def _spread(features: Features, places: NDArray[np.int64], cells: int) -> Features:
    """A row for each visual token of each block, those of blocks that were seen once included."""
    if places.size * cells == len(features.embeds):
        return features
    rows = upload((places[:, None] * cells + np.arange(cells)).ravel(), features.embeds.device)
    return Features(features.embeds[rows], [level[rows] for level in features.deepstack])
