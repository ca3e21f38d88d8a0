"""Episodes over several processes: one model each, one episode at a time.

In goes a task that pickles; out come (position, Measured) as they are done. Workers write no file: what they measure
goes back through a pipe. One that dies takes its episode with it, as an error; the others go on.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from topreward.errors import ConfigError, DatasetError, TopRewardError
from topreward.jobs.controls import other_instructions
from topreward.jobs.episode import Measured, describe_error, measure
from topreward.jobs.plan import Plan
from topreward.jobs.scorers import LoadScorers, Scorer
from topreward.types import Episode


@dataclass(frozen=True)
class Task:
    """What a process needs to measure any episode."""

    load: LoadScorers
    open_episodes: Callable[[], Sequence[Episode]]
    plan: Plan
    fail_fast: bool = False

    def scorers(self, worker: int, workers: int) -> Mapping[str, Scorer]:
        """Load them. Raises ConfigError where one that the plan needs is not among them."""
        loaded = self.load(worker, workers)
        if missing := [base for base in self.plan.bases if base not in loaded]:
            raise ConfigError(f"no scorer is loaded for {', '.join(missing)}; there are {', '.join(loaded) or 'none'}")
        return loaded


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    busy_with: int | None = None


def over_workers(
    task: Task, episodes: Sequence[Episode], pending: Sequence[int], workers: int
) -> Iterator[tuple[int, Measured]]:
    """Measure the episodes at `pending` positions in up to `workers` processes; results come as they are done.

    Raises TopRewardError where a model cannot be loaded, or where all workers died.
    """
    # spawn: a forked child inherits threads and GPU contexts that do not survive it
    context = multiprocessing.get_context("spawn")
    waiting = deque(pending)
    count = min(workers, len(waiting))
    running: list[_Worker] = []
    try:
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, task, number, count), daemon=True)
            process.start()
            theirs.close()  # so that its death is the end of the pipe
            running.append(_Worker(process, ours))
        while running:
            ready = wait([w.pipe for w in running])
            for worker in [w for w in running if w.pipe in ready]:
                yield from _hear(worker, episodes)
                if not worker.pipe.closed and waiting:
                    _give(worker, waiting)
                elif worker.busy_with is None:
                    _dismiss(worker)
                    running.remove(worker)
        if waiting:
            raise TopRewardError(f"all {count} workers died; {len(waiting)} episodes are left")
    finally:
        for worker in running:
            worker.pipe.close()  # idle ones leave by themselves
        for worker in running:
            _end(worker.process)


def _hear(worker: _Worker, episodes: Sequence[Episode]) -> Iterator[tuple[int, Measured]]:
    """What a worker says: that it is ready, an episode's result, or nothing more."""
    try:
        kind, said = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        worker.pipe.close()
        position, worker.busy_with = worker.busy_with, None
        if position is not None:
            e = episodes[position]
            error = f"the process that scored it died with exit status {worker.process.exitcode}"
            yield position, Measured(e.id, e.instruction, success=e.success, split=e.split, error=error)
        return
    if kind == "failed":
        raise TopRewardError(said)
    if kind == "ready":
        if said != [e.id for e in episodes]:
            raise DatasetError("the dataset has other episodes when it is opened again; is it being written?")
        return
    position, worker.busy_with = worker.busy_with, None
    assert position is not None
    yield position, said


def _give(worker: _Worker, waiting: deque[int]) -> None:
    position = waiting.popleft()
    worker.busy_with = position
    with suppress(OSError):  # it has just died: the end of its pipe is heard next, the episode becomes an error
        worker.pipe.send(position)


def _dismiss(worker: _Worker) -> None:
    if not worker.pipe.closed:
        with suppress(OSError):
            worker.pipe.send(None)
        worker.pipe.close()
    _end(worker.process, patience=10)


def _end(process: BaseProcess, patience: float = 0.5) -> None:
    """Wait for a process to leave; then tell it to; then end it."""
    process.join(patience)
    for stop in (process.terminate, process.kill):
        if process.is_alive():
            stop()
            process.join(5)


def _work(pipe: Connection, task: Task, number: int, workers: int) -> None:
    """A worker's life: load, then measure what it is given until it is given nothing."""
    for heard_by_parent in ("SIGINT", "SIGHUP"):  # which then ends us
        if hasattr(signal, heard_by_parent):
            signal.signal(getattr(signal, heard_by_parent), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leaving nothing behind

    def say(kind: str, said: Any) -> None:
        pipe.send((kind, said))

    try:
        try:
            episodes = task.open_episodes()
            scorers = task.scorers(number, workers)
            others = other_instructions(episodes, task.plan.seed)
        except Exception as failure:
            say("failed", describe_error(failure))
            return
        say("ready", [e.id for e in episodes])
        while (position := pipe.recv()) is not None:
            say("done", measure(episodes[position], scorers, task.plan, others[position]))
    except (EOFError, OSError):
        return  # the parent is gone
