"""What a run of values says of a running robot."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward.errors import ConfigError, CurveError
from topreward.monitor import Reading, SuccessMonitor


def read(values: list[float], step: float = 0.5, **options: Any) -> list[Reading]:
    monitor = SuccessMonitor(**{"threshold": -1.0, "floor": -5.0, "plateau_seconds": 2.0, "patience": 2} | options)
    return [monitor.update(i * step, value) for i, value in enumerate(values)]


def states(values: list[float], **options: Any) -> str:
    return "".join(reading.state[:2] for reading in read(values, **options)).replace("ru", ".").upper()


def test_success_takes_patience_and_is_told_apart_from_progress() -> None:
    readings = read([-6, -4, -0.5, -3, -0.5, -0.9, -0.2])
    assert [r.state for r in readings] == ["running"] * 5 + ["success"] * 2
    assert [r.progress for r in readings] == pytest.approx([0, 0.25, 1, 0.5, 1, 1, 1])
    assert [r.succeeded_at for r in readings] == [None] * 5 + [2.5, 2.5]


def test_success_may_be_lost_but_stays_known() -> None:
    last = read([-0.5, -0.5, -6, -6])[-1]
    assert (last.state, last.succeeded_at, last.progress) == ("regressed", 0.5, 0.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-3.0] * 7, ".....STST"),  # the plateau's two seconds, and once more
        ([-3, -2.8, -2.6, -2.4, -2.2, -2, -1.8, -1.6], "........"),  # slow, but more than the tolerance
        ([-3, -3, -3, -3, -3, -3, -2, -2], ".....STST."),  # it moves again: once is not enough
        ([-6] * 7, ".....STST"),  # below a floor that was never reached nothing can regress
        ([-6, -4, -6, -4, -6, -6], ".....RE"),
        ([-0.5] * 8, ".SUSUSUSUSUSUSU"),  # done is not stuck
    ],
)
def test_states(values: list[float], expected: str) -> None:
    assert states(values) == expected


def test_patience_of_one_is_a_hard_bar() -> None:
    assert states([-0.5, -3, -0.5], patience=1) == "SU.SU"


def test_reset_forgets() -> None:
    monitor = SuccessMonitor(-1, -5, 2.0)
    for i in range(4):
        monitor.update(10.0 + i, -0.5)
    monitor.reset()
    assert monitor.update(0.0, -0.5) == Reading("running", 0.0, -0.5, 1.0, None)


@given(st.lists(st.floats(-50, 5), min_size=1, max_size=60), st.integers(1, 4))
def test_a_state_holds_what_its_values_show(values: list[float], patience: int) -> None:
    readings = read(values, patience=patience)
    for i, reading in enumerate(readings):
        assert 0 <= reading.progress <= 1
        last = values[max(0, i - patience + 1) : i + 1]
        if reading.state == "success" and (i == 0 or readings[i - 1].state != "success"):
            assert len(last) == patience
            assert min(last) >= -1
        if len(last) == patience and min(last) >= -1:
            assert reading.state == "success"
        if reading.state == "regressed":
            assert max(values[: i + 1]) >= -5


def test_what_makes_no_sense_is_refused() -> None:
    for options, why in [
        ({"threshold": -5.0}, "the floor below"),
        ({"floor": math.nan}, "the floor below"),
        ({"plateau_seconds": 0.0}, "plateau_seconds is 0.0"),
        ({"patience": 0}, "patience is 0"),
        ({"patience": True}, "patience is True"),
        ({"tolerance": -1.0}, "tolerance is -1.0"),
    ]:
        with pytest.raises(ConfigError, match=why):
            read([0.0], **options)
    monitor = SuccessMonitor(-1, -5, 2.0)
    monitor.update(1.0, -2.0)
    for seconds, value in [(1.0, -2.0), (0.5, -2.0), (2.0, math.nan), (math.inf, -2.0)]:
        with pytest.raises(CurveError, match=r"times must increase|want numbers"):
            monitor.update(seconds, value)
    assert monitor.update(2.0, -2.0).seconds == 2.0
