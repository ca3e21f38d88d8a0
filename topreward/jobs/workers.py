"""Episodes over several processes: one model each, and its decoders.

In go positions as they become known; out come (position, Measured) as they are done. Workers write no file: what they
measure goes back through a pipe. When one dies, another takes its place; the episode at which two died is an error.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from operator import length_hint
from typing import Any

from topreward.errors import DatasetError, TopRewardError
from topreward.jobs.engine import Pace
from topreward.jobs.episode import Measured, describe_error
from topreward.jobs.here import Here, Task
from topreward.types import Episode


@dataclass(eq=False)
class _Worker:
    number: int
    process: BaseProcess
    pipe: Connection
    given: list[int] = field(default_factory=list)
    """Positions that it has, in order."""
    at: list[int] = field(default_factory=list)
    """Those that it is scoring."""
    ready: bool = False
    alone: bool = False
    """Whether it has one episode at which another worker died."""
    asking: bool = False
    """Whether it waits to be told what is next."""


class Processes:
    """Up to `workers` processes at work. Use `measured` to its end, or close it: afterwards there are none."""

    def __init__(self, task: Task, episodes: Sequence[Episode], workers: int) -> None:
        # spawn: a forked child inherits threads and GPU contexts that do not survive it
        self._context = multiprocessing.get_context("spawn")
        # Of errors that end a run, the one that hears of them all makes an end: a worker says what it met.
        self.task = replace(task, fail_fast=False)
        self.episodes, self.count = episodes, workers
        self.pace = Pace()
        self._running: list[_Worker] = []
        self._again: deque[int] = deque()
        """Positions that a dead worker had."""
        self._suspects: deque[int] = deque()
        """Those at which one died: they are scored alone."""
        self._deaths: Counter[int] = Counter()

    def measured(self, positions: Iterator[int]) -> Generator[tuple[int, Measured], None, None]:
        """Measure the episodes at these positions; results come as they are done.

        Raises TopRewardError where a model cannot be loaded, or where workers die before they have loaded one.
        """
        try:
            for number in range(self.count):
                self._running.append(self._start(number))
            while self._running:
                ready = wait([w.pipe for w in self._running])
                for worker in [w for w in self._running if w.pipe in ready]:
                    yield from self._hear(worker)
                for worker in [w for w in self._running if w.asking]:
                    self._answer(worker, positions)
        finally:
            self._close()

    def _start(self, number: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        # Not a daemon: it has decoders of its own. The end of its pipe is what ends it.
        process = self._context.Process(target=_work, args=(theirs, self.task, number, self.count))
        process.start()
        theirs.close()  # so that its death is the end of the pipe
        return _Worker(number, process, ours)

    def _hear(self, worker: _Worker) -> Iterator[tuple[int, Measured]]:
        """What a worker says, or that it is dead."""
        try:
            kind, said = worker.pipe.recv()
        except (EOFError, OSError):
            yield from self._mourn(worker)
            return
        if kind == "failed":
            raise TopRewardError(said)
        if kind == "ready":
            if said != [e.id for e in self.episodes]:
                raise DatasetError("the dataset has other episodes when it is opened again; is it being written?")
            worker.ready = True
        elif kind == "more":
            worker.asking = True
        elif kind == "at":
            worker.at = said
        else:
            position, measured, pace = said
            worker.given.remove(position)
            worker.at = [p for p in worker.at if p != position]
            worker.alone = worker.alone and bool(worker.given)
            self.pace.add(pace)
            yield position, measured

    def _answer(self, worker: _Worker, positions: Iterator[int]) -> None:
        """Tell a worker that asks: a position; that it is to finish what it has; or that it may go."""
        answer: Any = "finish"
        if worker.alone:
            pass
        elif self._suspects:
            if not worker.given:
                answer, worker.alone = self._suspects.popleft(), True
        elif self._again:
            answer = self._again.popleft()
        # Few are left: none is to have many while another has nothing.
        elif not worker.given or len(worker.given) < length_hint(positions, 1 << 30) / (2 * self.count):
            answer = next(positions, "finish")
        if answer == "finish" and not worker.given:
            if any(w.given for w in self._running) or self._suspects:
                return  # what another has may come back; it is told when that is done
            answer = None
        worker.asking = False
        if isinstance(answer, int):
            worker.given.append(answer)
        with suppress(OSError):  # it has just died: the end of its pipe is heard next
            worker.pipe.send(answer)
        if answer is None:
            worker.pipe.close()
            _end(worker.process, patience=10)
            self._running.remove(worker)

    def _mourn(self, worker: _Worker) -> Iterator[tuple[int, Measured]]:
        """A worker is dead: what it had goes to others, the episode at which it died alone and once."""
        _end(worker.process)
        worker.pipe.close()
        place = self._running.index(worker)
        if not worker.ready:
            del self._running[place]
            if not any(w.ready for w in self._running):
                left = f"; {len(self._again) + len(self._suspects)} episodes are left" if self._again else ""
                status = worker.process.exitcode
                raise TopRewardError(f"a worker died before it had loaded its model (exit status {status}){left}")
            return
        at = worker.at or worker.given[:1]
        for position in at:
            self._deaths[position] += 1
            if self._deaths[position] == 2 and len(at) == 1:
                e = self.episodes[position]
                error = f"the process that scored it died with exit status {worker.process.exitcode}"
                yield position, Measured(e.id, e.instruction, success=e.success, split=e.split, error=error)
            else:
                self._suspects.append(position)
        self._again.extend(p for p in worker.given if p not in at)
        self._running[place] = self._start(worker.number)

    def _close(self) -> None:
        for worker in self._running:
            worker.pipe.close()  # idle ones leave by themselves
        for worker in self._running:
            _end(worker.process)
        self._running.clear()


def _end(process: BaseProcess, patience: float = 0.5) -> None:
    """Wait for a process to leave; then tell it to; then end it."""
    process.join(patience)
    for stop in (process.terminate, process.kill):
        if process.is_alive():
            stop()
            process.join(5)


def _work(pipe: Connection, task: Task, number: int, workers: int) -> None:
    """A worker's life: load, then measure what it is given until it is told to go."""
    for heard_by_parent in ("SIGINT", "SIGHUP"):  # which then ends us
        if hasattr(signal, heard_by_parent):
            signal.signal(getattr(signal, heard_by_parent), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leaving nothing behind

    def say(kind: str, said: Any) -> None:
        pipe.send((kind, said))

    going = True

    def given() -> Iterator[int]:
        nonlocal going
        while True:
            say("more", None)
            answer = pipe.recv()
            if not isinstance(answer, int):
                going = answer is not None
                return
            yield answer

    try:
        try:
            episodes = task.open_episodes()
            here = Here(task, episodes, number, workers, at=lambda group: say("at", group))
        except Exception as failure:
            say("failed", describe_error(failure))
            return
        with here:
            say("ready", [e.id for e in episodes])
            while going:
                for position, measured in here.measured(given()):
                    say("done", (position, measured, here.pace()))
    except (EOFError, OSError):
        return  # the parent is gone
