"""Controls are made from the real clip, and its frames are decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from scorers import Bright, bright_clip, episodes
from topreward.errors import ConfigError, VideoError
from topreward.evaluation import Plan, parse_estimators
from topreward.jobs.controls import backwards, frozen, other_instructions, time_index
from topreward.jobs.frames import Remembered, read_footage
from topreward.jobs.measure import frames_needed, measure
from topreward.types import Clip, Curve


def counted(clip: Clip) -> tuple[Clip, list[list[int]]]:
    """The clip, and what its decoder is asked for."""
    asked: list[list[int]] = []

    def decode(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        asked.append(indices.tolist())
        return clip.decode(indices)

    return Clip(clip.pts_seconds, clip.fps, clip.height, clip.width, decode, clip.source), asked


def test_frozen_and_reversed_keep_the_times() -> None:
    clip = bright_clip([5, 6, 7, 8, 9])
    for control in (frozen(clip), backwards(clip)):
        np.testing.assert_array_equal(control.pts_seconds, clip.pts_seconds)
        assert (control.fps, control.height, control.width) == (clip.fps, clip.height, clip.width)
    np.testing.assert_array_equal(frozen(clip).frames([0, 2, 4]), clip.frames([0, 0, 0]))
    np.testing.assert_array_equal(backwards(clip).frames([0, 1, 4]), clip.frames([4, 3, 0]))
    np.testing.assert_array_equal(backwards(backwards(clip)).frames([3, 1]), clip.frames([3, 1]))


def test_chosen_frames_are_decoded_once() -> None:
    clip, asked = counted(bright_clip(range(20)))
    remembered = Remembered(read_footage(clip, [(None, np.array([3, 9, 0, 9]))]), clip.frames)
    assert asked == [[0, 3, 9]]
    for indices in ([9, 0], [3, 3, 3], [0, 3, 9]):
        np.testing.assert_array_equal(remembered.clip.frames(indices)[:, 0, 0, 0], indices)
    assert (asked, remembered.decoded, remembered.footage.note) == ([[0, 3, 9]], 3, None)
    np.testing.assert_array_equal(remembered.clip.frames([3, 4])[:, 0, 0, 0], [3, 4])  # 4 was not announced
    assert asked[1:] == [[4]]


def test_too_many_frames_are_not_kept_and_the_result_says_so() -> None:
    clip, asked = counted(bright_clip(range(20)))
    footage = read_footage(clip, [(None, np.arange(20))], limit_bytes=19 * 4 * 6 * 3)
    remembered = Remembered(footage, clip.frames)
    assert footage.note is not None
    assert "decoded anew" in footage.note
    np.testing.assert_array_equal(remembered.clip.frames([3, 4])[:, 0, 0, 0], [3, 4])
    np.testing.assert_array_equal(remembered.clip.frames([3])[:, 0, 0, 0], [3])
    assert asked[-2:] == [[3, 4], [3]]


def test_an_episode_is_decoded_in_one_go_for_all_estimators_and_controls() -> None:
    clip, asked = counted(bright_clip(range(0, 240, 10)))
    episode = episodes(1, {0: lambda: clip})[0]
    episode = type(episode)(episode.id, episode.instruction, lambda: clip)
    plan = Plan(("topreward", "debiased", "gvl"))
    measured = measure(episode, {"topreward": Bright(), "gvl": Bright()}, plan, "task 1")
    assert measured.failed is None
    assert asked == [frames_needed(clip, Bright().frames(clip), plan, "topreward", "e").tolist()]
    assert measured.decoded_frames == len(asked[0])
    assert [(r.base, r.control) for r in measured.readings] == [
        ("topreward", "real"),
        ("topreward", "other_instruction"),
        ("topreward", "frozen"),
        ("topreward", "frozen_other_instruction"),
        ("topreward", "reversed"),
        ("gvl", "real"),
        ("gvl", "other_instruction"),
        ("gvl", "frozen"),
        ("gvl", "reversed"),
    ]


class Together(Bright):
    """Also takes several clips at once; for e1 it cannot, and not the reversed one at all."""

    calls: ClassVar[list[int]] = []

    def score_together(self, shown: Sequence[tuple[Clip, Sequence[str]]], *, episode_id: str) -> list[list[Curve]]:
        self.calls.append(len(shown))
        if episode_id == "e1":
            raise VideoError("no room for so many")
        return [self.score(clip, texts, episode_id=episode_id) for clip, texts in shown]

    def score(self, clip: Clip, instructions: Sequence[str], *, episode_id: str) -> list[Curve]:
        if episode_id == "e1" and clip.source.endswith("(reversed)"):
            raise VideoError("no room for one")
        return super().score(clip, instructions, episode_id=episode_id)


def test_a_scorer_that_takes_all_clips_at_once_is_asked_once() -> None:
    plan = Plan(("topreward", "debiased"))
    for episode in episodes(2):
        Together.calls.clear()
        plain = measure(episode, {"topreward": Bright()}, plan, "task 1")
        measured = measure(episode, {"topreward": Together()}, plan, "task 1")
        assert Together.calls == [3]
        assert [r.control for r in measured.readings] == [r.control for r in plain.readings]
        for ours, theirs in zip(measured.readings, plain.readings, strict=True):
            assert ours.seconds > 0
            if ours.error is None and ours.curve is not None and theirs.curve is not None:
                np.testing.assert_array_equal(ours.curve.values, theirs.curve.values)
        # where it fails on all of them, each has its own result or error
        errors = {r.control: r.error for r in measured.readings if r.error is not None}
        asked = "topreward was asked one after the other: together, VideoError"
        assert measured.notes == ((asked,) if episode.id == "e1" else ())
        assert errors == ({"reversed": "no room for one"} if episode.id == "e1" else {})


def test_without_controls_only_what_debiased_needs_is_measured() -> None:
    episode = episodes(1)[0]
    plain = measure(episode, {"topreward": Bright()}, Plan(("topreward", "log_odds"), controls=False), "task 1")
    assert [r.control for r in plain.readings] == ["real"]
    needed = measure(episode, {"topreward": Bright()}, Plan(("debiased",), controls=False), "task 1")
    assert [r.control for r in needed.readings] == ["real", "frozen"]
    assert needed.other_instruction is None


def test_other_instructions_are_others_and_do_not_depend_on_the_order() -> None:
    listed = episodes(9)
    others = other_instructions(listed, seed=3)
    assert all(other and other != e.instruction for e, other in zip(listed, others, strict=True))
    assert other_instructions(listed[::-1], seed=3) == others[::-1]
    assert len({tuple(other_instructions(listed, seed=s)) for s in range(5)}) > 1
    assert other_instructions(listed[:1]) == [None]


def test_the_time_index_is_a_clock() -> None:
    clip = bright_clip(range(10))
    curve = time_index(Bright().score(clip, ["task 1"], episode_id="e")[0])
    np.testing.assert_allclose(curve.values, curve.prefix_lengths * 10.0)
    assert (curve.unit, curve.log_prob_true) == ("percent", None)


def test_estimators_by_name() -> None:
    assert parse_estimators("topreward, gvl") == ("topreward", "gvl")
    with pytest.raises(ConfigError, match=r"'log_ods' \(did you mean 'log_odds'\?\); there are topreward"):
        parse_estimators("topreward,log_ods")
    with pytest.raises(ConfigError, match="no estimator is named"):
        parse_estimators(" , ")
    with pytest.raises(ConfigError, match="named twice: gvl"):
        Plan(("gvl", "gvl"))
