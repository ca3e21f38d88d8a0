"""Which frames, which prefixes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward import sampling
from topreward.config import load_protocol
from topreward.errors import ConfigError
from topreward.sampling import (
    frame_prefixes,
    index_grid,
    make_schedule,
    patch_prefixes,
    patch_seconds,
    schedule_frames,
    time_grid,
)


def test_the_papers_frames_often_miss_the_last() -> None:
    assert index_grid(100, 30.0).tolist() == [0, 15, 30, 45, 60, 75, 90]
    assert index_grid(33, 15.0).tolist() == [0, 8, 15, 22, 30]  # halves round to even
    assert index_grid(5, 1.0).tolist() == [0, 1, 2, 3, 4]  # never more than every frame
    assert index_grid(1, 30.0).tolist() == [0]


def test_the_papers_prefixes() -> None:
    assert frame_prefixes(240, 15).tolist() == [1, 18, 35, 52, 69, 86, 103, 120, 137, 154, 171, 188, 205, 222, 240]
    assert frame_prefixes(5, 15).tolist() == [1, 2, 3, 4, 5]
    assert frame_prefixes(2, 15).tolist() == [2]
    assert frame_prefixes(1, 0).tolist() == [1]
    assert frame_prefixes(4, 0).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("frames", "fps", "indices"),
    [
        (100, 30.0, [0, 15, 30, 45, 60, 75, 99]),
        (91, 30.0, [0, 15, 30, 45, 60, 75, 90]),
        (10, 30.0, [0, 9]),  # one grid point, but an end as well
        (1, 30.0, [0]),
        (4, 2.0, [0, 1, 2, 3]),
    ],
)
def test_the_time_grid_ends_at_the_last_frame(frames: int, fps: float, indices: list[int]) -> None:
    assert time_grid(np.arange(frames) / fps).tolist() == indices


def test_the_time_grid_follows_true_times() -> None:
    pts = np.array([0.0, 0.1, 0.2, 3.0, 3.1, 3.45, 3.6])  # a camera that stood still for three seconds
    assert time_grid(pts).tolist() == [0, 2, 3, 6]


def test_patch_prefixes() -> None:
    assert patch_prefixes(64, 15).tolist()[-3:] == [56, 60, 64]
    assert patch_prefixes(7, 0).tolist() == [2, 4, 6, 7]
    assert patch_prefixes(7, 99).tolist() == [2, 4, 6, 7]
    assert patch_prefixes(8, 1).tolist() == [8]
    assert patch_prefixes(1, 5).tolist() == [1]


@given(
    st.integers(1, 400),
    st.floats(0.5, 120),
    st.integers(0, 40),
    st.sampled_from(["paper", "dense"]),
    st.floats(0.1, 30),
)
def test_schedules_hold_together(frames: int, fps: float, prefixes: int, name: str, sampling_fps: float) -> None:
    protocol = load_protocol(name, num_prefixes=prefixes, sampling_fps=sampling_fps)
    schedule = make_schedule(np.arange(frames) / fps, fps, protocol)
    assert schedule.indices[0] == 0
    assert (np.diff(schedule.indices) > 0).all()
    assert schedule.indices[-1] < frames
    assert (np.diff(schedule.prefix_lengths) > 0).all()
    assert 1 <= schedule.prefix_lengths[0] <= schedule.prefix_lengths[-1] <= frames
    assert (np.diff(schedule.counts) >= 0).all()
    assert 1 <= schedule.counts[0] <= schedule.counts[-1] <= schedule.indices.size
    for length, count in zip(schedule.prefix_lengths, schedule.counts, strict=True):
        assert count == max(int((schedule.indices < length).sum()), 1)
    if name == "dense":
        assert schedule.prefix_lengths[-1] == frames
        assert all(c % 2 == 0 for c in schedule.counts[:-1])
        assert schedule.counts[-1] == schedule.indices.size
    if prefixes:
        assert len(schedule.prefix_lengths) <= max(prefixes, 1)


def test_timestamps_are_the_protocols() -> None:
    pts = np.array([0.0, 0.4, 1.1, 1.5])
    paper = make_schedule(pts, 2.0, load_protocol("paper"))
    dense = make_schedule(pts, 2.0, load_protocol("dense"))
    assert paper.seconds.tolist() == [0.0, 0.5, 1.0, 1.5]
    assert dense.seconds.tolist() == [0.0, 0.4, 1.1, 1.5]
    assert patch_seconds(paper.seconds[:3]) == [0.25, 1.0]


def test_indices_outside_the_clip_are_refused() -> None:
    with pytest.raises(ConfigError, match="of 10 frames"):
        schedule_frames(10, np.array([0, 10]), np.array([5]), np.zeros(2))


def test_hours_between_two_frames_cost_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    times = np.array([0.0, 0.4, 1.1, 40.0, 41.0, 99.0])
    whole = time_grid(times, 7.0)
    monkeypatch.setattr(sampling, "GRID_POINTS_AT_ONCE", 3)
    np.testing.assert_array_equal(time_grid(times, 7.0), whole)
    monkeypatch.setattr(sampling, "MOST_GRID_POINTS", 100)
    with pytest.raises(ConfigError, match="99 s sampled at 7 frames/s are 694 moments"):
        time_grid(times, 7.0)
