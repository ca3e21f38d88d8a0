"""A run's folder, read by those who do not go on in it: reports, labels, exports.

In goes a folder that a job wrote, whole or stopped half-way, of this version or an earlier one; out come its settings,
its Measureds one at a time in the dataset's order where that is known, and what is missing, in words. Takes no lock and
writes nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topreward.errors import ConfigError, CurveError, TopRewardError
from topreward.jobs.episode import Measured, Reading
from topreward.jobs.inputs import Inputs
from topreward.jobs.plan import DERIVED, ESTIMATORS, REAL, Plan
from topreward.limits import hold
from topreward.types import Curve, Episode


@dataclass(frozen=True)
class Stored:
    """What lies in a run's folder."""

    path: Path
    settings: Mapping[str, Any] = field(repr=False)
    plan: Plan
    files: tuple[Path, ...] = field(repr=False)
    """The episodes' files; in the dataset's order where results.json names them, else by name."""
    planned: int
    """Episodes that the run was to measure."""
    notes: tuple[str, ...] = ()
    """What is missing or not understood, a sentence each."""

    @property
    def complete(self) -> bool:
        """Whether there is a file for every episode."""
        return len(self.files) >= self.planned

    def measured(self) -> Iterator[Measured]:
        """Every episode that was measured; one whose file cannot be read is one with that error."""
        for file in self.files:
            yield read_measured(file)

    def episodes(self) -> dict[str, Episode]:
        """The run's episodes by id, opened as the run did: for their videos and for what the dataset knows of them.

        Raises ConfigError, DatasetError where the dataset is not there any more, or the settings do not name one.
        """
        given = self.settings.get("dataset")
        if not isinstance(given, Mapping):
            raise ConfigError(f"{self.path}: its settings name no dataset")
        known = {f.name for f in dataclasses.fields(Inputs)}
        chosen = {name: value for name, value in given.items() if name in known}
        for name in ("instruction", "camera"):
            chosen[name] = tuple(chosen.get(name) or ())
        chosen["videos"] = tuple(Path(video) for video in chosen.get("videos") or ())
        return {episode.id: episode for episode in Inputs(**chosen)()}


def open_stored(path: str | os.PathLike[str]) -> Stored:
    """Read a run's folder. Raises ConfigError, in one line, where it is none."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"{path}: is no folder of a run" if folder.exists() else f"{path}: there is no such folder")
    if not (folder / "curves").is_dir():
        raise ConfigError(f"{path}: holds no curves/ of a run; give the --output of topreward eval or label")
    notes: list[str] = []
    settings = _json(folder / "settings.json", notes)
    results = _json(folder / "results.json", []) if (folder / "results.json").exists() else {}
    files = _ordered(folder / "curves", results)
    plan = _plan(settings.get("plan"), files, notes)
    count = settings.get("episodes", {})
    planned = count.get("count") if isinstance(count, Mapping) else None
    if not isinstance(planned, int):
        planned = len(files)
    if planned > len(files):
        notes.append(f"{planned - len(files)} of {planned} episodes are not measured yet: the run was stopped")
    return Stored(folder, settings, plan, files, planned, tuple(notes))


def read_measured(file: Path) -> Measured:
    """One episode's file; where it cannot be read, a Measured with that error under the file's name."""
    try:
        hold("max_text_bytes", file.stat().st_size, file)
        return Measured.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, TopRewardError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        return Measured(file.stem, "(unknown)", error=f"{file.name}: not a measured episode ({why})")


def stored_curve(path: str | os.PathLike[str]) -> Measured:
    """A file of `topreward score --json`, as if it were a run's only episode. Raises CurveError."""
    curve = Curve.load(path)
    base = str(curve.provenance.get("estimator", "topreward"))
    name = curve.episode_id or Path(path).stem
    return Measured(
        name, curve.instruction, num_frames=curve.num_frames, readings=(Reading(base, REAL, curve, None, 0.0),)
    )


def _ordered(folder: Path, results: Mapping[str, Any]) -> tuple[Path, ...]:
    there = {file.name: file for file in sorted(folder.glob("*.json"))}
    listed = results.get("episodes")
    names = []
    for entry in listed if isinstance(listed, list) else []:
        named = entry.get("curves") if isinstance(entry, Mapping) else None
        if isinstance(named, str) and Path(named).name in there:
            names.append(Path(named).name)
    return tuple(there[name] for name in dict.fromkeys([*names, *there]))


def _plan(given: Any, files: tuple[Path, ...], notes: list[str]) -> Plan:
    """The settings' plan; where they have none that is understood, what the first episodes' curves show."""
    known = {f.name for f in dataclasses.fields(Plan)}
    if isinstance(given, Mapping):
        strange = sorted(set(given) - known)
        if strange:
            notes.append(f"written by another version: its plan has {', '.join(strange)}, which this one does not know")
        try:
            chosen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k in known}
            return Plan(**chosen)
        except (TypeError, ConfigError) as error:
            notes.append(f"its plan is not understood ({' '.join(str(error).split())})")
    found: dict[str, None] = {}
    controls = False
    for file in files[:20]:
        for reading in read_measured(file).readings:
            found[reading.base] = None
            controls |= reading.control != REAL
    estimators = tuple(found) or ("topreward",)
    derived = tuple(name for name in ESTIMATORS if DERIVED.get(name) in found and (name != "debiased" or controls))
    return Plan((*estimators, *(d for d in derived if d not in estimators)), controls)


def _json(file: Path, notes: list[str]) -> dict[str, Any]:
    """A file's mapping; an empty one and a note where there is none."""
    try:
        hold("max_text_bytes", file.stat().st_size, file, error=CurveError)
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, CurveError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        notes.append(f"{file.name} cannot be read ({' '.join(str(why).split())})")
        return {}
    if not isinstance(data, dict):
        notes.append(f"{file.name} holds a {type(data).__name__}, want a mapping")
        return {}
    return data
