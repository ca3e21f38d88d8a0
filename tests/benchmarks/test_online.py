"""The benchmark of a growing video: every way gives what it says."""

from __future__ import annotations

import online
from topreward.estimators.topreward import TOPReward


def test_every_way_of_a_growing_video(tiny: TOPReward) -> None:
    results = online.measure(tiny.model, blocks=12, repeats=1, side=64)
    assert [r["blocks"] for r in results] == [5, 10, 12]
    for r in results:
        assert set(r["seconds"]) == {"push, odd", "push, even", "whole", "last 16"}
        assert r["from_whole"]["push"] < 1e-4
    assert results[0]["from_whole"]["last 16"] == 0, "all frames are in the window"
    assert results[-1]["from_whole"]["last 16"] > 1e-2, "the window must be another value"
    assert results[-1]["tokens"]["whole"] > results[0]["tokens"]["whole"]
    assert results[-1]["tokens"]["push"] < results[0]["tokens"]["push"] + 2  # a longer time stamp
