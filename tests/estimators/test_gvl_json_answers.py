"""Answers in JSON: read in every form that models make of it, as strictly as words are."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topreward.estimators.gvl.answers import Failure, answered, parse

READ = {
    "a list": '[{"frame": 1, "percentage": 20}, {"frame": 2, "percentage": 30}]',
    "out of order": '[{"frame": 2, "percentage": 30}, {"frame": 1, "percentage": 20}]',
    "a fence": '```json\n[\n  {"frame": 1, "percentage": 20},\n  {"frame": 2, "percentage": 30}\n]\n```',
    "words around it": 'Sure, here: [{"frame": 1, "percentage": 20}, {"frame": 2, "percentage": 30}] I hope it helps.',
    "the anchor restated": (
        "Initial robot scene: 0%\n"
        '[{"frame": "initial robot scene", "percentage": 0}, {"frame": 1, "percentage": 20},'
        ' {"frame": 2, "percentage": 30}]'
    ),
    "other spellings": (
        '[{"Frame": "Frame 1", "Task Completion Percentages": "20%"}, {"frame_number": "2", "completion (%)": 30.0}]'
    ),
    "descriptions": (
        '[{"frame": 1, "description": "as in frame 2: 99%", "task_completion_percentage": 20},'
        ' {"frame": 2, "frame_description": "50% open", "task_completion_percentage": "30 %"}]'
    ),
    "numbers of their own": '[{"id": 77, "frame": 1, "progress": 20}, {"id": 78, "frame": 2, "progress": 30}]',
    "keyed by frames": '{"Frame 1": 20, "Frame 2": "30%"}',
    "keyed by frames, described": '{"frame_1": {"description": "open", "progress": 20}, "frame_2": {"progress": 30}}',
    "keyed by numbers": '{"1": 20, "2": 30}',
    "a list of single keys": '[{"Frame 1": 20}, {"Frame 2": 30}]',
    "within an object": '{"task": "open", "frames": [{"frame": 1, "percentage": 20}, {"frame": 2, "percentage": 30}]}',
    "keyed, within an object": '{"task_completion": {"frame 1": 20, "frame 2": 30}}',
    "two lists": '{"frames": [1, 2], "percentages": [20, 30]}',
    "a line each": '{"frame": 1, "percentage": 20}\n{"frame": 2, "percentage": 30}\n',
    "the same twice": '[{"frame": 1, "percentage": 20}, {"frame": 2, "progress": 30}, {"frame": 1, "progress": 20.0}]',
    "half of it in words": 'Frame 1: 20%\n{"frame": 2, "percentage": 30}',
    "words that say the same": 'Frame 1: 20%\n[{"frame": 1, "percentage": 20}, {"frame": 2, "percentage": 30}]',
    "another document": '{"thoughts": ["it opens"]}\n[{"frame": 1, "percentage": 20}, {"frame": 2, "percentage": 30}]',
}


@pytest.mark.parametrize("name", READ)
def test_reads(name: str) -> None:
    got = parse(READ[name], 2)
    assert not isinstance(got, Failure), got
    assert got.tolist() == [20, 30]
    assert answered(READ[name] + "\n", 2)


def test_shares_of_one_are_not_rescaled() -> None:
    assert parse('{"Frame 1": 0.5, "Frame 2": 1}', 2).tolist() == [0.5, 1]  # type: ignore[union-attr]


GOOD = '{"frame": 2, "percentage": 30}'
FAILED = {
    "missing": (f"[{GOOD}]", "missing", "missing frame 1"),
    "one too many": (
        f'[{{"frame": 1, "percentage": 1}}, {GOOD}, {{"frame": 3, "percentage": 3}}]',
        "not_asked",
        "frame 3",
    ),
    "counted from 0": ('{"0": 10, "1": 20}', "not_asked", "frame 0"),
    "too large": (f'[{{"frame": 1, "percentage": 120}}, {GOOD}]', "out_of_range", "frame 1: 120 %"),
    "negative": (f'[{{"frame": 1, "percentage": "-5%"}}, {GOOD}]', "out_of_range", "frame 1: -5 %"),
    "huge": (f'[{{"frame": 1, "percentage": 1{"0" * 5000}}}, {GOOD}]', "out_of_range", "frame 1"),
    "twice": (
        f'[{{"frame": 1, "percentage": 1}}, {{"frame": 1, "percentage": 2}}, {GOOD}]',
        "contradiction",
        "frame 1",
    ),
    "a key twice": (f'[{{"frame": 1, "percentage": 1, "percentage": 2}}, {GOOD}]', "contradiction", "frame 1"),
    "a frame's key twice": ('{"Frame 1": 1, "Frame 1": 2, "Frame 2": 30}', "contradiction", "frame 1"),
    "words say another": (f'Frame 1: 2%\n[{{"frame": 1, "percentage": 1}}, {GOOD}]', "contradiction", "frame 1"),
    "true": (f'[{{"frame": 1, "percentage": true}}, {GOOD}]', "unreadable", "frame 1"),
    "null": (f'[{{"frame": 1, "percentage": null}}, {GOOD}]', "unreadable", "frame 1"),
    "NaN": (f'[{{"frame": 1, "percentage": NaN}}, {GOOD}]', "unreadable", "frame 1"),
    "a list of values": (f'[{{"frame": 1, "percentage": [10, 20]}}, {GOOD}]', "unreadable", "frame 1"),
    "one of two unreadable": (
        f'[{{"frame": 1, "percentage": "3/5", "progress": 60}}, {GOOD}]',
        "unreadable",
        "frame 1",
    ),
    "nothing given": (f'[{{"frame": 1, "description": "50%"}}, {GOOD}]', "unreadable", "frame 1"),
    "half of a frame": ('[{"frame": 1.0, "percentage": 10}, {"frame": 2, "percentage": 30}]', "missing", "frame 1"),
    "a frame that is true": (f'[{{"frame": true, "percentage": 10}}, {GOOD}]', "missing", "frame 1"),
    "two frames at once": (f'[{{"frame": 1, "image": 3, "percentage": 10}}, {GOOD}]', "unreadable", "frame 1"),
    "lists of two lengths": ('{"frames": [1, 2], "percentages": [20]}', "unreadable", "frames 1, 2"),
    "no frames": ("[10, 20]", "no_answers", "no frame is answered"),
    "a comma too many": ('{"Frame 1": 20,\n"Frame 2": 30,\n}', "no_answers", "no frame"),
    "not ended after a comparison": (
        '[{"frame": 1, "description": "like frame 2: 3%",\n"x": "frame 1: 4%\n',
        "no_answers",
        "",
    ),
    "not ended": ('[{"frame": 1, "percentage": 20}, {"frame": 2, "percent', "no_answers", "no frame"),
}


@pytest.mark.parametrize("name", FAILED)
def test_fails(name: str) -> None:
    text, kind, reason = FAILED[name]
    for shown in (text, f"```json\n{text}\n```"):
        got = parse(shown, 2)
        assert isinstance(got, Failure), got
        assert got.kind == kind
        assert reason in got.reason
        assert "\n" not in got.reason


@pytest.mark.parametrize(
    "half", ["40-50%", "3/5", "40,5%", "50% open", "10, 20", "> 50%", "50 ± 10%", "", "twenty", "０"]
)
def test_no_half_of_a_string_is_read(half: str) -> None:
    for text in (json.dumps({"Frame 1": half, "Frame 2": 30}), json.dumps([{"frame": 1, "progress": half}, {"2": 30}])):
        got = parse(text, 2)
        assert isinstance(got, Failure)
        assert got.kind in ("unreadable", "missing")


SHAPES = st.sampled_from(
    [
        lambda pairs: [{"frame": f, "percentage": p} for f, p in pairs],
        lambda pairs: [
            {"Frame": f"Frame {f}", "description": "closer than frame 1: 3%", "progress": f"{p}%"} for f, p in pairs
        ],
        lambda pairs: {f"frame_{f}": p for f, p in pairs},
        lambda pairs: {"answers": {str(f): {"completion": p} for f, p in pairs}},
        lambda pairs: {"frames": [f for f, _ in pairs], "percentages": [p for _, p in pairs]},
    ]
)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=12), SHAPES, st.sampled_from([None, 2]), st.randoms())
@settings(deadline=None)
def test_what_is_written_is_read(percentages: list[int], shape: Any, indent: int | None, random: Any) -> None:
    pairs = list(enumerate(percentages, start=1))
    random.shuffle(pairs)
    text = json.dumps(shape(pairs), indent=indent)
    np.testing.assert_array_equal(parse(text, len(pairs)), percentages)
    for stop in range(0, len(text), 7):  # what is not whole is never called answered and then read otherwise
        if answered(text[:stop], len(pairs)):
            np.testing.assert_array_equal(parse(text[:stop], len(pairs)), percentages)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000,
        "[{" * 20_000,
        '{"a":' * 20_000,
        '{"frame": 1}' * 5_000,
        '[{"frame": ' + "9" * 50_000 + "}]",
        '{"x": "' * 9_000,
    ],
    ids=lambda text: text[:8],
)
def test_long_nonsense_costs_little(text: str) -> None:
    start = time.perf_counter()
    assert isinstance(parse(text, 3), Failure)
    answered(text, 3)
    assert time.perf_counter() - start < 2
