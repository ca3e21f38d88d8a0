"""When a VOC is evidence: it must be above 0, above the frozen video's, and defined for most episodes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from topreward.evaluation.rows import Row
from topreward.evaluation.summary import Summary, Trend, judge, trend
from topreward.report.tables import _slope, voc_table

NAN = float("nan")


def rows(control: str, vocs: list[float], *, failed: int = 0, errors: int = 0) -> list[Row]:
    """Rows with these VOCs (NaN: a constant curve), then failed answers, then errors."""
    known: dict[str, Any] = {
        **{"estimator": "x", "control": control, "instruction": "do it"},
        **{"success": None, "split": None, "num_frames": 9},
    }
    out = [Row(episode_id=f"e{i}", **known, voc=voc) for i, voc in enumerate(vocs)]
    out += [Row(episode_id=f"f{i}", **known, failure="refusal: no") for i in range(failed)]
    return out + [Row(episode_id=f"x{i}", **known, error="gone") for i in range(errors)]


def around(mean: float, count: int = 20) -> list[float]:
    """VOCs near a mean."""
    return [mean + 0.02 * (-1) ** i for i in range(count)]


def trends(real: list[Row], frozen: list[Row]) -> dict[str, Trend]:
    return {"real": trend(real), "frozen": trend(frozen)}


FLAT = [NAN] * 20


@pytest.mark.parametrize(
    ("real", "frozen", "evidence"),
    [
        (around(0.9), FLAT, "yes"),
        (around(0.9), around(0.1), "yes"),
        (around(0.9), around(0.9), "none"),
        (around(0.0), FLAT, "none"),
        (around(0.0), around(-0.5), "none"),
        (around(-0.5), around(-0.9), "none"),
        (around(0.9, 9) + [NAN] * 11, FLAT, "undecided"),
        (around(0.9), around(0.1, 5) + [NAN] * 15, "yes"),  # flat is what it should be, and counts as 0
        (around(0.9), [0.9, -0.9] + [NAN] * 18, "yes"),  # two that waver tell nothing
        (around(0.9), around(0.95, 15) + [NAN] * 5, "none"),
        (around(0.3), around(0.95, 5) + [NAN] * 15, "none"),
        (around(0.9), [0.1] + [NAN] * 19, "yes"),
    ],
)
def test_what_is_evidence(real: list[float], frozen: list[float], evidence: str) -> None:
    found, sentence = judge("x", trends(rows("real", real), rows("frozen", frozen)))
    assert found == evidence
    assert bool(sentence) == (evidence != "yes")


@pytest.mark.parametrize(
    ("real", "evidence"),
    [(around(0.9), "by construction"), (around(0.0), "none"), (around(-0.5), "none"), (FLAT, "undecided")],
)
def test_debiased_is_held_to_all_but_the_frozen_video(real: list[float], evidence: str) -> None:
    found, sentence = judge("debiased", trends(rows("real", real), rows("frozen", FLAT)))
    assert found == evidence
    assert sentence.startswith("debiased: ")


@pytest.mark.parametrize(
    ("value", "shown"), [(100.0, "+100"), (-42.063, "-42.1"), (99.97, "+100"), (2.1, "+2.10"), (-0.004, "-0.00")]
)
def test_slopes_are_narrow(value: float, shown: str) -> None:
    assert _slope(value) == shown


def test_two_good_answers_of_twenty_show_nothing() -> None:
    found, sentence = judge("gvl", trends(rows("real", [0.9, 0.95], failed=18), rows("frozen", FLAT)))
    assert found == "undecided"
    assert "2 of 20" in sentence


def test_failed_answers_as_zero_must_stand_out_too() -> None:
    real = rows("real", around(0.9, 11), failed=9)
    assert judge("gvl", trends(real, rows("frozen", around(0.1))))[0] == "yes"
    found, sentence = judge("gvl", trends(real, rows("frozen", around(0.6))))
    assert found == "none"
    assert "with failed answers as 0" in sentence


def test_a_frozen_control_that_mostly_failed_decides_nothing() -> None:
    real = rows("real", around(0.9))
    for frozen in (
        rows("frozen", [NAN], failed=19),
        rows("frozen", [NAN], errors=19),
        rows("frozen", [0.1, 0.2], failed=18),
        rows("frozen", [0.1, 0.2]),
    ):
        found, sentence = judge("gvl", trends(real, frozen))
        assert found == "undecided"
        assert "frozen" in sentence


def test_the_table_says_how_many_curves_a_mean_stands_for() -> None:
    both = trends(rows("real", around(0.9)), rows("frozen", [*around(0.1, 5), *[NAN] * 12], failed=2, errors=1))
    summary = Summary("x", "nats", both, "yes", "", None, None, None)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(voc_table([summary]))
    text = console.export_text()
    assert "5/20" in text
    assert "12 flat" in text
    assert text.count("/20") == 1  # the real one is all of them
    assert np.isclose(both["frozen"].voc.mean, 0.1, atol=0.01)
