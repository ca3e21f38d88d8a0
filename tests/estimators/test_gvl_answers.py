"""The strict parser: what counts as an answer, what fails and as what, and that nothing else comes out."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topreward.estimators.gvl.answers import Failure, answered, parse

READ = {
    "as asked": ("Frame 1: Task Completion Percentages:35%\nFrame 2: Task Completion Percentages:40%", [35, 40]),
    "described": (
        "Frame 1: Frame Description: The arm is 5 cm up, Task Completion Percentages:35%\n"
        "Frame 2: Frame Description: The drawer is 50% open, Task Completion Percentages: 45.5%",
        [35, 45.5],
    ),
    "out of order": ("Frame 2: 30%\nFrame 1: 20%", [20, 30]),
    "fractions stay fractions": ("Frame 1: 0.5%\nFrame 2: 0.75%", [0.5, 0.75]),
    "the ends of the range": ("Frame 1: 0%\nFrame 2: 100.0%", [0, 100]),
    "no percent sign": ("Frame 1: Task Completion Percentages: 8\nFrame 2: 10", [8, 10]),
    "the same twice": ("Frame 1: 20%\nFrame 2: 30%\nFrame 1: 20.0%", [20, 30]),
    "in one line": ("Sure: Frame 1: 20%, Frame 2: 30%", [20, 30]),
    "Markdown": ("1. **Frame 1:** *20%*\n2. __Frame 2__ - `30 %`", [20, 30]),
    "a table": ("| Frame 1 | 20% |\n| Frame 2 | 30% |", [20, 30]),
    "braces kept": ("Frame 1: {20}%\nFrame 2: {30%}", [20, 30]),
    "over several lines": (
        "Frame 1\nFrame Description: Initial robot scene\nTask Completion Percentage: 5%\n\n"
        "Frame 2\nFrame Description: closer\nTask Completion Percentage: about 7%",
        [5, 7],
    ),
    "the anchor restated": (
        "Initial robot scene: Task Completion Percentage: 0%\nFrame 1: 20%\nFrame 2: 30%",
        [20, 30],
    ),
    "the anchor as a sentence": (
        "In the initial robot scene, the task completion percentage is 0.\nFrame 1: 20%\nFrame 2: 30%",
        [20, 30],
    ),
    "the anchor at the end": (
        "Frame 1: 20%\nFrame 2: 30%. In the initial robot scene, the task completion percentage is 0%.",
        [20, 30],
    ),
    "the anchor in a description": ("Frame 1: as in the initial robot scene. 3%\nFrame 2: 30%", [3, 30]),
    "another frame in a description": (
        "Frame 1: 20%\nFrame 2: Frame Description: closer than in frame 1: open, Task Completion Percentages: 30%",
        [20, 30],
    ),
    "with a remark": ("Frame 1: 20% (closer than frame 2)\nFrame 2: 30%. The gripper is open.", [20, 30]),
    "a reason": ("Frame 1: the completion percentage is 20% as it opens\nFrame 2: 30% - open", [20, 30]),
    "a field after it": (
        "Frame 1: Task Completion Percentages: 20%, Frame Description: 50% open, 3 cm up\n| Frame 2 | 30 | open |",
        [20, 30],
    ),
    "said in full": ("Frame 1: 20% complete\nFrame 2: 30 percent of the task is done.", [20, 30]),
    "an arrow": ("Frame 1 → 20%\nFrame 2 -> 30%", [20, 30]),
    "the last word": ("Frame 1: 2 cm away. 20%\nFrame 2: 3 of 5 steps, 30%", [20, 30]),
    "joined by and": ("Frame 1: 20% and Frame 2: 30%", [20, 30]),
    "line ends of other systems": ("Frame 1: 20%\r\nFrame 2: Task Completion Percentages: 30\r\n", [20, 30]),
}

HALVES = [
    "50%, then 60%",
    "50% open drawer. 30%",
    "50% open",
    "10% → 20%",
    "10 → 20%",
    "10 -> 20%",
    "10%, 20%",
    "10, 20%",
    "10; 20",
    "10% 20%",
    "10% (20%)",
    "50 ± 10%",
    "50% +/- 10%",
    "50…60%",
    "50% … 60%",
    "50... 60%",
    "40~50%",
    "**50%** - **60%**",
    "3 of 5 steps",
    "3 out of 5",
    "3 out of 100%",
    "1 000%",
    "1 000",
    "> 50%",
    "50%+",
    "50%, maybe sixty percent",
    "first 50, then 60%",
    "| 20% | 30% |",
    "| 20 | 30% |",
]


@pytest.mark.parametrize("label", ["", "Task Completion Percentages: ", "Frame Description: open, Task Completion: "])
@pytest.mark.parametrize("half", HALVES)
def test_no_half_of_an_answer_is_read(half: str, label: str) -> None:
    for text in (f"Frame 1: {label}{half}\nFrame 2: 2%", f"Frame 2: 2%\nFrame 1: {label}{half}"):
        got = parse(text, 2)
        assert isinstance(got, Failure), got
        assert got == Failure("unreadable", "no readable percentage for frame 1")
        assert not answered(text, 2)


def test_half_an_answer_is_not_made_good_by_a_second_label() -> None:
    got = parse("Frame 1: Task Completion: 3 of 5 steps, Task Completion Percentages: 60%", 1)
    assert isinstance(got, Failure)
    assert got.kind == "unreadable"


@pytest.mark.parametrize("name", READ)
def test_reads(name: str) -> None:
    text, expected = READ[name]
    got = parse(text, 2)
    assert not isinstance(got, Failure), got
    assert got.tolist() == expected


FAILED = {
    "empty": ("", "no_answers", "empty"),
    "not numbered": ("10%, 20%", "no_answers", "no frame is answered"),
    "only the anchor": ("Initial robot scene: 0%", "no_answers", "no frame"),
    "refusal": ("I'm sorry, but I cannot tell from these images.", "refusal", "declines"),
    "curly refusal": ("As a language model I can’t see.", "refusal", "declines"),
    "missing": ("Frame 2: 10%", "missing", "missing frame 1"),
    "one too many": ("Frame 1: 1%\nFrame 2: 2%\nFrame 3: 3%", "not_asked", "frame 3 not asked for, only 1 to 2"),
    "frame 0": ("Frame 0: 0%\nFrame 1: 1%\nFrame 2: 2%", "not_asked", "frame 0"),
    "contradiction": ("Frame 1: 1%\nFrame 2: 2%\nFrame 2: 3%", "contradiction", "frame 2 answered twice"),
    "too large": ("Frame 1: 1%\nFrame 2: 120%", "out_of_range", "frame 2: 120 % out of range"),
    "negative": ("Frame 1: -5%\nFrame 2: 2%", "out_of_range", "frame 1: -5 %"),
    "range": ("Frame 1: 40-50%\nFrame 2: 2%", "unreadable", "frame 1"),
    "range in words": ("Frame 1: between 40 and 50%\nFrame 2: 2%", "unreadable", "frame 1"),
    "fraction": ("Frame 1: 40/100\nFrame 2: 2%", "unreadable", "frame 1"),
    "decimal comma": ("Frame 1: 40,5%\nFrame 2: 2%", "unreadable", "frame 1"),
    "words": ("Frame 1: Task Completion Percentages: none\nFrame 2: 2%", "unreadable", "frame 1"),
    "another percentage": ("Frame 1: the drawer is 50% open.\nFrame 2: 2%", "unreadable", "frame 1"),
    "two percentages": ("Frame 1: first 50%, then 60%\nFrame 2: 2%", "unreadable", "frame 1"),
    "a number that is no percentage": ("Frame 1: 2 cm away\nFrame 2: 2%", "unreadable", "frame 1"),
}


@pytest.mark.parametrize("name", FAILED)
def test_fails(name: str) -> None:
    text, kind, reason = FAILED[name]
    got = parse(text, 2)
    assert isinstance(got, Failure)
    assert got.kind == kind
    assert reason in got.reason
    assert "\n" not in got.reason


def test_missing_frames_are_all_named() -> None:
    got = parse("".join(f"Frame {i}: {i}%\n" for i in range(1, 10) if i not in (3, 7)), 9)
    assert got == Failure("missing", "missing frames 3, 7")


def test_numbers_go_on_after_the_examples() -> None:
    text = "Frame 31: 20%\nFrame 32: 30%"
    assert parse(text, 2, first=31).tolist() == [20, 30]  # type: ignore[union-attr]
    assert parse(text, 2).kind == "not_asked"  # type: ignore[union-attr]


PERCENTAGES = st.one_of(
    st.integers(0, 100).map(float), st.floats(0, 100, allow_nan=False).map(lambda x: round(x, 2)), st.just(100.0)
)
# Words that a description is made of: other frames, the anchor, other numbers.
WORDS = st.sampled_from(
    ["the gripper", "closed", "frame 2", "frame 2: open", "50% open", "3 cm", "initial robot scene", "-", "é", "…", "9"]
)
STYLES = st.sampled_from(
    [
        "Frame {i}: Task Completion Percentages:{p}%",
        "**Frame {i}:** Task Completion Percentage: **{p}%**",
        "- Frame {i}: Frame Description: {d}, Task Completion Percentages: {p}%",
        "Frame {i}:\n  Frame Description: {d}\n  Task Completion Percentages: {p}",
        "| frame {i} | {p} % |",
        "Frame {i}: {p}",
    ]
)
NOISE = st.sampled_from(
    [
        "",
        "Sure, here they are.",
        "Initial robot scene: Task Completion Percentage: 0%",
        "I hope this helps!",
        "---",
        "\n",
    ]
)


@st.composite
def rendered(draw: st.DrawFn) -> tuple[str, list[float], int]:
    """An answer in any order and style, its percentages, and the number of its first frame."""
    percentages = draw(st.lists(PERCENTAGES, min_size=1, max_size=12))
    first = draw(st.sampled_from([1, 1, 16, 151]))
    lines = []
    for i in draw(st.permutations(range(len(percentages)))):
        line = draw(STYLES).replace("{d}", " ".join(draw(st.lists(WORDS, max_size=4))))
        lines.append(line.replace("{i}", str(first + i)).replace("{p}", f"{percentages[i]:g}"))
    before = draw(NOISE)
    return "\n".join([before, *lines, draw(st.just("") if "{" in before else NOISE)]), percentages, first


@given(rendered())
@settings(max_examples=300, deadline=None)
def test_what_is_rendered_is_read(answer: tuple[str, list[float], int]) -> None:
    text, percentages, first = answer
    got = parse(text, len(percentages), first=first)
    assert not isinstance(got, Failure), got
    np.testing.assert_allclose(got, [float(f"{p:g}") for p in percentages])


@given(rendered(), st.data())
@settings(max_examples=200, deadline=None)
def test_a_text_that_is_called_answered_reads_no_differently_when_whole(
    answer: tuple[str, list[float], int], data: st.DataObject
) -> None:
    text, percentages, first = answer
    cut = text[: data.draw(st.integers(0, len(text)))]
    if answered(cut, len(percentages), first=first):
        assert parse(cut, len(percentages), first=first).tolist() == parse(text, len(percentages), first=first).tolist()  # type: ignore[union-attr]
    assert answered(text + "\nFrame", len(percentages), first=first)


def test_a_number_that_may_still_grow_is_no_answer_yet() -> None:
    whole = "Frame 1: Task Completion Percentages: 10%\nFrame 2: Task Completion Percentages: 85%\n"
    done = [answered(whole[:n], 2) for n in range(len(whole) + 1)]
    assert done.index(True) == len(whole)  # "85%, 90%" would be no answer
    assert not answered("Frame 1: 85", 1)
    assert answered("Frame 1: 85\n", 1)
    assert not answered("Frame 1: the drawer is 50%", 1)


@given(st.text(max_size=300), st.integers(1, 5), st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_never_raises_and_never_returns_a_wrong_count(text: str, count: int, first: int) -> None:
    check(text, count, first)


PIECES = [
    "Frame ",
    "frame",
    "1",
    "2",
    "３",
    "²",
    ": ",
    "%",
    "Task Completion Percentages",
    ".",
    ",",
    "-",
    "\n",
    " ",
    "99",
]


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join), st.integers(1, 3))
@settings(max_examples=500, deadline=None)
def test_nor_on_texts_made_of_its_own_words(text: str, count: int) -> None:
    check(text, count, 1)


def check(text: str, count: int, first: int) -> None:
    got = parse(text, count, first=first)
    if isinstance(got, Failure):
        assert got.reason
    else:
        assert got.shape == (count,)
        assert got.dtype == np.float64
        assert ((got >= 0) & (got <= 100)).all()
    answered(text, count, first=first)


@pytest.mark.parametrize(
    "text",
    [
        "Frame 1: 5%" + " " * 50_000 + "x",
        "frame" + " " * 50_000,
        "Frame 1: " * 5_000,
        "Frame 1: " + "9" * 50_000,
        "completion: " * 5_000,
        "Frame 1: 3% frame 2: " * 3_000,
    ],
    ids=lambda text: text[:12],
)
def test_long_nonsense_costs_linear_time(text: str) -> None:
    start = time.perf_counter()
    check(text, 15, 1)
    assert time.perf_counter() - start < 2
