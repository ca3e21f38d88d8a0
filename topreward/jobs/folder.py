"""A run's folder: what was measured of each episode, whole or absent, and under which settings.

    settings.json      what decides the numbers; a run goes on only under the same ones
    curves/<id>.json   a Measured per episode, written as soon as it is done
    results.json, episodes.parquet   written by `results`

In go Measureds; out they come again when a run goes on. One process writes, and one run at a time: a lock says so,
unless runs share the folder by leases. What
others take away or put in its place meanwhile is noticed: nothing counts as kept that does not lie there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from uuid import uuid4

from topreward.config import Wording
from topreward.errors import ConfigError, CurveError
from topreward.files import expand, json_text, sweep, told, write_atomically, written_as
from topreward.jobs.episode import Measured
from topreward.jobs.identity import how_made
from topreward.limits import hold

IDENTITY = ("estimator", "model", "revision", "adapter", "dtype", "quantization", "protocol", "layout_version")
"""What a curve's provenance must have in common with those that lie in the folder already."""

SINCE: Mapping[str, Mapping[str, Any]] = {
    "wording": {"closed_thinking": Wording.model_fields["closed_thinking"].default},
}
"""What settings have that format 1 did not begin with, under which key, and the value that changes nothing."""

SETTINGS = "settings.json"
LEASES = "leases"
"""A folder in it, where runs that share it say who measures what, see `leases`."""
OWN_FILES = (SETTINGS, "results.json", "episodes.parquet")


@dataclass(frozen=True)
class _Bytes:
    """What lies in a file: its place and times, and, where those changed, a digest that tells whether it did."""

    place: tuple[int, ...]
    digest: bytes

    @classmethod
    def of(cls, path: Path, raw: bytes) -> _Bytes:
        return cls(_place(path), hashlib.blake2b(raw, digest_size=16).digest())

    def still_at(self, path: Path) -> bool:
        with suppress(OSError):
            return _place(path) == self.place or _Bytes.of(path, path.read_bytes()).digest == self.digest
        return False


