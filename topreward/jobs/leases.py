"""Several runs in one folder: who measures which episode, told by nothing but files in it.

In goes a folder that all runs see, and which of so many runs this is; out come positions that no other run has, round
after round until every episode is measured by somebody. An episode's lease is a file that only one run can make; its
time of change is a heartbeat. Where that stands still, another run makes the lease of the next generation, and the
former owner, should it wake up, finds that it has lost: it publishes nothing over what is there.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from topreward.files import told
from topreward.jobs.engine import Shard
from topreward.jobs.episode import Measured
from topreward.jobs.folder import Folder

BEATS = 5
"""Heartbeats in the time after which a lease is another run's to take."""


class Leases:
    """The leases of one run. Use it in a `with` block: afterwards it has none."""

    def __init__(self, folder: Path, seconds: float) -> None:
        """`seconds`: after so long without a heartbeat, a lease is another run's to take."""
        self.folder, self.seconds = folder, seconds
        self.token = uuid4().hex
        self._clock = folder / f"clock-{self.token}"
        self._held: dict[str, int] = {}
        """Generations by name."""
        self._lock = threading.Lock()
        self._over = threading.Event()
        with told(folder):
            folder.mkdir(exist_ok=True)
            self._clock.touch()
        self._beating = threading.Thread(target=self._beat, name="leases", daemon=True)
        self._beating.start()

    def __enter__(self) -> Leases:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._beating.join()
        for name in list(self._held):
            self.release(name)
        with suppress(OSError):
            self._clock.unlink()

    def take(self, name: str) -> bool:
        """Try to get the lease of that name. Of several runs that try, one does."""
        there = self._generations(name)
        if there and self._is_fresh(name, there[-1]):
            return False
        generation = there[-1] + 1 if there else 0
        text = json.dumps({"token": self.token, "host": socket.gethostname(), "process": os.getpid()})
        with told(self._file(name, generation)):
            try:
                with self._file(name, generation).open("x") as file:
                    file.write(text)
            except FileExistsError:
                return False
        with self._lock:
            self._held[name] = generation
        return True

    def holds(self, name: str) -> bool:
        """Whether this run still has the lease: no other one took it since."""
        generation = self._held.get(name)
        if generation is None or self._generations(name)[-1:] != [generation]:
            return False
        with suppress(OSError, ValueError):
            return bool(json.loads(self._file(name, generation).read_text())["token"] == self.token)
        return False

    def release(self, name: str) -> None:
        """Let go of a lease; of one that was lost, only of the memory of it."""
        mine = self.holds(name)
        with self._lock:
            generation = self._held.pop(name, None)
        if mine and generation is not None:
            for older in range(generation + 1):
                with suppress(OSError):
                    self._file(name, older).unlink()

    def _file(self, name: str, generation: int) -> Path:
        return self.folder / f"{name}.{generation}"

    def _generations(self, name: str) -> list[int]:
        """Those that there are, increasing."""
        found = []
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                before, _, number = entry.name.rpartition(".")
                if before == name and number.isdecimal():
                    found.append(int(number))
        return sorted(found)

    def _is_fresh(self, name: str, generation: int) -> bool:
        try:
            os.utime(self._clock)  # what time it is, by the clock that stamps the heartbeats too
            now = self._clock.stat().st_mtime
            return now - self._file(name, generation).stat().st_mtime < self.seconds
        except FileNotFoundError:  # released a moment ago: next time
            return True

    def _beat(self) -> None:
        while not self._over.wait(self.seconds / BEATS):
            with self._lock:
                held = dict(self._held)
            for name, generation in held.items():
                with suppress(OSError):
                    os.utime(self._file(name, generation))


class Leased:
    """The episodes that are not measured yet, shared with other runs."""

    def __init__(
        self,
        folder: Folder,
        leases: Leases,
        shard: Shard,
        ids: Sequence[str],
        pending: Sequence[int],
        elsewhere: Callable[[int, Measured], None],
    ) -> None:
        """`ids`: of all episodes; `pending`: positions of those to be measured. `elsewhere` gets what other runs
        measured."""
        self.folder, self.leases, self.ids = folder, leases, ids
        self._elsewhere = elsewhere
        self._open = dict.fromkeys(_in_turn(len(ids), pending, shard))
        self._before = {position: self._state(position) for position in self._open}
        """What lay there at the start: failed, or of a video that has changed since."""

    def rounds(self) -> Iterator[Iterator[int]]:
        """Positions to be measured, each round those that no other run has; ends when all are measured."""
        while self._open:
            yield self._round()
            if self._open:
                time.sleep(min(1.0, self.leases.seconds / BEATS))

    def publish(self, position: int, measured: Measured) -> bool:
        """Keep what was measured, unless another run has the episode by now; whether it was kept."""
        name = self._name(position)
        try:
            kept = self.leases.holds(name) and self.folder.write_new(measured, lambda: self.leases.holds(name))
        finally:
            self.leases.release(name)
        if kept:
            self._open.pop(position, None)
        return kept

    def _round(self) -> Iterator[int]:
        for position in list(self._open):
            if position not in self._open or self._is_done(position):
                continue
            name = self._name(position)
            if not self.leases.take(name):
                continue
            if self._is_done(position):  # by whoever had the lease until now
                self.leases.release(name)
                continue
            if self._before[position] is not None:
                with suppress(OSError):
                    self.folder.file(self.ids[position]).unlink()
                self._before[position] = None
            yield position

    def _is_done(self, position: int) -> bool:
        """Whether another run has measured it since this one began; then it is taken over."""
        state = self._state(position)
        if state is None or state == self._before[position]:
            return False
        measured = self.folder.load(self.ids[position])
        if measured is None:
            return False
        self._open.pop(position, None)
        self._elsewhere(position, measured)
        return True

    def _state(self, position: int) -> tuple[int, int] | None:
        with suppress(OSError):
            found = self.folder.file(self.ids[position]).stat()
            return found.st_ino, found.st_mtime_ns
        return None

    def _name(self, position: int) -> str:
        return self.folder.file(self.ids[position]).stem


def _in_turn(count: int, pending: Sequence[int], shard: Shard) -> list[int]:
    """The pending positions in the order in which a shard tries them: its own part first, then the others' from their
    ends, at which their owners are last."""
    parts: list[list[int]] = [[] for _ in range(shard.of)]
    for position in pending:
        parts[position * shard.of // count].append(position)
    first = shard.number - 1
    others = [parts[(first + step) % shard.of] for step in range(1, shard.of)]
    return [*parts[first], *(position for part in others for position in reversed(part))]
