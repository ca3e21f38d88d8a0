"""Episodes, measured: all scorers over the real videos and their controls.

In go Episodes with their footage, scorers and a plan; out comes a Measured each. What fails is in it, with its error;
only `reraise` stops. Short clips may share a scorer's passes, an episode's controls and those of other episodes alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topreward.errors import CurveError
from topreward.jobs import controls
from topreward.jobs.episode import Measured, Reading, describe_error, evenly_spaced, place, shares, true_progress
from topreward.jobs.frames import LIMIT_BYTES, Footage, Recipe, Remembered, read_footage
from topreward.jobs.identity import stamp
from topreward.jobs.plan import FROZEN, FROZEN_OTHER, OTHER, REAL, REVERSED, Plan
from topreward.jobs.scorers import Scorer
from topreward.provenance import software
from topreward.types import Clip, Curve, Episode


def measure(
    episode: Episode,
    scorers: Mapping[str, Scorer],
    plan: Plan,
    other: str | None = None,
    *,
    reraise: bool = False,
    limit_bytes: int = LIMIT_BYTES,
) -> Measured:
    """Score one episode with every scorer, clip after clip. `other`: the instruction that stands in as a control.

    An error becomes part of the result, whatever its type, unless `reraise`. `limit_bytes`: most decoded pixels
    that are kept for the scorers to share.
    """
    footage = read(episode, recipes_of(scorers), plan, limit_bytes=limit_bytes, reraise=reraise)
    return measure_all([AtHand.of(episode, other, footage, plan)], scorers, plan, reraise=reraise)[0]


@dataclass(frozen=True, eq=False)
class AtHand:
    """An episode that is ready to be scored, or the error that it is."""

    known: Measured
    """What is known without scoring."""
    remembered: Remembered | None
    """None for an error."""

    @classmethod
    def of(cls, episode: Episode, other: str | None, read: Footage | str, plan: Plan) -> AtHand:
        """`read`: the episode's footage, or why there is none."""
        known = Measured(
            id=episode.id,
            instruction=episode.instruction,
            other_instruction=other if plan.controls else None,
            success=episode.success,
            split=episode.split,
            place=place(episode),
            software=software(),
        )
        if isinstance(read, str):
            return cls(_with(known, error=read), None)
        progress = None if episode.progress is None else np.array(episode.progress, dtype=np.float64)
        known = _with(
            known,
            num_frames=read.pts_seconds.size,
            progress=progress,
            notes=(read.note,) if read.note else (),
            stamp=read.stamp,
            # A copy: what is measured must not hold on to the memory that the pixels lie in.
            frame_times=None if evenly_spaced(read.pts_seconds) else read.pts_seconds.copy(),
        )
        return cls(known, Remembered(read, _Opened(episode)))


class _Opened:
    """An episode's frames by number; the episode is opened when the first one is asked for."""

    def __init__(self, episode: Episode) -> None:
        self._episode = episode
        self._clip: Clip | None = None

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        self._clip = self._clip or self._episode.clip()
        return self._clip.frames(indices)


def recipes_of(scorers: Mapping[str, Scorer]) -> dict[str, Recipe]:
    """What each scorer looks at; one that has no recipe takes frames as decoded, in its own process."""
    given = {base: getattr(scorer, "recipe", None) for base, scorer in scorers.items()}
    return {base: make() if (make := given[base]) else Recipe(scorer.frames) for base, scorer in scorers.items()}


def read(
    episode: Episode,
    recipes: Mapping[str, Recipe],
    plan: Plan,
    *,
    limit_bytes: int = LIMIT_BYTES,
    reraise: bool = False,
) -> Footage | str:
    """Open an episode, and decode and resize what its scorers will look at; or why that cannot be done, in one line."""
    try:
        clip = episode.clip()
        read_from = stamp(episode)  # not before: some clips are written to their file when they are first opened
        true_progress(episode, clip)
        wanted = []
        for base in plan.bases:
            recipe = recipes[base]
            resize = recipe.resize(clip) if recipe.resize else None
            wanted.append((resize, frames_needed(clip, recipe.sample(clip), plan, base, episode.id)))
        return read_footage(clip, wanted, limit_bytes=limit_bytes, stamp=read_from)
    except Exception as failure:
        if reraise:
            raise
        return describe_error(failure)


def frames_needed(clip: Clip, sampled: NDArray[np.int64], plan: Plan, base: str, episode_id: str) -> NDArray[np.int64]:
    """Raw frames that the real video and its controls show a scorer that is shown `sampled` of the real one."""
    sampled = np.asarray(sampled, dtype=np.int64)
    parts = [sampled]
    if plan.controls:
        parts.append(clip.num_frames - 1 - sampled)
    if plan.needs_frozen(base, episode_id):
        parts.append(np.zeros(1, dtype=np.int64))
    return np.unique(np.concatenate(parts))


def measure_all(
    episodes: Sequence[AtHand],
    scorers: Mapping[str, Scorer],
    plan: Plan,
    *,
    batch_size: int | None = 1,
    reraise: bool = False,
) -> list[Measured]:
    """Score several episodes, in as few passes as their scorers manage.

    `batch_size`: most clips that share a pass; 1: each clip alone, None: as the scorer sees fit.
    """
    tables = [_Table(episode, plan) for episode in episodes]
    for base in plan.bases:
        scorer = scorers[base]
        readable = [table for table in tables if table.remembered is not None]
        if readable and batch_size != 1 and hasattr(scorer, "score_all"):
            _share(base, scorer, batch_size, readable)
        else:
            for table in readable:
                table.ask(base, scorer, reraise)
    return [table.measured() for table in tables]


