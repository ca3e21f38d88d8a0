"""One episode, measured: the curves of all scorers, of the real video and of its controls.

In go an Episode, scorers and a plan; out comes a Measured, which saves and loads itself. What fails is in it, with
its error; only `reraise` stops. Decodes the video once. Knows nothing of other episodes, of tables or of files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topreward.errors import CurveError, DatasetError, TopRewardError
from topreward.jobs import controls
from topreward.jobs.frames import LIMIT_BYTES, Remembered
from topreward.jobs.identity import stamp
from topreward.jobs.plan import FROZEN, FROZEN_OTHER, OTHER, REAL, REVERSED, Plan
from topreward.jobs.scorers import Scorer
from topreward.provenance import software
from topreward.types import Clip, Curve, Episode, expect

MEASURED_FORMAT = 1

KEPT = {
    "id": "text",
    "instruction": "text",
    "other_instruction": "text?",
    "success": "flag?",
    "split": "text?",
    "num_frames": "count?",
    "decode_seconds": "number",
    "decoded_frames": "count",
    "readings": "mappings",
    "progress": "numbers?",
    "error": "text?",
    "notes": "texts",
    "stamp": "mapping?",
    "place": "mapping?",
    "frame_times": "numbers?",
    "software": "mapping?",
}
"""What a kept episode holds, for `types.expect`."""
KEPT_READING = {"base": "text", "control": "text", "curve": "mapping?", "error": "text?", "seconds": "number"}


@dataclass(frozen=True, eq=False)
class Reading:
    """A scorer's curve of one video under one instruction, or why there is none."""

    base: str
    """The estimator that ran."""
    control: str
    curve: Curve | None
    error: str | None
    seconds: float
    """Wall time without decoding, s. Curves made in one call share its time by their tokens."""


