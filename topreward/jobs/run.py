"""The loop over episodes: what is measured already is taken from the folder, the rest is measured and kept.

In go a way to load scorers, a way to open episodes, a plan and a folder, and what the caller makes of a measured
episode: its record. Out come the records. Each episode is on disk before the next one starts. Knows no terminal, and
nothing of what records hold.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from operator import length_hint
from types import TracebackType
from typing import Any, Generic, TypeVar

from topreward.errors import ConfigError, DatasetError, TopRewardError
from topreward.files import json_text
from topreward.jobs.engine import Engine, Pace
from topreward.jobs.episode import Measured
from topreward.jobs.folder import LEASES, Folder
from topreward.jobs.here import Here, Task
from topreward.jobs.identity import stamp
from topreward.jobs.leases import Leased, Leases
from topreward.jobs.plan import Plan
from topreward.jobs.scorers import LoadScorers
from topreward.jobs.workers import Processes
from topreward.types import Episode

OpenEpisodes = Callable[[], Sequence[Episode]]
Record = TypeVar("Record")
"""What is kept in memory of an episode."""


@dataclass(eq=False)
class Run(Generic[Record]):
    """What a run has so far; also of one that was stopped."""

    planned: tuple[str, ...]
    """Ids of all episodes, in the dataset's order."""
    engine: Engine
    """How it is carried out."""
    settings: dict[str, Any] = field(repr=False)
    """What decides the numbers: plan, dataset and model."""
    resumed: int = 0
    """Episodes that were taken from the folder."""
    changed: int = 0
    """Episodes that lay there too, but whose video is another one since: measured again."""
    seconds: float = 0.0
    """Wall time of this run, loading included, s."""
    done: dict[int, Record] = field(default_factory=dict, repr=False)
    """By position in `planned`; of failed episodes too."""
    pace: Pace = field(default_factory=Pace)
    """What this run has done and waited for."""
    undone: set[int] = field(default_factory=set, repr=False)
    """Positions of those that failed: they are tried again when the run is repeated."""

    @property
    def episodes(self) -> list[Record]:
        """What is done, in the dataset's order."""
        return [self.done[position] for position in sorted(self.done)]

    @property
    def workers(self) -> int:
        """Processes with a model each."""
        return self.engine.workers

    @property
    def failed(self) -> int:
        """Episodes with an error."""
        return len(self.undone)


def run_job(
    load: LoadScorers,
    open_episodes: OpenEpisodes,
    plan: Plan,
    folder: Folder,
    *,
    record: Callable[[Measured], Record],
    is_done: Callable[[Record], bool],
    settings: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
    workers: int = 1,
    fail_fast: bool = False,
    on_start: Callable[[Run[Record]], None] | None = None,
    on_done: Callable[[Record], None] | None = None,
) -> Run[Record]:
    """Measure all episodes that the folder does not hold yet.

    `load`, `open_episodes`: called once in this process, or once in each of the engine's workers (then they must
    pickle). `engine`: how it is carried out, by default one episode after the other, by so many `workers`.
    `record`: what is kept in memory of a measured episode, whose curves lie in the folder; `is_done`: whether
    a record needs no further try. `settings`: what else decides the numbers: model, protocol, dataset; the folder
    refuses to go on under others. An episode whose video file was replaced since is measured again. `fail_fast`: raise
    the first episode's error, with its id, as a TopRewardError instead of going on. `on_start` gets the Run before
    anything is measured, `on_done` every record as it is made. Episodes that failed before are tried again.
    Raises TopRewardError where nothing can go on: no model, another run's folder, all workers dead; or where what was
    kept does not lie in the folder in the end: that is not among what is done.
    """
    engine = engine or Engine(workers=workers)
    start = time.perf_counter()
    episodes = open_episodes()
    _refuse_repeated(episodes)
    run: Run[Record] = Run(tuple(e.id for e in episodes), engine, _settings(settings, plan, episodes))
    if engine.shard is not None and not folder.kept:
        raise ConfigError("a shard shares a folder with others: name it with --output")
    folder.open(run.settings, shared=engine.shard is not None)
    if on_start:
        on_start(run)

    def keep(position: int, kept: Record) -> None:
        run.done[position] = kept
        if not is_done(kept):
            run.undone.add(position)
        run.seconds = time.perf_counter() - start
        if on_done:
            on_done(kept)

    pending = []
    for position, episode in enumerate(episodes):
        before = _labelled(folder, episode)
        if before is None or not is_done(kept := record(before)):
            pending.append(position)
        elif before.stamp != stamp(episode):
            run.changed += 1
            pending.append(position)
        else:
            run.resumed += 1
            keep(position, kept)
    lost: list[str] = []
    task = Task(load, open_episodes, plan, fail_fast, engine)
    try:
        with ExitStack() as stack:
            hands = stack.enter_context(_Hands(task, episodes, run.pace))
            if engine.shard is None:
                rounds: Iterator[Iterator[int]] = iter([iter(pending)])

                def publish(_: int, measured: Measured) -> bool:
                    folder.write(measured)
                    return True

            else:

                def elsewhere(position: int, measured: Measured) -> None:
                    run.resumed += 1
                    keep(position, record(measured))

                leases = stack.enter_context(Leases(folder.path / LEASES, engine.shard.lease_seconds))
                leased = Leased(folder, leases, engine.shard, run.planned, pending, elsewhere)
                rounds, publish = leased.rounds(), leased.publish  # type: ignore[assignment]
            for positions in rounds:
                for position, measured in hands.measured(positions):
                    if not publish(position, measured):
                        continue
                    keep(position, record(measured))
                    if fail_fast and measured.failed:
                        raise TopRewardError(f"episode {measured.id}: {measured.failed}")
    finally:  # also of a run that is stopped, what counts as done is on disk
        run.seconds = time.perf_counter() - start
        if engine.shard is not None:
            _read_again(run, folder, record, is_done)
        lost = _forget_lost(run, folder)
    if lost:
        raise ConfigError(
            f"{folder.file(lost[0])}: was removed or replaced while the run went on, and so were the curves of "
            f"{len(lost)} of {len(run.planned)} episodes; run it again, and these are measured again"
        )
    folder.check()
    return run


