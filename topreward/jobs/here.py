"""Episodes measured in this process: decoded ahead by others, scored here, several at a time where they are short.

In go positions as they become known; out come Measureds in the same order. Holds the models; writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from topreward.errors import ConfigError, TopRewardError
from topreward.jobs.ahead import Decoders
from topreward.jobs.controls import other_instructions
from topreward.jobs.engine import Engine, Pace
from topreward.jobs.episode import Measured, describe_error
from topreward.jobs.frames import Recipe
from topreward.jobs.measure import AtHand, measure, measure_all, recipes_of
from topreward.jobs.plan import Plan
from topreward.jobs.scorers import LoadScorers, Scorer
from topreward.types import Episode

MOST_TOGETHER = 64
"""Episodes that are scored at a time, where nobody says how many clips share a pass."""
TOGETHER_BYTES = 2**30
"""Pixels of the episodes that are scored at a time, unless one alone has more."""


@dataclass(frozen=True)
class Task:
    """What a process needs to measure any episode."""

    load: LoadScorers
    open_episodes: Callable[[], Sequence[Episode]]
    plan: Plan
    fail_fast: bool = False
    engine: Engine = field(default_factory=Engine)

    def scorers(self, worker: int, workers: int) -> Mapping[str, Scorer]:
        """Load them. Raises ConfigError where one that the plan needs is not among them."""
        loaded = self.load(worker, workers)
        if missing := [base for base in self.plan.bases if base not in loaded]:
            raise ConfigError(f"no scorer is loaded for {', '.join(missing)}; there are {', '.join(loaded) or 'none'}")
        return loaded


class Here:
    """Models and their decoders at work. Use it in a `with` block: afterwards there are no decoders."""

    def __init__(
        self,
        task: Task,
        episodes: Sequence[Episode],
        worker: int = 0,
        workers: int = 1,
        *,
        at: Callable[[list[int]], None] | None = None,
    ) -> None:
        """Loads the models as one of so many `workers`: raises what that raises. `at`: told which positions are about
        to be scored."""
        self._at = at or (lambda positions: None)
        self.task = task
        self.episodes = episodes
        self.others = other_instructions(episodes, task.plan.seed)
        count = 0 if task.fail_fast else task.engine.decoders_for(len(episodes))
        together = task.engine.batch_size or MOST_TOGETHER // 4
        self._decoding = Decoders(count, task.plan, ahead=together + count)
        try:
            self.scorers = task.scorers(worker, workers)
            if not all(map(_travels, self.scorers.values())):
                self._decoding.close()
            self._decoding.look_for(recipes_of(self.scorers))
        except BaseException:
            self._decoding.close()
            raise
        # Without a scorer that lets episodes share passes, one at a time: results come sooner.
        self._sharing = any(hasattr(scorer, "score_all") for scorer in self.scorers.values())
        self._since = time.perf_counter()
        self._waited = 0.0

    def __enter__(self) -> Here:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._decoding.close()

    def pace(self) -> Pace:
        """What was waited for since it was last asked; frames are the caller's to count."""
        now, waited = time.perf_counter(), self._decoding.waited
        pace = Pace(0, waited - self._waited, now - self._since)
        self._since, self._waited = now, waited
        return pace

    def measured(self, positions: Iterator[int]) -> Iterator[tuple[int, Measured]]:
        """Measure the episodes at these positions; results come in order, several at a time.

        Takes positions ahead of what it yields. With `fail_fast`, raises the first error as a TopRewardError.
        """
        if self.task.fail_fast:
            yield from self._one_by_one(positions)
            return
        group: list[tuple[int, AtHand]] = []
        filled = size = 0.0
        for position, episode, found in self._decoding.footage((p, self.episodes[p]) for p in positions):
            at_hand = AtHand.of(episode, self.others[position], found, self.task.plan)
            group.append((position, at_hand))
            filled += self._share(at_hand)
            size += 0 if isinstance(found, str) else found.nbytes
            del found, at_hand
            if self._is_full(len(group), filled, size):
                yield from self._score(group)
                group, filled, size = [], 0.0, 0.0
        if group:
            yield from self._score(group)

    def _one_by_one(self, positions: Iterator[int]) -> Iterator[tuple[int, Measured]]:
        for position in positions:
            episode = self.episodes[position]
            self._at([position])
            try:
                measured = measure(episode, self.scorers, self.task.plan, self.others[position], reraise=True)
            except Exception as failure:
                raise TopRewardError(f"episode {episode.id}: {describe_error(failure)}") from failure
            yield position, measured

    def _score(self, group: list[tuple[int, AtHand]]) -> Iterator[tuple[int, Measured]]:
        plan, size = self.task.plan, self.task.engine.batch_size
        self._at([position for position, _ in group])
        done = measure_all([at_hand for _, at_hand in group], self.scorers, plan, batch_size=size)
        for (position, _), measured in zip(group, done, strict=True):
            yield position, measured

    def _is_full(self, episodes: int, filled: float, size: float) -> bool:
        if not self._sharing:
            return True
        most = self.task.engine.batch_size
        return size >= TOGETHER_BYTES or (episodes >= (most or MOST_TOGETHER)) or (most is None and filled >= 1)

    def _share(self, at_hand: AtHand) -> float:
        """Which part of a full pass an episode is."""
        if at_hand.remembered is None or self.task.engine.batch_size is not None:
            return 0.0
        shares = []
        for base in self.task.plan.bases:
            share = getattr(self.scorers[base], "share", None)
            if share is None:
                continue
            try:
                shares.append(float(share(at_hand.remembered.clip)))
            except Exception:  # an error that scoring will meet again, and tell
                shares.append(1.0)
        return max(shares, default=1.0)


def _travels(scorer: Scorer) -> bool:
    """Whether a decoder can know what the scorer looks at."""
    make: Callable[[], Recipe] | None = getattr(scorer, "recipe", None)
    return make is not None
