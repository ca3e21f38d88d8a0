"""What was read from one episode: the curves of all scorers, of the real video and of its controls.

A Measured holds them, and saves and loads itself; what failed is in it, with its error. Here too is what an Episode
says of itself. Runs nothing, and knows nothing of tables or of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topreward.errors import CurveError, DatasetError, TopRewardError
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
    """Wall time, s; without decoding, and without resizing where that is done ahead. Curves made in one call share its
    time by their tokens, and so do clips that share passes: padding is everyone's, and a frozen video bears the part
    of its tokens although most of it is not seen again."""


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
        times = self.frame_times
        if times is not None and not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
            raise CurveError("frame_times do not increase throughout")
        if self.place is not None and not (
            set(self.place) == {"episode_index", "dataset_from_index"}
            and all(type(number) is int and number >= 0 for number in self.place.values())
        ):
            raise CurveError(f"place is {dict(self.place)}, want an episode_index and a dataset_from_index")


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


def shares(curves: Sequence[Curve]) -> list[float]:
    """What part of a shared call each curve stands for, by tokens; the first one bears what all of them needed."""
    tokens = [curve.provenance.get("tokens", {}) for curve in curves]
    if all("branch" in t for t in tokens):  # one trunk, and each instruction's part of the branches
        whole = tokens[0]["trunk"] + tokens[0]["branch"]
        part = tokens[0]["branch"] / len(curves) / whole if whole else 1 / len(curves)
        return [1 - part * (len(curves) - 1), *[part] * (len(curves) - 1)]
    counts = [sum(t.values()) for t in tokens]
    return [n / sum(counts) for n in counts] if all(counts) else [1 / len(curves)] * len(curves)