@dataclass(frozen=True)
class _Call:
    """A clip, the instructions that share its pass, and what their curves are."""

    clip: Clip
    texts: tuple[str, ...]
    names: tuple[str, ...]


def _calls(clip: Clip, episode: Measured, plan: Plan, base: str) -> list[_Call]:
    """What a scorer is asked."""
    own: tuple[str, ...] = (episode.instruction,)
    both = own if episode.other_instruction is None else (*own, episode.other_instruction)
    calls = [_Call(clip, both, (REAL, OTHER)[: len(both)])]
    if plan.needs_frozen(base, episode.id):
        # Only `debiased` takes the frozen curve of the other instruction.
        texts = both if plan.debiases(base) else own
        calls.append(_Call(controls.frozen(clip), texts, (FROZEN, FROZEN_OTHER)[: len(texts)]))
    if plan.controls:
        calls.append(_Call(controls.backwards(clip), own, (REVERSED,)))
    return calls


class _Table:
    """One episode's readings as they come."""

    def __init__(self, episode: AtHand, plan: Plan) -> None:
        self.known, self.remembered, self.plan = episode.known, episode.remembered, plan
        self.readings: list[Reading] = []
        self.notes = list(episode.known.notes)
        """Gets what a careful reader must know."""

    def measured(self) -> Measured:
        if self.remembered is None:
            return self.known
        return _with(
            self.known,
            decode_seconds=self.remembered.seconds,
            decoded_frames=self.remembered.decoded,
            readings=tuple(self.readings),
            notes=tuple(self.notes),
        )

    def calls(self, base: str) -> list[_Call]:
        """What a scorer is asked about it."""
        assert self.remembered is not None
        return _calls(self.remembered.clip, self.known, self.plan, base)

    def ask(self, base: str, scorer: Scorer, reraise: bool) -> None:
        """All readings of a scorer: together where it can, one call after the other where it cannot, or where that
        fails, so that each has its own error."""
        calls = self.calls(base)
        together = getattr(scorer, "score_together", None)
        if together is not None and len(calls) > 1:
            shown = [(call.clip, call.texts) for call in calls]
            try:
                self.readings += self._timed(base, calls, partial(together, shown, episode_id=self.known.id))
                return
            except Exception as failure:
                # The error's own words are of this episode; as a note it would be another one for every episode.
                self.notes.append(f"{base} was asked one after the other: together, {type(failure).__name__}")
        for call in calls:
            start = self._clock()
            try:
                self.readings += self._timed(base, [call], partial(self._alone, scorer, call))
            except Exception as failure:
                if reraise:
                    raise
                self.failed(base, call, failure, self._clock() - start)

    def failed(self, base: str, call: _Call, failure: Exception, seconds: float) -> None:
        error, part = describe_error(failure), seconds / len(call.names)
        self.readings += [Reading(base, name, None, error, part) for name in call.names]

    def made(self, base: str, calls: list[_Call], found: list[list[Curve]], seconds: float) -> list[Reading]:
        """The readings of calls that were made at once; they share the time."""
        for call, curves in zip(calls, found, strict=True):
            if len(curves) != len(call.texts):
                raise CurveError(f"{base} gave {len(curves)} curves for {len(call.texts)} instructions")
        names = [name for call in calls for name in call.names]
        named = [c.with_values(c.values, c.unit, episode_id=self.known.id) for curves in found for c in curves]
        return [
            Reading(base, name, curve, None, seconds * share)
            for name, curve, share in zip(names, named, shares(named), strict=True)
        ]

    def _timed(self, base: str, calls: list[_Call], score: Callable[[], list[list[Curve]]]) -> list[Reading]:
        start = self._clock()
        found = score()
        return self.made(base, calls, found, self._clock() - start)

    def _alone(self, scorer: Scorer, call: _Call) -> list[list[Curve]]:
        return [scorer.score(call.clip, call.texts, episode_id=self.known.id)]

    def _clock(self) -> float:
        """s; stands still while frames are decoded again, which is not the scorer's time."""
        assert self.remembered is not None
        return time.perf_counter() - self.remembered.seconds


def _share(base: str, scorer: Any, batch_size: int | None, tables: list[_Table]) -> None:
    """Have a scorer look at all clips of all tables at once; where that fails as a whole, at one after the other."""

    def clock() -> float:
        return time.perf_counter() - sum(t.remembered.seconds for t in tables if t.remembered is not None)

    asked = [(table, call) for table in tables for call in table.calls(base)]
    shown = [(call.clip, call.texts) for _, call in asked]
    try:
        outcomes = scorer.score_all(shown, batch_size=batch_size, clock=clock)
    except Exception as failure:
        for table in tables:
            table.notes.append(f"{base} was asked one after the other: together, {type(failure).__name__}")
            table.ask(base, scorer, reraise=False)
        return
    for (table, call), outcome in zip(asked, outcomes, strict=True):
        if outcome.note and (note := f"{base} {outcome.note}") not in table.notes:
            table.notes.append(note)
        if outcome.error is not None:
            table.failed(base, call, outcome.error, outcome.seconds)
        else:
            table.readings += table.made(base, [call], [outcome.curves], outcome.seconds)


def _with(measured: Measured, **changes: Any) -> Measured:
    return Measured(**(vars(measured) | changes))
