"""What a page is made from: a run's folder, one curve's file, or what a command has just computed.

In goes a path, or a Curve with its Clip; out comes a Source, whatever it was. Opens videos only when they are asked
for; one that is gone leaves its episode without a film, and a sentence that says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topreward.errors import ConfigError, TopRewardError
from topreward.jobs.episode import Measured, Reading
from topreward.jobs.plan import ESTIMATORS, REAL, Plan
from topreward.jobs.stored import Stored, open_stored, stored_curve
from topreward.types import Clip, Curve, Episode

OpenClip = Callable[[], Clip]


@dataclass(eq=False)
class Source:
    """Episodes that were measured, and where their videos are."""

    title: str
    plan: Plan
    planned: int
    measured: Callable[[], Iterator[Measured]] = field(repr=False)
    """Every episode anew, one at a time."""
    open_clips: Callable[[], Mapping[str, OpenClip]] = field(repr=False)
    """Episode id → what opens its clip. Raises TopRewardError where none can be."""
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    """What is missing, a sentence each."""
    single: bool = False
    """One curve, not a run."""


def open_source(path: str | os.PathLike[str], *, video: str | os.PathLike[str] | None = None) -> Source:
    """A run's folder, or a curve's .json. `video`: where a curve's video lies, if not where it was.

    Raises ConfigError, CurveError in one line for anything else.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return _of_file(place, video)
    if video is not None:
        raise ConfigError(f"{path}: is a run, whose videos its settings name; --video is for one curve")
    stored = open_stored(place)
    return Source(
        title=_title(stored),
        plan=stored.plan,
        planned=stored.planned,
        measured=stored.measured,
        open_clips=lambda: {name: episode.clip for name, episode in stored.episodes().items()},
        settings=stored.settings,
        notes=stored.notes,
    )


def of_run(stored: Stored, episodes: Callable[[], Mapping[str, Episode]]) -> Source:
    """A run's folder whose episodes are open already."""
    found = Source(_title(stored), stored.plan, stored.planned, stored.measured, dict, stored.settings, stored.notes)
    found.open_clips = lambda: {name: episode.clip for name, episode in episodes().items()}
    return found


def of_curve(curve: Curve, clip: Clip) -> Source:
    """One curve and its clip."""
    base = str(curve.provenance.get("estimator", "topreward"))
    name = curve.episode_id or Path(clip.source).stem or "clip"
    reading = Reading(base, REAL, curve, None, 0.0)
    one = Measured(name, curve.instruction, num_frames=curve.num_frames, readings=(reading,))
    return _single(one, {name: lambda: clip})


def _of_file(place: Path, video: str | os.PathLike[str] | None) -> Source:
    from topreward.video import read_video

    one = stored_curve(place)
    curve = one.readings[0].curve
    assert curve is not None
    said = curve.provenance.get("video")
    lies = video if video is not None else said.get("source") if isinstance(said, Mapping) else None
    if not isinstance(lies, str | os.PathLike):
        return _single(one, {})
    return _single(one, {one.id: lambda: read_video(lies)})


def _single(one: Measured, clips: Mapping[str, OpenClip]) -> Source:
    base = one.readings[0].base
    odds = ("log_odds",) if base == "topreward" and one.readings[0].curve is not None else ()
    known = (base, *odds) if base in ESTIMATORS else (base,)
    return Source(one.instruction, Plan(known, controls=False), 1, lambda: iter((one,)), lambda: clips, single=True)


def _title(stored: Stored) -> str:
    dataset, model = stored.settings.get("dataset"), stored.settings.get("model")
    named = dataset.get("dataset") if isinstance(dataset, Mapping) else None
    read = model.get("name") if isinstance(model, Mapping) else None
    return " · ".join(str(part) for part in (named or stored.path.name, read) if part)


def clips_of(source: Source) -> tuple[Mapping[str, OpenClip], str | None]:
    """What opens the clips, and why there is nothing that does."""
    try:
        return source.open_clips(), None
    except (TopRewardError, OSError) as error:
        return {}, f"the videos cannot be shown: {' '.join(str(error).split())}"