@dataclass(frozen=True, eq=False)
class Measured:
    """All that was read from one episode."""

    id: str
    instruction: str
    other_instruction: str | None = None
    success: bool | None = None
    split: str | None = None
    num_frames: int | None = None
    decode_seconds: float = 0.0
    decoded_frames: int = 0
    readings: tuple[Reading, ...] = ()
    progress: NDArray[np.float64] | None = field(default=None, repr=False)
    """(T,) true progress of every raw frame, where it is known."""
    error: str | None = None
    """Why there is no reading at all."""
    notes: tuple[str, ...] = ()
    stamp: Mapping[str, Any] | None = None
    """What the clip was read from, see `identity.stamp`; None where nothing was read."""
    place: Mapping[str, int] | None = None
    """`episode_index` and `dataset_from_index` in a dataset that counts its frames through (LeRobot)."""
    frame_times: NDArray[np.float64] | None = field(default=None, repr=False)
    """(T,) s, of every raw frame, where they are not evenly spaced; None where they are, see `evenly_spaced`."""
    software: Mapping[str, str | None] | None = None
    """The versions that measured it, see `provenance.software`; None where an earlier version kept it."""

    @property
    def failed(self) -> str | None:
        """The first error, of the episode or of any of its curves."""
        return self.error or next((r.error for r in self.readings if r.error is not None), None)

    def reading(self, base: str, control: str) -> Reading | None:
        return next((r for r in self.readings if (r.base, r.control) == (base, control)), None)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        plain = {k: v for k, v in vars(self).items() if k not in ("readings", "progress", "notes", "frame_times")}
        return {
            "format": MEASURED_FORMAT,
            **plain,
            "notes": list(self.notes),
            "progress": None if self.progress is None else self.progress.tolist(),
            "frame_times": None if self.frame_times is None else self.frame_times.tolist(),
            "readings": [vars(r) | {"curve": None if r.curve is None else r.curve.to_dict()} for r in self.readings],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measured:
        """The inverse of `to_dict`. Raises CurveError on another format."""
        if data.get("format") != MEASURED_FORMAT:
            raise CurveError(f"the format is {data.get('format')!r}, this version reads {MEASURED_FORMAT}")
        rest = {k: v for k, v in data.items() if k != "format"}
        try:
            expect(rest, KEPT, "an episode")
            for reading in rest["readings"]:
                expect(reading, KEPT_READING, "a reading")
            readings = [
                Reading(**{**r, "curve": None if r["curve"] is None else Curve.from_dict(r["curve"])})
                for r in rest.pop("readings")
            ]
            arrays: dict[str, Any] = {name: rest.pop(name, None) for name in ("progress", "frame_times")}
            arrays = {name: None if a is None else np.array(a, dtype=np.float64) for name, a in arrays.items()}
            measured = cls(**{**rest, "notes": tuple(rest["notes"])}, readings=tuple(readings), **arrays)
        except KeyError as error:
            raise CurveError(f"it lacks {error}") from error
        except (TypeError, OverflowError) as error:
            raise CurveError(" ".join(str(error).split())) from error
        measured._refuse_misfits()
        return measured

    def _refuse_misfits(self) -> None:
        """Raise CurveError where curves and true progress are not of one video, or a reading is neither."""
        for r in self.readings:
            if r.curve is None and r.error is None:
                raise CurveError(f"{r.base}'s reading of the {r.control} video has neither a curve nor an error")
            if r.curve is not None and r.curve.num_frames != self.num_frames:
                raise CurveError(f"a curve is of {r.curve.num_frames} frames, the episode of {self.num_frames}")
        for name, per_frame in (("progress", self.progress), ("frame_times", self.frame_times)):
            if per_frame is not None and per_frame.shape != (self.num_frames,):
                raise CurveError(f"{name} is of {per_frame.size} frames, the episode of {self.num_frames}")


def measure(
    episode: Episode,
    scorers: Mapping[str, Scorer],
    plan: Plan,
    other: str | None = None,
    *,
    reraise: bool = False,
    limit_bytes: int = LIMIT_BYTES,
) -> Measured:
    """Score an episode with every scorer. `other`: the instruction that stands in as a control.

    An error becomes part of the result, whatever its type, unless `reraise`. `limit_bytes`: most decoded pixels
    that are kept for the scorers to share.
    """
    known = Measured(
        id=episode.id,
        instruction=episode.instruction,
        other_instruction=other if plan.controls else None,
        success=episode.success,
        split=episode.split,
        place=place(episode),
        software=software(),
    )
    try:
        clip = episode.clip()
        read_from = stamp(episode)  # not before: some clips are written to their file when they are first opened
        progress = true_progress(episode, clip)
        wanted = [frames_needed(clip, scorers[base], plan, base, episode.id) for base in plan.bases]
        remembered = Remembered(clip, np.concatenate(wanted), limit_bytes=limit_bytes)
    except Exception as failure:
        if reraise:
            raise
        return _with(known, error=describe_error(failure))
    readings: list[Reading] = []
    notes = [remembered.note] if remembered.note else []
    for base in plan.bases:
        reader = _Reader(base, scorers[base], episode.id, remembered, reraise, notes)
        readings += reader.read(_calls(remembered.clip, known, plan, base))
    return _with(
        known,
        num_frames=clip.num_frames,
        decode_seconds=remembered.seconds,
        decoded_frames=remembered.decoded,
        readings=tuple(readings),
        progress=progress,
        notes=tuple(notes),
        stamp=read_from,
        frame_times=None if evenly_spaced(clip.pts_seconds) else clip.pts_seconds,
    )


def frames_needed(clip: Clip, scorer: Scorer, plan: Plan, base: str, episode_id: str) -> NDArray[np.int64]:
    """Raw frames that the real video and its controls show a scorer."""
    sampled = np.asarray(scorer.frames(clip), dtype=np.int64)
    parts = [sampled]
    if plan.controls:
        parts.append(clip.num_frames - 1 - sampled)
    if plan.needs_frozen(base, episode_id):
        parts.append(np.zeros(1, dtype=np.int64))
    return np.unique(np.concatenate(parts))


def true_progress(episode: Episode, clip: Clip) -> NDArray[np.float64] | None:
    """(T,) what the episode says, where it fits its clip. Raises DatasetError where it does not."""
    if episode.progress is None:
        return None
    progress = np.array(episode.progress, dtype=np.float64)
    if progress.shape != (clip.num_frames,):
        raise DatasetError(
            f"episode {episode.id}: true progress has shape {progress.shape}, the clip has {clip.num_frames} frames"
        )
    if not np.isfinite(progress).all() or progress.min() < 0 or progress.max() > 1:
        raise DatasetError(f"episode {episode.id}: true progress must be finite and within 0 and 1")
    return progress


def place(episode: Episode) -> dict[str, int] | None:
    """Where the dataset counts the episode and its first frame; None where it does not count its frames through."""
    index, first = episode.extra.get("episode_index"), episode.extra.get("dataset_from_index")
    if not isinstance(index, int) or not isinstance(first, int):
        return None
    return {"episode_index": index, "dataset_from_index": first}


def evenly_spaced(times: NDArray[np.float64]) -> bool:
    """Whether every frame's time, (T,) s, is within a twentieth of a frame of its even place between first and last.

    What a container's clock rounds away is less than that at the usual rates.
    """
    if times.size < 3:
        return True
    even = np.linspace(times[0], times[-1], times.size)
    return bool(np.abs(times - even).max() <= 0.05 * (times[-1] - times[0]) / (times.size - 1))


def describe_error(failure: BaseException) -> str:
    """One line; an error that nobody foresaw is told by its type."""
    text = " ".join(str(failure).split())
    return text if isinstance(failure, TopRewardError) else f"unexpected {type(failure).__name__}: {text}"


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


@dataclass(frozen=True)
class _Reader:
    """A scorer at work on one episode."""

    base: str
    scorer: Scorer
    episode_id: str
    remembered: Remembered
    reraise: bool
    notes: list[str]
    """Gets what a careful reader must know."""

    def read(self, calls: list[_Call]) -> list[Reading]:
        """All readings: together where the scorer can, one call after the other where it cannot, or where that fails,
        so that each has its own error."""
        together = getattr(self.scorer, "score_together", None)
        if together is not None and len(calls) > 1:
            shown = [(call.clip, call.texts) for call in calls]
            try:
                return self._timed(calls, partial(together, shown, episode_id=self.episode_id))
            except Exception as failure:
                # The error's own words are of this episode; as a note it would be another one for every episode.
                self.notes.append(f"{self.base} was asked one after the other: together, {type(failure).__name__}")
        readings = []
        for call in calls:
            start = self._clock()
            try:
                readings += self._timed([call], partial(self._alone, call))
            except Exception as failure:
                if self.reraise:
                    raise
                seconds = (self._clock() - start) / len(call.names)
                readings += [Reading(self.base, name, None, describe_error(failure), seconds) for name in call.names]
        return readings

    def _alone(self, call: _Call) -> list[list[Curve]]:
        return [self.scorer.score(call.clip, call.texts, episode_id=self.episode_id)]

    def _timed(self, calls: list[_Call], score: Callable[[], list[list[Curve]]]) -> list[Reading]:
        """The readings of calls that are made at once; they share the time."""
        start = self._clock()
        found = score()
        seconds = self._clock() - start
        for call, curves in zip(calls, found, strict=True):
            if len(curves) != len(call.texts):
                raise CurveError(f"{self.base} gave {len(curves)} curves for {len(call.texts)} instructions")
        names = [name for call in calls for name in call.names]
        named = [c.with_values(c.values, c.unit, episode_id=self.episode_id) for curves in found for c in curves]
        return [
            Reading(self.base, name, curve, None, seconds * share)
            for name, curve, share in zip(names, named, shares(named), strict=True)
        ]

    def _clock(self) -> float:
        """s; stands still while frames are decoded again, which is not the scorer's time."""
        return time.perf_counter() - self.remembered.seconds


def shares(curves: Sequence[Curve]) -> list[float]:
    """What part of a shared call each curve stands for, by tokens; the first one bears what all of them needed."""
    tokens = [curve.provenance.get("tokens", {}) for curve in curves]
    if all("branch" in t for t in tokens):  # one trunk, and each instruction's part of the branches
        whole = tokens[0]["trunk"] + tokens[0]["branch"]
        part = tokens[0]["branch"] / len(curves) / whole if whole else 1 / len(curves)
        return [1 - part * (len(curves) - 1), *[part] * (len(curves) - 1)]
    counts = [sum(t.values()) for t in tokens]
    return [n / sum(counts) for n in counts] if all(counts) else [1 / len(curves)] * len(curves)


def _with(measured: Measured, **changes: Any) -> Measured:
    return Measured(**(vars(measured) | changes))
