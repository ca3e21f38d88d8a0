"""Clips, episodes and curves: validated where they are made."""

from __future__ import annotations

import json
import os
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
    with pytest.raises(VideoError, match=r"array: fps: .* frames/s, allowed are"):
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
    with pytest.raises(CurveError, match=r"missing\.json: cannot be read"):
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


@pytest.mark.parametrize(
    ("pts", "message"),
    [
        ([0.0, 1e9], "frames on average"),
        ([0.0, 1e300], "frames on average"),
        ([0.0, 1e-7, 2e-7], "frames on average"),
        (np.arange(1_000_001), "max_frames|FRAMES"),
    ],
)
def test_times_that_cost_memory_are_not_believed(pts: Any, message: str) -> None:
    with pytest.raises(VideoError, match=message):
        Clip(np.array(pts, dtype=float), 1.0, 4, 4, lambda i: np.zeros((len(i), 4, 4, 3), np.uint8))


def test_episodes_take_texts_of_a_bounded_length() -> None:
    for name in ("id", "instruction"):
        known: dict[str, Any] = {"id": "a", "instruction": "pick", "load": rolled_clip}
        with pytest.raises(DatasetError, match="MAX_INSTRUCTION"):
            Episode(**known | {name: "x" * 60_000})
        with pytest.raises(DatasetError, match=f"{name} is a int, want a text"):
            Episode(**known | {name: 5})


NUMBERS = [-np.inf, np.inf, np.nan, -1.5, 0.0]


def test_infinities_and_nan_stay_apart_in_a_file(tmp_path: Path) -> None:
    curve = make_curve(
        prefix_lengths=range(1, 6), times=range(5), values=NUMBERS, log_prob_true=NUMBERS, log_prob_false=NUMBERS[::-1]
    )
    curve.save(tmp_path / "c.json")
    text = (tmp_path / "c.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["values"] == ["-inf", "inf", None, -1.5, 0.0]
    again = Curve.load(tmp_path / "c.json")
    for name in ("values", "log_prob_true", "log_prob_false"):
        np.testing.assert_array_equal(getattr(again, name), getattr(curve, name))
    # as earlier versions spelled them
    for old in (None, float("nan")):
        data = curve.to_dict() | {"values": [old, old, None, -1.5, 0.0]}
        np.testing.assert_array_equal(Curve.from_dict(data).values, [np.nan] * 3 + [-1.5, 0.0])


DAMAGED: list[tuple[dict[str, Any], str]] = [
    ({"times": [0.0, None, 0.8]}, r"not a curve .*times"),
    ({"times": [0.0, 0.9, 0.8]}, "times must be finite, 0 or more and increase"),
    ({"times": [0.0, 0.4, 0.4]}, "increase"),
    ({"times": [-1.0, 0.4, 0.8]}, "0 or more"),
    ({"times": [0.0, 0.4, "inf"]}, "times must be finite"),
    ({"times": [0.0, 0.4, 10**400]}, r"not a curve .*times"),
    ({"times": 3}, "times is 3, want a list"),
    ({"times": None}, "times is None"),
    ({"values": None}, "values is None"),
    ({"values": [True, 1, 2]}, r"not a curve .*values"),
    ({"values": ["1", 1, 2]}, r"not a curve .*values"),
    ({"values": [[1], 1, 2]}, r"not a curve .*values"),
    ({"values": [1, 2]}, r"values has shape \(2,\)"),
    ({"log_prob_true": [1, "infinity", 2]}, r"not a curve .*log_prob_true"),
    ({"log_prob_true": {"a": 1}}, "log_prob_true is"),
    ({"prefix_lengths": [1, 5.5, 9]}, r"not a curve .*prefix_lengths"),
    ({"prefix_lengths": [1, None, 9]}, r"not a curve .*prefix_lengths"),
    ({"prefix_lengths": [True, 5, 9]}, r"not a curve .*prefix_lengths"),
    ({"prefix_lengths": [1, 5, 10**30]}, r"not a curve .*prefix_lengths"),
    ({"prefix_lengths": []}, "prefix_lengths is"),
    ({"prefix_lengths": "abc"}, "prefix_lengths is 'abc'"),
    ({"num_frames": "10"}, "num_frames is '10'"),
    ({"num_frames": 10.5}, "num_frames is 10.5"),
    ({"num_frames": True}, "num_frames is True"),
    ({"instruction": 7}, "instruction is 7"),
    ({"instruction": None}, "instruction is None"),
    ({"instruction": "\ud800"}, "instruction is "),
    ({"episode_id": 7}, "episode_id is 7"),
    ({"unit": ["nats"]}, r"unit is \['nats'\]"),
    ({"notes": "abc"}, "notes is 'abc'"),
    ({"notes": [1]}, r"notes is \[1\]"),
    ({"provenance": [1]}, "provenance is"),
    ({"format": True}, "format is True"),
    ({"num_frames": 10**9}, "num_frames: 1000000000 frames, allowed are at most 1000000"),
    ({"num_frames": 2**62}, "num_frames: 4.61168601843e.18 frames, allowed are at most 1000000"),
    ({"format": {}}, "format is"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGED, ids=lambda value: str(value)[:40])
def test_a_file_that_says_what_no_curve_has(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(make_curve().to_dict() | change))
    with pytest.raises(CurveError, match=message) as caught:
        Curve.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("field", ["prefix_lengths", "values", "times", "provenance", "notes"])
def test_curves_in_memory_are_held_to_the_same(field: str) -> None:
    for wrong in ([1.5, 2.5, 3.5], [[1], [2], [3]], ["a", "b", "c"], [3, 2, 1], 7, object()):
        if field in ("values", "times") and wrong == [1.5, 2.5, 3.5]:
            continue
        if (field == "values" and wrong == [3, 2, 1]) or (field == "notes" and wrong == ["a", "b", "c"]):
            continue
        with pytest.raises(CurveError):
            make_curve(**{field: wrong})


def test_files_that_no_reader_should_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    latin = tmp_path / "latin.json"
    latin.write_bytes(b"{\xff}")
    for path, message in (
        (pipe, "not a regular file"),
        (deep, "not a curve"),
        (latin, "not a text in UTF-8"),
        (tmp_path, "not a regular file"),
        (tmp_path / ("x" * 300), "cannot be read"),
        (tmp_path / "a\0b", "NUL"),
    ):
        with pytest.raises(CurveError, match=message):
            Curve.load(path)
    make_curve().save(tmp_path / "c.json")
    monkeypatch.setenv("TOPREWARD_MAX_TEXT_BYTES", "100")
    with pytest.raises(CurveError, match="MAX_TEXT_BYTES"):
        Curve.load(tmp_path / "c.json")