def _forget_lost(run: Run[Any], folder: Folder) -> list[str]:
    """Take back what does not lie in the folder any more; the episodes' ids."""
    lost = folder.lost(run.planned[position] for position in sorted(run.done))
    for position in [position for position in run.done if run.planned[position] in set(lost)]:
        del run.done[position]
        run.undone.discard(position)
    return lost


def _labelled(folder: Folder, episode: Episode) -> Measured | None:
    """What the folder holds of an episode, under its label and split of today: no curve depends on them."""
    before = folder.load(episode.id)
    if before is None or (before.success, before.split) == (episode.success, episode.split):
        return before
    today = replace(before, success=episode.success, split=episode.split)
    folder.write(today)
    return today


def _read_again(
    run: Run[Record], folder: Folder, record: Callable[[Measured], Record], is_done: Callable[[Record], bool]
) -> None:
    """Take over what other runs have put into a shared folder, also in place of what this one knows."""
    for position in set(range(len(run.planned))) - set(run.done):
        _take_over(run, folder, position, record, is_done)
    known = {name: position for position, name in enumerate(run.planned)}
    for name in folder.lost(run.planned[position] for position in sorted(run.done)):
        _take_over(run, folder, known[name], record, is_done)


def _take_over(
    run: Run[Record],
    folder: Folder,
    position: int,
    record: Callable[[Measured], Record],
    is_done: Callable[[Record], bool],
) -> None:
    measured = folder.load(run.planned[position])
    if measured is None:
        return
    run.done[position] = record(measured)
    (run.undone.discard if is_done(run.done[position]) else run.undone.add)(position)


class _Hands:
    """Whoever measures: this process, or several. Models are loaded when there is something for them to do."""

    def __init__(self, task: Task, episodes: Sequence[Episode], pace: Pace) -> None:
        """`pace` is kept up to date."""
        self.task, self.episodes, self.pace = task, episodes, pace
        self._here: Here | None = None

    def __enter__(self) -> _Hands:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._here is not None:
            self._here.__exit__(kind, error, at)

    def measured(self, positions: Iterator[int]) -> Iterator[tuple[int, Measured]]:
        """Measure the episodes at these positions; results come as they are done."""
        given = _Peeked(positions)
        if given.empty:
            return
        if self.task.engine.kind == "ray":
            from topreward.jobs.on_ray import measured_on_ray

            results = measured_on_ray(self.task, self.episodes, given)
        elif self.task.engine.workers == 1:
            self._here = self._here or Here(self.task, self.episodes)
            results = self._here_measured(self._here, given)
        else:
            count = min(self.task.engine.workers, length_hint(given, len(self.episodes)))
            processes = Processes(self.task, self.episodes, max(count, 1))
            processes.pace = self.pace
            results = processes.measured(given)
        with closing(results):
            for position, measured in results:
                self.pace.frames += measured.decoded_frames
                yield position, measured

    def _here_measured(self, here: Here, positions: Iterator[int]) -> Generator[tuple[int, Measured], None, None]:
        for position, measured in here.measured(positions):
            self.pace.add(here.pace())
            yield position, measured


class _Peeked(Iterator[int]):
    """Positions, the first of which has been looked at."""

    def __init__(self, positions: Iterator[int]) -> None:
        self._rest = positions
        self._first = next(positions, None)
        self.empty = self._first is None

    def __next__(self) -> int:
        first, self._first = self._first, None
        return next(self._rest) if first is None else first

    def __length_hint__(self) -> int:
        rest = length_hint(self._rest, -1)
        return NotImplemented if rest < 0 else rest + (self._first is not None)


def _refuse_repeated(episodes: Sequence[Episode]) -> None:
    if not len(episodes):
        raise DatasetError("there are no episodes to evaluate")
    repeated = [name for name, times in Counter(episode.id for episode in episodes).items() if times > 1]
    if repeated:
        raise DatasetError(f"the episode id {repeated[0]!r} appears more than once")


def _settings(given: Mapping[str, Any] | None, plan: Plan, episodes: Sequence[Episode]) -> dict[str, Any]:
    """As JSON gives them back, with the episodes' ids and instructions in short."""
    listed = json.dumps([[e.id, e.instruction] for e in episodes])
    settings = {
        **(given or {}),
        "plan": plan.settings(),
        "episodes": {"count": len(episodes), "sha256": hashlib.sha256(listed.encode()).hexdigest()},
    }
    plain: dict[str, Any] = json.loads(json_text(settings))
    return plain
