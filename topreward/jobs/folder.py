"""A run's folder: what was measured of each episode, whole or absent, and under which settings.

    settings.json      what decides the numbers; a run goes on only under the same ones
    curves/<id>.json   a Measured per episode, written as soon as it is done
    results.json, episodes.parquet   written by `results`

In go Measureds; out they come again when a run goes on. One process writes, and one run at a time: a lock says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from topreward.errors import ConfigError, CurveError
from topreward.files import write_atomically
from topreward.jobs.episode import Measured
from topreward.jobs.identity import how_made

IDENTITY = ("estimator", "model", "revision", "adapter", "dtype", "quantization", "protocol", "layout_version")
"""What a curve's provenance must have in common with those that lie in the folder already."""


class Folder:
    """Where a run keeps its episodes; a temporary one where no path is given. Use it in a `with` block."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="topreward-eval-") if path is None else None
        self.path = Path(self._temporary.name if self._temporary else os.fspath(path or "")).expanduser()
        self.kept = path is not None
        self._lock: IO[str] | None = None
        self._made: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._lock is not None:
            self._lock.close()  # and with it the lock
        if self._temporary is not None:
            self._temporary.cleanup()

    def open(self, settings: Mapping[str, Any]) -> None:
        """Make the folder, or go on in it.

        Raises ConfigError where it holds something else, or curves that were made under other settings, naming what
        differs.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path}: is a file, want a folder")
        known = self.path / "settings.json"
        if self.path.is_dir() and not known.exists() and any(p.name != ".lock" for p in self.path.iterdir()):
            raise ConfigError(f"{self.path}: holds files, but no settings.json of an earlier run; give another folder")
        try:
            (self.path / "curves").mkdir(parents=True, exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        text = json.dumps(settings, indent=1, allow_nan=False, default=str) + "\n"
        # Settings alone bind nobody: an earlier run may have stopped before it measured anything.
        if known.exists() and any((self.path / "curves").glob("*.json")):
            differing = differences(_read(known), json.loads(text))
            if differing:
                raise ConfigError(
                    f"{self.path}: was made with other settings ({'; '.join(differing)}); "
                    "give another folder, or the same settings to go on"
                )
        else:
            write_atomically(known, text)

    def load(self, episode_id: str) -> Measured | None:
        """What was measured of an episode. Raises CurveError for a file that is not of this making."""
        path = self.file(episode_id)
        if not path.exists():
            return None
        try:
            measured = Measured.from_dict(_read(path))
        except (CurveError, ConfigError, KeyError, TypeError) as error:
            why = " ".join(str(error).removeprefix(f"{path}: ").split())
            raise CurveError(
                f"{path}: not a measured episode ({why}); delete it, and the episode is measured again"
            ) from error
        if measured.id != episode_id:
            raise CurveError(f"{path}: holds the episode {measured.id!r}, not {episode_id!r}")
        self._check_making(measured)
        return measured

    def write(self, measured: Measured) -> None:
        """Keep an episode. Raises ConfigError where its curves were made unlike those before it."""
        self._check_making(measured)
        text = json.dumps(measured.to_dict(), allow_nan=False, separators=(",", ":"), default=str)
        write_atomically(self.file(measured.id), text + "\n")

    def file(self, episode_id: str) -> Path:
        """An episode's file: readable where the id allows it, and never another episode's."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", episode_id).strip("._")[:60] or "episode"
        return self.path / "curves" / f"{readable}-{hashlib.sha256(episode_id.encode()).hexdigest()[:12]}.json"

    def _check_making(self, measured: Measured) -> None:
        for r in measured.readings:
            if r.curve is None:
                continue
            made = json.loads(how_made(r.curve))
            here = {key: made.get(key) for key in IDENTITY}
            before = self._made.setdefault(r.base, here)
            if differing := differences(before, here):
                raise ConfigError(
                    f"{self.path}: {r.base}'s earlier curves were made in another way ({'; '.join(differing)}); "
                    "give another folder"
                )

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # not a Unix: two runs in one folder are then the user's to avoid
            return
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"{self.path}: another run is writing there") from error


def differences(there: Any, here: Any, where: str = "", most: int = 4) -> list[str]:
    """What differs between two JSON values, a phrase each: `plan.seed is 0 there, 1 here`."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        found: list[str] = []
        for key in sorted(there.keys() | here.keys(), key=str):
            found += differences(there.get(key), here.get(key), f"{where}.{key}".lstrip("."), most)
        return found if len(found) <= most else [*found[:most], f"and {len(found) - most} more"]
    return [] if there == here else [f"{where} is {_short(there)} there, {_short(here)} here"]


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not readable as JSON ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}, want a mapping")
    return data
