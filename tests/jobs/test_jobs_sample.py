"""What a run without controls keeps for labels: a sample of frozen videos, frame numbers, uneven frame times."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from scorers import Answers, Bright, bright_clip, episodes
from topreward.evaluation import Plan
from topreward.jobs.episode import Measured, evenly_spaced
from topreward.jobs.measure import measure
from topreward.jobs.plan import FROZEN, REAL
from topreward.types import Clip, Episode

SCORERS = {"topreward": Bright(), "gvl": Answers()}


def test_only_sampled_episodes_get_a_frozen_curve_and_not_from_gvl() -> None:
    plan = Plan(("topreward", "gvl"), controls=False, also_frozen=("e1",))
    found = [measure(episode, SCORERS, plan) for episode in episodes(3)]
    kinds = [[(r.base, r.control) for r in m.readings] for m in found]
    alone = [("topreward", REAL), ("gvl", REAL)]
    assert kinds == [alone, [("topreward", REAL), ("topreward", FROZEN), ("gvl", REAL)], alone]


def test_settings_name_a_sample_only_where_there_is_one() -> None:
    assert "also_frozen" not in Plan(("topreward",)).settings()
    assert Plan(("topreward",), also_frozen=("a", "b")).settings()["also_frozen"] == ["a", "b"]


def test_where_a_dataset_counts_the_frames_is_kept() -> None:
    plan = Plan(("topreward",), controls=False)
    episode = episodes(1)[0]
    assert measure(episode, SCORERS, plan).place is None
    counted = replace(episode, extra={"episode_index": 7, "dataset_from_index": 310, "fps": 10.0})
    found = measure(counted, SCORERS, plan)
    assert found.place == {"episode_index": 7, "dataset_from_index": 310}
    assert Measured.from_dict(json.loads(json.dumps(found.to_dict()))).place == found.place


@pytest.mark.parametrize(
    ("shift", "even"), [(0.0, True), (0.004, True), (0.02, False)], ids=["even", "a clock's rounding", "uneven"]
)
def test_frame_times_are_kept_where_they_are_uneven(shift: float, even: bool) -> None:
    clip = bright_clip(range(10, 22))
    times = clip.pts_seconds + shift * (np.arange(12) % 2)
    uneven = Clip(times, clip.fps, clip.height, clip.width, clip.decode, clip.source)
    found = measure(Episode("e", "t", partial(replace, uneven)), SCORERS, Plan(("topreward",), controls=False))
    back = Measured.from_dict(json.loads(json.dumps(found.to_dict())))
    assert (back.frame_times is None) is even
    if back.frame_times is not None:
        np.testing.assert_array_equal(back.frame_times, times)


def test_two_frames_are_evenly_spaced() -> None:
    assert evenly_spaced(np.array([0.0, 5.0]))
    assert not evenly_spaced(np.array([0.0, 1.0, 5.0]))


def test_an_older_file_without_these_is_read() -> None:
    data = measure(episodes(1)[0], SCORERS, Plan(("topreward",), controls=False)).to_dict()
    del data["place"], data["frame_times"]
    old = Measured.from_dict(data)
    assert (old.place, old.frame_times) == (None, None)