class Folder:
    """Where a run keeps its episodes; a temporary one where no path is given. Use it in a `with` block."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        with told("a temporary folder", "cannot be made"):
            self._temporary = tempfile.TemporaryDirectory(prefix="topreward-eval-") if path is None else None
        self.path = Path(self._temporary.name) if self._temporary else expand(path or "")
        self.kept = path is not None
        self._lock: IO[str] | None = None
        self._opened: dict[Path, int] = {}
        self._settings: tuple[bytes, _Bytes] | None = None
        self._files: dict[str, _Bytes] = {}
        self._made: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        while self._opened:
            os.close(self._opened.popitem()[1])
        if self._lock is not None:
            self._lock.close()  # and with it the lock
        if self._temporary is not None:
            self._temporary.cleanup()

    def open(self, settings: Mapping[str, Any], *, shared: bool = False) -> None:
        """Make the folder, or go on in it. `shared`: with other runs that open it so.

        Raises ConfigError where it holds something else, or curves that were made under other settings, naming what
        differs. What a run left that was killed before it kept anything, or while it wrote, is no obstacle.
        """
        known, curves = self.path / SETTINGS, self.path / "curves"
        with told(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise ConfigError(f"{self.path}: is a file, want a folder")
            if self.path.is_dir() and not known.exists():
                self._refuse_others_files()
            curves.mkdir(parents=True, exist_ok=True)
            self._take_lock(shared)
            # Kept open, so that no other folder can get the same number while this one is not there any more.
            self._opened = {path: os.open(path, os.O_RDONLY) for path in (self.path, curves)}
            begun = any(curves.glob("[!.]*.json"))
        sweep(self.path, OWN_FILES.__contains__)
        sweep(curves, lambda name: True)  # nobody else's files lie in there
        text = json_text(settings, indent=1) + "\n"
        # Settings alone bind nobody: an earlier run may have stopped before it measured anything.
        if known.exists() and begun:
            raw, there = _read(known)
            if differing := differences(as_today(there), as_today(json.loads(text))):
                raise ConfigError(
                    f"{self.path}: was made with other settings ({'; '.join(differing)}); "
                    "give another folder, or the same settings to go on"
                )
        else:
            raw = text.encode()
            write_atomically(known, raw)
        with told(known, "cannot be read"):
            self._settings = raw, _Bytes.of(known, raw)

    def load(self, episode_id: str) -> Measured | None:
        """What was measured of an episode. Raises CurveError for a file that is not of this making."""
        path = self.file(episode_id)
        try:
            raw, data = _read(path)
            measured = Measured.from_dict(data)
        except FileNotFoundError:
            return None
        except (CurveError, ConfigError) as error:
            why = " ".join(str(error).removeprefix(f"{path}: ").split())
            raise CurveError(
                f"{path}: not a measured episode ({why}); delete it, and the episode is measured again"
            ) from error
        if measured.id != episode_id:
            raise CurveError(f"{path}: holds the episode {measured.id!r}, not {episode_id!r}")
        self._check_making(measured)
        with told(path, "cannot be read"):
            self._files[episode_id] = _Bytes.of(path, raw)
        return measured

    def write(self, measured: Measured) -> None:
        """Keep an episode. Raises ConfigError where its curves were made unlike those before it, or where the folder
        is not the one that was opened."""
        self._check_making(measured)
        self.check()
        raw = (json_text(measured.to_dict(), compact=True) + "\n").encode()
        path = self.file(measured.id)
        write_atomically(path, raw)
        with told(path):
            self._files[measured.id] = _Bytes.of(path, raw)

    def write_new(self, measured: Measured, still: Callable[[], bool]) -> bool:
        """Keep an episode where none lies yet, and say whether it was kept. Raises as `write`.

        `still`: whether it may be kept, asked at the last moment where the file system has no links that would tell.
        """
        self._check_making(measured)
        self.check()
        raw = (json_text(measured.to_dict(), compact=True) + "\n").encode()
        path = self.file(measured.id)
        ready = self.path / LEASES / f"{path.stem}-{uuid4().hex}.json"
        write_atomically(ready, raw)
        try:
            with told(path):
                try:
                    os.link(ready, path)  # unlike a rename, it does not take the place of what is there
                except FileExistsError:
                    return False
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) or path.exists() or not still():
                        raise
                    ready.replace(path)
                self._files[measured.id] = _Bytes.of(path, raw)
        finally:
            ready.unlink(missing_ok=True)
        return True

    def check(self) -> None:
        """Raise ConfigError where the folder, or curves/ in it, was removed or replaced since it was opened.

        Settings that were removed or changed are written again: without them nobody could go on in it.
        """
        for path, handle in self._opened.items():
            with suppress(OSError):
                if os.path.samestat(path.stat(), os.fstat(handle)):
                    continue
            raise ConfigError(f"{path}: was removed or replaced while the run went on; run it again")
        known = self.path / SETTINGS
        if self._settings is not None and not self._settings[1].still_at(known):
            raw = self._settings[0]
            write_atomically(known, raw)
            self._settings = raw, _Bytes.of(known, raw)

    def lost(self, episode_ids: Iterable[str]) -> list[str]:
        """Of these episodes, those whose file is not there any more, or not as this run wrote or read it."""
        kept = self._files
        return [name for name in episode_ids if name not in kept or not kept[name].still_at(self.file(name))]

    def file(self, episode_id: str) -> Path:
        """An episode's file: readable where the id allows it, and never another episode's."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", episode_id).strip("._")[:60] or "episode"
        return self.path / "curves" / f"{readable}-{hashlib.sha256(episode_id.encode()).hexdigest()[:12]}.json"

    def _check_making(self, measured: Measured) -> None:
        for r in measured.readings:
            if r.curve is None:
                continue
            made = json.loads(how_made(r.curve))
            here = as_today({key: made.get(key) for key in IDENTITY})
            before = self._made.setdefault(r.base, here)
            if differing := differences(before, here):
                raise ConfigError(
                    f"{self.path}: {r.base}'s earlier curves were made in another way ({'; '.join(differing)}); "
                    "give another folder"
                )

    def _refuse_others_files(self) -> None:
        """Raise ConfigError unless all that lies there is what a run of ours leaves that is killed at its start."""
        for entry in self.path.iterdir():
            if entry.name == "curves" and entry.is_dir():
                if any(written_as(file.name) is None for file in entry.iterdir()):
                    raise ConfigError(
                        f"{self.path}: holds curves, but no settings.json that says how they were made; "
                        "give another folder"
                    )
            elif entry.name not in (".lock", LEASES) and written_as(entry.name) not in OWN_FILES:
                raise ConfigError(
                    f"{self.path}: holds files, but no settings.json of an earlier run; give another folder"
                )

    def _take_lock(self, shared: bool) -> None:
        try:
            import fcntl
        except ImportError:  # not a Unix: two runs in one folder are then the user's to avoid
            return
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{self.path}: another run is writing there") from error


def as_today(value: Any) -> Any:
    """Settings of an earlier version, with what came since spelled out as what was done then: see `SINCE`."""
    if not isinstance(value, Mapping):
        return value
    return {key: {**SINCE.get(key, {}), **as_today(v)} if isinstance(v, Mapping) else v for key, v in value.items()}


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


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    """A file's bytes and the mapping in them. Raises ConfigError; FileNotFoundError where there is none."""
    try:
        hold("max_text_bytes", path.stat().st_size, path)
        raw = path.read_bytes()
        data = json.loads(raw.decode("utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as JSON ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}, want a mapping")
    return raw, data


def _place(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
