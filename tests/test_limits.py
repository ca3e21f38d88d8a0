"""Bounds on what comes from outside: the table in the code is the table in the docs, and each can be raised."""

from __future__ import annotations

import math
import re

import pytest

from places import ROOT
from topreward.errors import ConfigError, VideoError
from topreward.limits import LIMITS, hold, hold_fps, limit

PAGE = ROOT / "docs" / "limits.md"


def test_the_page_has_every_limit_with_its_default() -> None:
    rows = re.findall(r"^\| `TOPREWARD_(\w+)` \| ([\d. ]+) \|", PAGE.read_text(), re.MULTILINE)
    assert {name.lower(): float(value.replace(" ", "")) for name, value in rows} == {
        name: entry.value for name, entry in LIMITS.items()
    }


@pytest.mark.parametrize("name", LIMITS)
def test_the_environment_moves_a_limit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = limit(name)
    beyond = default / 2 if LIMITS[name].least else default * 2
    hold(name, default, "here")
    with pytest.raises(VideoError, match=f"here: .*TOPREWARD_{name.upper()}"):
        hold(name, beyond, "here", error=VideoError)
    monkeypatch.setenv(f"TOPREWARD_{name.upper()}", str(beyond))
    hold(name, beyond, "here")


@pytest.mark.parametrize("given", ["many", "", "0", "-1", "nan"])
def test_a_setting_that_is_no_number_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPREWARD_MAX_FRAMES", given)
    with pytest.raises(ConfigError, match="TOPREWARD_MAX_FRAMES"):
        limit("max_frames")


@pytest.mark.parametrize("fps", [1e-8, 0.0, -1.0, 1e9, math.inf, math.nan])
def test_no_frame_rate_is_believed_that_is_none(fps: float) -> None:
    with pytest.raises(VideoError, match=r"clip\.mp4: "):
        hold_fps(fps, "clip.mp4", error=VideoError)
