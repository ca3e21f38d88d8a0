"""Whether labels follow the clock, and which episodes to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelled import Made, name, some, write_run
from topreward.jobs.stored import open_stored
from topreward.labels.derive import Labels, derive


def labels_of(folder: Path, made: list[Made], **options: object) -> Labels:
    base = str(options.pop("base", "topreward"))
    run = write_run(folder / "run", made, base=base)
    return derive(open_stored(run), str(options.pop("estimator", base)))


def with_frozen(kind: str, audited: int = 8, count: int = 12) -> list[Made]:
    """Episodes of which `audited` have a frozen curve: one that rises too, wavers, or is flat."""
    rng = np.random.default_rng(3)
    made = []
    for i, m in enumerate(some(count)):
        k = len(m.scored)
        curves = {"rising": np.linspace(-4, -3, k), "wavering": rng.normal(-4, 1, k), "flat": np.full(k, -4.0)}
        made.append(replace(m, frozen=curves[kind].tolist()) if i < audited else m)
    return made


def test_a_clock_is_told(tmp_path: Path) -> None:
    found = labels_of(tmp_path, with_frozen("rising")).audit
    assert (found.verdict, found.alarming, found.episodes) == ("follows the clock", True, 8)
    assert "FOLLOW THE CLOCK" in found.sentence
    assert "reaches the real one's" in found.sentence


@pytest.mark.parametrize("kind", ["wavering", "flat"])
def test_progress_stands_out_from_frozen_videos(tmp_path: Path, kind: str) -> None:
    found = labels_of(tmp_path, with_frozen(kind)).audit
    assert (found.verdict, found.alarming) == ("stands", False)
    assert "over 8 audited episodes" in found.sentence
    assert ("flat" in found.sentence) is (kind == "flat")


def test_a_value_that_does_not_rise_is_no_evidence(tmp_path: Path) -> None:
    made = [replace(m, values=m.values[::-1]) for m in with_frozen("flat")]
    found = labels_of(tmp_path, made).audit
    assert (found.verdict, found.alarming) == ("no evidence", True)
    assert "does not stand above 0" in found.sentence


def test_only_the_audited_episodes_are_judged(tmp_path: Path) -> None:
    """Eight audited of forty: the others' missing frozen curves must not make it undecided."""
    found = labels_of(tmp_path, with_frozen("rising", 8, 40)).audit
    assert (found.verdict, found.episodes) == ("follows the clock", 8)


@pytest.mark.parametrize("audited", [0, 4])
def test_too_few_decide_nothing(tmp_path: Path, audited: int) -> None:
    found = labels_of(tmp_path, with_frozen("rising", audited)).audit
    assert (found.verdict, found.alarming) == ("not decided", False)
    assert f"{audited} episodes were scored with their frozen video" in found.sentence


def test_gvl_is_not_decided(tmp_path: Path) -> None:
    made = [Made([0, 5, 11], [0.0, 40.0 + i, 90.0], unit="percent") for i in range(6)]
    found = labels_of(tmp_path, made, base="gvl").audit
    assert found.verdict == "not decided"
    assert "random order" in found.sentence


def test_debiased_has_no_control_of_its_own(tmp_path: Path) -> None:
    found = labels_of(tmp_path, with_frozen("flat", 12), estimator="debiased").audit
    assert found.verdict == "not decided"
    assert "by construction" in found.sentence


def test_reasons_to_look(tmp_path: Path) -> None:
    steady = [Made([0, 3, 6, 9, 11], [-5.0, -4.0, -3.0, -2.0, -0.5]) for _ in range(4)]
    falls = Made([0, 3, 6, 9, 11], [-0.6, -1.0, -3.0, -4.0, -5.0])
    stalls = Made([0, 3, 6, 9, 11], [-5.0, -4.9, -4.9, -4.9, -0.5])
    flat = Made([0, 3, 6], [-2.0, -2.0, -2.0])
    lost = Made([], [], error="cut off")
    labels = labels_of(tmp_path, [*steady, falls, stalls, flat, lost])
    reasons = {kept.id: " / ".join(facts.reasons) for kept, facts in labels.first_to_look_at}
    assert set(reasons) == {name(i) for i in (4, 5, 6, 7)}
    assert "falls with time (VOC -1.00)" in reasons[name(4)]
    assert "progress falls by" in reasons[name(4)]
    assert "ends at 0.00" in reasons[name(4)]
    assert "no progress for" in reasons[name(5)]
    assert "flat" in reasons[name(6)]
    assert "cut off" in reasons[name(7)]
    weights = [facts.weight for _, facts in labels.first_to_look_at]
    assert weights == sorted(weights, reverse=True)
