"""Clips, episodes and curves: validated where they are made."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import rolled_clip
from topreward.errors import CurveError, DatasetError, VideoError
from topreward.types import Clip, Curve, Episode


def make_curve(**changes: Any) -> Curve:
    fields: dict[str, Any] = {
        "instruction": "pick up the cup",
        "prefix_lengths": [1, 5, 9],
        "times": [0.0, 0.4, 0.8],
        "values": [-9.0, -4.0, -1.0],
        "unit": "nats",
        "num_frames": 10,
        "log_prob_true": [-9.0, -4.0, -1.0],
        "log_prob_false": [-1.0, np.nan, -2.0],
        "provenance": {"model": "tiny"},
        "notes": ("said",),
    }
    return Curve(**(fields | changes))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((3, 4, 4), np.uint8), r"\(3, 4, 4\), want uint8 \(T, H, W, 3\)"),
        (np.zeros((3, 4, 4, 3)), "float64"),
        (np.zeros((0, 4, 4, 3), np.uint8), r"\(0, 4, 4, 3\)"),
    ],
)
def test_arrays_of_the_wrong_shape(frames: Any, message: str) -> None:
    with pytest.raises(VideoError, match=message):
        Clip.from_array(frames, fps=10)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_impossible_rates(fps: float) -> None:
    with pytest.raises(VideoError, match="fps is"):
        Clip.from_array(np.zeros((2, 4, 4, 3), np.uint8), fps=fps)


@pytest.mark.parametrize("pts", [[0.0, 0.0], [0.1, 0.2], [0.0, np.nan], [], [[0.0]]])
def test_impossible_times(pts: Any) -> None:
    with pytest.raises(VideoError):
        Clip(np.array(pts), 10.0, 4, 4, lambda i: np.zeros((len(i), 4, 4, 3), np.uint8))


@given(st.lists(st.integers(0, 9), max_size=20))
def test_frames_come_in_the_order_asked(indices: list[int]) -> None:
    clip = rolled_clip(count=10, height=8, width=12)
    everything = clip.frames(range(10))
    np.testing.assert_array_equal(clip.frames(np.array(indices, dtype=int)), everything[np.array(indices, dtype=int)])


def test_frames_outside_are_refused() -> None:
    clip = rolled_clip(count=10, height=8, width=12)
    for bad in ([10], [-1], [0.5]):
        with pytest.raises(VideoError):
            clip.frames(bad)
    lying = Clip(np.arange(3) / 2, 2.0, 8, 8, lambda i: np.zeros((1, 8, 8, 3), np.uint8), source="x.mp4")
    with pytest.raises(VideoError, match=r"x\.mp4: decoder returned"):
        lying.frames([0, 1])


def test_clips_of_arrays_travel_to_other_processes() -> None:
    clip = rolled_clip(count=5, height=8, width=12)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clip)).frames([3, 1]), clip.frames([3, 1]))


def test_a_clip_says_what_it_is() -> None:
    clip = rolled_clip(count=60, height=8, width=12)
    assert repr(clip) == "Clip('array', 60 frames, 8x12 px, 30 fps, 2.00 s)"


def test_episodes_need_an_id_and_an_instruction() -> None:
    with pytest.raises(DatasetError, match="id"):
        Episode("", "x", rolled_clip)
    with pytest.raises(DatasetError, match="e1: the instruction is empty"):
        Episode("e1", " ", rolled_clip)
    for name, text in (("caf\udce9", "x"), ("e1", "\ud800")):
        with pytest.raises(DatasetError, match=r"holds what is no character") as caught:
            Episode(name, text, rolled_clip)
        str(caught.value).encode()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prefix_lengths": [1, 1, 2]}, "increase strictly"),
        ({"prefix_lengths": [0, 1, 2]}, r"within \[1, 10\]"),
        ({"prefix_lengths": [1, 5, 11]}, r"within \[1, 10\]"),
        ({"prefix_lengths": []}, "K >= 1"),
        ({"values": [1.0, 2.0]}, r"values has shape \(2,\), want \(3,\)"),
        ({"log_prob_true": [1.0]}, "log_prob_true"),
        ({"unit": "metres"}, "unit is 'metres', want one of nats, percent"),
    ],
)
def test_curves_must_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CurveError, match=message):
        make_curve(**changes)


def test_curves_survive_a_file(tmp_path: Path) -> None:
    curve = make_curve(values=[np.nan, 1.0, 2.0], episode_id="e7")
    curve.save(tmp_path / "deep" / "curve.json")
    loaded = Curve.load(tmp_path / "deep" / "curve.json")
    assert loaded.to_dict() == curve.to_dict()
    np.testing.assert_array_equal(loaded.values, curve.values)
    assert loaded.episode_id == "e7"
    assert loaded.notes == ("said",)
    assert json.loads((tmp_path / "deep" / "curve.json").read_text())["values"][0] is None
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["curve.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1}'])
def test_files_that_are_no_curves(tmp_path: Path, text: str) -> None:
    path = tmp_path / "curve.json"
    path.write_text(text)
    with pytest.raises(CurveError):
        Curve.load(path)
    with pytest.raises(CurveError, match="not a curve"):
        Curve.load(tmp_path / "missing.json")


def test_curves_are_frozen() -> None:
    curve: Any = make_curve()
    with pytest.raises(ValueError):
        curve.values[0] = 1
    with pytest.raises(AttributeError):
        curve.unit = "percent"


def test_to_frames_spreads_over_every_frame() -> None:
    curve = make_curve()
    linear = curve.to_frames()
    assert linear.shape == (10,)
    np.testing.assert_allclose(linear[[0, 2, 4, 8, 9]], [-9.0, -6.5, -4.0, -1.0, -1.0])
    held = curve.to_frames(interpolation="previous")
    np.testing.assert_allclose(held, [-9] * 4 + [-4] * 4 + [-1] * 2)
    np.testing.assert_allclose(curve.to_frames(curve.progress())[[0, 8]], [0, 1])
    with pytest.raises(CurveError):
        curve.to_frames([1.0])


def test_progress_of_a_constant_curve_follows_its_protocol() -> None:
    flat: dict[str, Any] = {"values": [2.0, 2.0, 2.0]}
    assert np.isnan(make_curve(**flat).progress()).all()
    paper = make_curve(**flat, provenance={"protocol": {"constant_progress": "ones"}})
    assert paper.progress().tolist() == [1, 1, 1]
    assert np.isnan(paper.progress(constant="nan")).all()
    assert repr(paper).startswith("Curve('pick up the cup', 3 prefixes of 10 frames")
