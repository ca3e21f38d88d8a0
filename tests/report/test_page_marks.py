"""Where a curve is worth a look: each kind of mark where it must stand, and none where it must not."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from topreward.report.page.marks import Mark, marks
from topreward.report.page.write import as_json
from topreward.types import Curve


def marked(values: Sequence[float], unit: str = "nats") -> list[Mark]:
    """One prefix a second."""
    lengths = np.arange(1, len(values) + 1)
    return marks(Curve("t", lengths, lengths - 1.0, values, unit, len(values)))  # type: ignore[arg-type]


def seen(values: Sequence[float], unit: str = "nats") -> list[tuple[str, float, float]]:
    return [(m.kind, m.start, m.end) for m in marked(values, unit)]


def test_a_steady_rise_has_none() -> None:
    assert seen(np.linspace(-4, 0, 12)) == []
    assert seen([*np.linspace(-4, 0, 6), *[-0.05] * 6]) == []  # at its top, and stays there


def test_a_drop_is_a_whole_falling_stretch() -> None:
    rising = list(np.linspace(-4, 0, 9))
    # What falls for a fifth of the video has no new best for as long.
    assert seen([*rising, -0.4, -0.8, -0.92]) == [("drop", 8.0, 11.0), ("stall", 8.0, 11.0)]
    assert "drops by 0.23 of its range" in marked([*rising, -0.4, -0.8, -0.92])[0].text
    assert seen([*rising, -0.5]) == []  # .125 of the range: below .15


def test_a_jump_is_one_step() -> None:
    assert seen([-4, -3.6, -1.9, -1.5, -1.0, -0.5, 0.0]) == [("jump", 1.0, 2.0)]
    assert seen([-4, -2.5, -1.0, 0.0]) == []  # .375 a step: below .4


def test_a_stall_is_time_without_a_new_best() -> None:
    assert seen([-4, -3, -2, -2, -2.1, -2, -2, -1, 0]) == [("stall", 2.0, 6.0)]
    assert seen([0, -0.3, -0.5, -0.9, -1]) == [("drop", 0.0, 4.0), ("stall", 0.0, 4.0)]
    assert "no progress for 4.0 s" in marked([0, -0.3, -0.5, -0.9, -1])[1].text


@pytest.mark.parametrize(("unit", "jitter"), [("nats", 0.2), ("percent", 2.0), ("probability", 0.02)])
def test_jitter_is_flat_and_nothing_else(unit: str, jitter: float) -> None:
    """Min-max stretches jitter to 0 … 1: marks of it would be made up."""
    wave = 0.5 + jitter / 2 * np.array([1, -1, 1, 1, -1, 1.0])
    assert seen(wave, unit) == [("flat", 0.0, 5.0)]
    kinds = {kind for kind, _, _ in seen(3 * wave, unit)}  # the same shape, beyond the bound
    assert {"drop", "jump"} <= kinds
    assert "flat" not in kinds


@pytest.mark.parametrize("values", [[-1.0], [-1.0, np.nan, 0.0], [np.nan] * 4])
def test_what_is_undefined_has_none(values: list[float]) -> None:
    assert marked(values) == []


@pytest.mark.parametrize("text", ["<", "</script >", "<!--<script ", "&lt;", "\u2028\ud800", "\x00"])
def test_no_character_of_data_can_end_its_script(text: str) -> None:
    told = as_json({text: [text]})
    assert not set("<>&\u2028\ud800\x00") & set(told)
    assert json.loads(told) == {text: [text]}
