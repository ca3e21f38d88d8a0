"""A frozen video is seen once, and scored as if every block had been seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clips import rolled_clip, rolled_frames
from topreward.estimators.topreward import TOPReward
from topreward.jobs.controls import frozen
from topreward.qwen.model import Features, QwenVL
from topreward.types import Clip


@pytest.fixture
def blocks_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    see = QwenVL.see

    def counting(self: QwenVL, patches: Any, grid: tuple[int, int]) -> Features:
        seen.append(len(patches) // (4 * grid[0] * grid[1]))
        return see(self, patches, grid)

    monkeypatch.setattr(QwenVL, "see", counting)
    return seen


@pytest.mark.parametrize("protocol", ["paper", "dense"])
def test_a_frozen_video_is_seen_once(tiny: TOPReward, blocks_seen: list[int], protocol: str) -> None:
    clip = frozen(rolled_clip(count=100))
    fast = tiny.score(clip, ["pick it up", "drop it"], protocol=protocol)
    assert blocks_seen == [1]
    slow = tiny.score(clip, ["pick it up", "drop it"], protocol=protocol, one_pass=False)
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_allclose(a.values, b.values, atol=1e-4)


def test_a_video_that_waits_is_seen_where_it_moves(tiny: TOPReward, blocks_seen: list[int]) -> None:
    moving = rolled_frames(0, 10, 96, 96, 3)
    order = [0, 1, 2, 2, 2, 2, 3, 2, 2, 4, 5, 5, 5, 5, 6, 7, 0, 1]
    clip = Clip.from_array(moving[order], fps=2.0)
    fast = tiny.score(clip, "pick it up", protocol="dense")
    # blocks 01 22 22 32 24 55 55 67 01: the repeated 22 and 55 are seen once
    assert blocks_seen == [7]
    slow = tiny.score(clip, "pick it up", protocol="dense", one_pass=False)
    np.testing.assert_allclose(fast.values, slow.values, atol=1e-4)


def test_a_moving_video_is_seen_block_by_block(tiny: TOPReward, blocks_seen: list[int]) -> None:
    tiny.score(rolled_clip(count=100), "pick it up", protocol="dense")
    assert blocks_seen == [4]
