"""Several short videos in the same two passes: one row of tokens for each.

In go layouts, out come Passes; pure numpy, like `layout`. Trunk and branch tokens are padded on the right to the
longest row. A causal trunk never looks to its right, so whatever attention runs it needs no mask for the padding;
a branch sees its own row's part of the trunk and itself. Padding costs what its tokens cost: it pays where one
video alone is too short to keep the device busy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from topreward.qwen.layout import Layout, Passes, Tokens


def pack(layouts: Sequence[Layout]) -> Passes:
    """A row for each video, of trunk and of branch tokens; a single video is passed through.

    All must ask the same number of questions. `branches` and `scored` hold all videos' prefixes, one video after
    the other; visual tokens stand in that order too, so their features are to be joined likewise.
    """
    if len(layouts) == 1:
        return layouts[0]
    width = max(len(layout.branch) for layout in layouts)
    return Passes(
        trunk=rows([layout.trunk for layout in layouts]),
        branch=rows([layout.branch for layout in layouts]),
        branches=tuple(replace(b, row=row) for row, layout in enumerate(layouts) for b in layout.branches),
        scored=np.concatenate([layout.scored + row * width for row, layout in enumerate(layouts)]),
    )


def rows(runs: Sequence[Tokens]) -> Tokens:
    """A row for each run of tokens, padded on the right."""
    shape = len(runs), max(map(len, runs))
    ids, positions, visual = np.zeros(shape, np.int64), np.zeros((3, *shape), np.int64), np.zeros(shape, np.bool_)
    for row, run in enumerate(runs):
        ids[row, : len(run)] = run.ids
        positions[:, row, : len(run)] = run.positions
        visual[row, : len(run)] = run.visual
    return Tokens(ids, positions, visual)
