"""The three things that travel: a Clip goes in with an Episode, a Curve comes out.

Pure numpy. This room knows no video format, no model and no dataset; it holds shapes and units together.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topreward.errors import CurveError, DatasetError, VideoError
from topreward.files import expand, json_text, read_text, write_atomically
from topreward.limits import hold, hold_fps
from topreward.rewards import progress

Unit = Literal["nats", "percent", "probability"]

UNITS: tuple[str, ...] = ("nats", "percent", "probability")
CURVE_FORMAT = 1

KEPT = {
    "instruction": "text",
    "prefix_lengths": "counts",
    "times": "numbers",
    "values": "numbers",
    "unit": "text",
    "num_frames": "count",
    "log_prob_true": "numbers?",
    "log_prob_false": "numbers?",
    "episode_id": "text?",
    "notes": "texts?",
    "provenance": "mapping?",
}
"""What a kept curve holds, for `expect`."""
KEPT_PROVENANCE = {"protocol": "mapping", "tokens": "tally"}
"""Of what made it, as far as numbers are computed from it."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A video that knows its frames' times and its size; pixels are decoded only when asked for.

    Made by `topreward.read_video` (files, lists of image files) or `Clip.from_array`. Raises VideoError
    when the fields contradict each other.
    """

    pts_seconds: NDArray[np.float64]
    """(T,) presentation time of every frame, s, strictly increasing; the first frame is at 0."""
    fps: float
    """Nominal frame rate, frames/s, > 0. What a container or a dataset claims; `pts_seconds` is the truth."""
    height: int
    """px, as displayed (rotation applied)."""
    width: int
    """px, as displayed (rotation applied)."""
    decode: Callable[[NDArray[np.int64]], NDArray[np.uint8]]
    """Strictly increasing frame indices (N,) → (N, height, width, 3) uint8 RGB. Use `frames` instead."""
    source: str = "array"
    """Where it came from, for messages and provenance."""
    notes: tuple[str, ...] = ()
    """What a careful reader of its curves must know about the frames, a sentence each; every curve carries them."""

    def __post_init__(self) -> None:
        pts = np.array(self.pts_seconds, dtype=np.float64)
        if pts.ndim != 1 or pts.size == 0:
            raise VideoError(f"{self.source}: pts_seconds has shape {pts.shape}, want (T,) with T >= 1")
        if not np.isfinite(pts).all() or pts[0] != 0 or not (np.diff(pts) > 0).all():
            raise VideoError(f"{self.source}: frame times must be finite, start at 0 and increase strictly")
        hold("max_frames", pts.size, self.source, error=VideoError)
        hold_fps(self.fps, f"{self.source}: fps", error=VideoError)
        if pts.size > 1:  # a time that was made up costs memory wherever the clip is sampled by time
            hold_fps((pts.size - 1) / pts[-1], f"{self.source}: frames on average", error=VideoError)
        if self.height < 1 or self.width < 1:
            raise VideoError(f"{self.source}: frames are {self.height}x{self.width} px, want at least 1x1")
        pts.setflags(write=False)
        object.__setattr__(self, "pts_seconds", pts)
        object.__setattr__(self, "notes", tuple(self.notes))

    @property
    def num_frames(self) -> int:
        """T, the number of raw frames."""
        return int(self.pts_seconds.size)

    @property
    def duration_seconds(self) -> float:
        """Time of the last frame plus one nominal frame, s."""
        return float(self.pts_seconds[-1]) + 1.0 / self.fps

    def frames(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """Decode some frames.

        `indices`: (N,) integers in [0, T), in any order, repeats allowed. Returns (N, height, width, 3)
        uint8 RGB in that order. Raises VideoError for an index outside the clip, or when decoding fails.
        """
        wanted = np.atleast_1d(np.asarray(indices))
        if wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.integer):
            raise VideoError(f"{self.source}: indices must be (N,) integers, got {wanted.dtype} {wanted.shape}")
        if wanted.size == 0:
            return np.empty((0, self.height, self.width, 3), dtype=np.uint8)
        if wanted.min() < 0 or wanted.max() >= self.num_frames:
            raise VideoError(
                f"{self.source}: frames {wanted.min()}..{wanted.max()} asked for, the clip has 0..{self.num_frames - 1}"
            )
        unique, inverse = np.unique(wanted.astype(np.int64), return_inverse=True)
        pixels = self.decode(unique)
        expected = (unique.size, self.height, self.width, 3)
        if pixels.shape != expected or pixels.dtype != np.uint8:
            raise VideoError(f"{self.source}: decoder returned {pixels.dtype} {pixels.shape}, want uint8 {expected}")
        return pixels if unique.size == wanted.size and (np.diff(wanted) > 0).all() else pixels[inverse]

    @classmethod
    def from_array(cls, frames: ArrayLike, fps: float, *, source: str = "array") -> Clip:
        """A clip of frames that are already in memory.

        `frames`: (T, H, W, 3) uint8 RGB. `fps`: frames/s. Raises VideoError on any other shape or dtype.
        """
        pixels = np.asarray(frames)
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise VideoError(f"{source}: frames are {pixels.dtype} {pixels.shape}, want uint8 (T, H, W, 3)")
        hold_fps(fps, f"{source}: fps", error=VideoError)
        return cls(
            pts_seconds=np.arange(pixels.shape[0]) / float(fps),
            fps=float(fps),
            height=pixels.shape[1],
            width=pixels.shape[2],
            decode=partial(_pick, pixels),
            source=source,
        )

    def __repr__(self) -> str:
        return (
            f"Clip({self.source!r}, {self.num_frames} frames, {self.height}x{self.width} px, "
            f"{self.fps:.5g} fps, {self.duration_seconds:.2f} s)"
        )


@dataclass(frozen=True, eq=False)
class Episode:
    """One robot episode: a video that may be loaded, and what is said and known about it."""

    id: str
    """Unique within its dataset."""
    instruction: str
    """The task, as told to the robot."""
    load: Callable[[], Clip] = field(repr=False)
    """Opens the clip; nothing is decoded before this is called."""
    success: bool | None = None
    """Did the robot complete the task? None where nobody said."""
    camera: str | None = None
    split: str | None = None
    progress: NDArray[np.float64] | None = field(default=None, repr=False)
    """(T,) true progress in [0, 1] per raw frame, where it is known."""
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Whatever else the dataset knows, e.g. `episode_index` and `dataset_from_index` of LeRobot."""

    def __post_init__(self) -> None:
        for name in ("id", "instruction"):
            text = getattr(self, name)
            if not isinstance(text, str):
                raise DatasetError(f"an episode's {name} is a {type(text).__name__}, want a text")
            hold("max_instruction", len(text), f"episode {self.id[:99]!a}: its {name}", error=DatasetError)
        if not self.id:
            raise DatasetError("an episode needs a non-empty id")
        if not self.instruction.strip():
            raise DatasetError(f"episode {self.id}: the instruction is empty")
        for name in ("id", "instruction"):
            if not is_encodable(text := getattr(self, name)):
                raise DatasetError(f"episode {self.id!a}: the {name} {text!a} holds what is no character")

    def clip(self) -> Clip:
        """Open the episode's video. Raises VideoError where that fails."""
        return self.load()


@dataclass(frozen=True, eq=False)
class Curve:
    """One value per prefix of a video, and how it was made.

    K prefixes in increasing length. NaN marks a value that is undefined (an answer that failed to parse,
    say); it is never replaced by a number. Raises CurveError when the arrays do not fit together.
    """

    instruction: str
    prefix_lengths: NDArray[np.int64]
    """(K,) raw frames in each prefix, strictly increasing, in [1, num_frames]."""
    times: NDArray[np.float64]
    """(K,) presentation time of each prefix's last raw frame, s."""
    values: NDArray[np.float64]
    """(K,) what the estimator read, in `unit`. For TOPReward log p(True | prefix)."""
    unit: Unit
    num_frames: int
    """T, raw frames of the whole clip."""
    log_prob_true: NDArray[np.float64] | None = None
    """(K,) nats, for methods that read logits."""
    log_prob_false: NDArray[np.float64] | None = None
    """(K,) nats, for methods that read logits."""
    episode_id: str | None = None
    notes: tuple[str, ...] = ()
    """What a careful reader must know about this curve, a sentence each."""
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """How it was made: model, revision, protocol, prompt layout, kernels, versions. JSON-serialisable."""

    def __post_init__(self) -> None:
        if not isinstance(self.instruction, str) or not is_encodable(self.instruction):
            raise CurveError(f"instruction is {_short(self.instruction)}, want a text")
        if not isinstance(self.episode_id, str | None):
            raise CurveError(f"episode_id is {_short(self.episode_id)}, want a text or None")
        if not isinstance(self.num_frames, int | np.integer) or isinstance(self.num_frames, bool):
            raise CurveError(f"num_frames is {_short(self.num_frames)}, want an integer")
        hold("max_frames", self.num_frames, "num_frames", error=CurveError)  # a value for each is made of it
        lengths = np.asarray(self.prefix_lengths)
        if lengths.ndim != 1 or lengths.size == 0 or not np.issubdtype(lengths.dtype, np.integer):
            raise CurveError(f"prefix_lengths is {lengths.dtype} {lengths.shape}, want (K,) integers with K >= 1")
        lengths = np.array(lengths, dtype=np.int64)
        if not (np.diff(lengths) > 0).all() or lengths[0] < 1 or lengths[-1] > self.num_frames:
            raise CurveError(f"prefix_lengths must increase strictly within [1, {self.num_frames}], got {lengths}")
        if self.unit not in UNITS:
            raise CurveError(f"unit is {_short(self.unit)}, want one of {', '.join(UNITS)}")
        object.__setattr__(self, "num_frames", int(self.num_frames))
        object.__setattr__(self, "prefix_lengths", _frozen(lengths))
        for name in ("times", "values", "log_prob_true", "log_prob_false"):
            value = getattr(self, name)
            if value is None and name.startswith("log_prob"):
                continue
            try:
                array = np.array(value, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise CurveError(f"{name} is {_short(value)}, want {lengths.shape} numbers") from error
            if array.shape != lengths.shape:
                raise CurveError(f"{name} has shape {array.shape}, want {lengths.shape} like prefix_lengths")
            object.__setattr__(self, name, _frozen(array))
        if not np.isfinite(self.times).all() or self.times[0] < 0 or not (np.diff(self.times) > 0).all():
            raise CurveError(f"times must be finite, 0 or more and increase strictly, got {self.times} s")
        notes: Any = self.notes
        if not isinstance(notes, list | tuple) or not all(isinstance(note, str) for note in notes):
            raise CurveError(f"notes is {_short(notes)}, want texts")
        object.__setattr__(self, "notes", tuple(self.notes))
        if not isinstance(self.provenance, Mapping):
            raise CurveError(f"provenance is {_short(self.provenance)}, want a mapping")

    def __len__(self) -> int:
        return int(self.prefix_lengths.size)

    def progress(self, *, constant: Literal["nan", "ones"] | None = None) -> NDArray[np.float64]:
        """(K,) min-max normalised values in [0, 1]; see `topreward.rewards.progress`.

        `constant`: what a constant curve gives; by default what its protocol says, else NaN.
        """
        if constant is None:
            constant = self.provenance.get("protocol", {}).get("constant_progress", "nan")
        return progress(self.values, constant=constant)

    def to_frames(
        self, values: ArrayLike | None = None, *, interpolation: Literal["linear", "previous"] = "linear"
    ) -> NDArray[np.float64]:
        """Spread the curve over every raw frame of the clip.

        `values`: (K,) to spread instead of `self.values`, e.g. `curve.progress()`. A prefix of n frames
        speaks for frame n-1; frames before the first prefix take its value, frames after the last one the
        last one's. In between: `linear` in frame index, or `previous` (hold: causal, no look-ahead).
        Returns (num_frames,) float64; NaN values stay NaN around their frame.
        """
        spread = self.values if values is None else np.asarray(values, dtype=np.float64)
        if spread.shape != self.values.shape:
            raise CurveError(f"values has shape {spread.shape}, want {self.values.shape}")
        frames = np.arange(self.num_frames)
        anchors = self.prefix_lengths - 1
        if interpolation == "linear":
            return np.interp(frames, anchors, spread)
        if interpolation == "previous":
            return spread[np.maximum(np.searchsorted(anchors, frames, side="right") - 1, 0)]
        raise CurveError(f"interpolation is {interpolation!r}, want 'linear' or 'previous'")

    def with_values(self, values: ArrayLike, unit: Unit, **changes: Any) -> Curve:
        """The same prefixes with other values, e.g. log-odds."""
        return replace(self, values=np.asarray(values, dtype=np.float64), unit=unit, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Lists, numbers and strings. NaN becomes None, infinities "inf" and "-inf": any JSON reader takes them."""
        out: dict[str, Any] = {"format": CURVE_FORMAT}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray):
                value = [_spelled(x) for x in value.tolist()]
            elif f.name == "provenance":
                value = dict(value)
            elif f.name == "notes":
                value = list(value)
            out[f.name] = value
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Curve:
        """The inverse of `to_dict`. Raises CurveError on an unknown format, missing keys, and what is no number.

        None is NaN, where a value may be undefined: earlier versions wrote it for infinities too.
        """
        if data.get("format") != CURVE_FORMAT or isinstance(data.get("format"), bool):
            raise CurveError(f"curve format is {_short(data.get('format'))}, this version reads {CURVE_FORMAT}")
        known = {f.name for f in fields(cls)}
        missing = {"instruction", "prefix_lengths", "times", "values", "unit", "num_frames"} - set(data)
        if missing:
            raise CurveError(f"curve lacks {', '.join(sorted(missing))}")
        kwargs = {k: v for k, v in data.items() if k in known and (v is not None or k not in ("notes", "provenance"))}
        expect(kwargs, KEPT, "a curve")
        expect(kwargs.get("provenance", {}), KEPT_PROVENANCE, "a curve's provenance")
        for name in ("times", "values", "log_prob_true", "log_prob_false"):
            if kwargs.get(name) is not None:
                kwargs[name] = np.array([_read(x) for x in kwargs[name]], dtype=np.float64)
        try:
            return cls(**kwargs)
        except OverflowError as error:
            raise CurveError(f"prefix_lengths: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON: to a temporary name first, then renamed, so that a killed run leaves no half file."""
        write_atomically(path, json_text(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Curve:
        """Read what `save` wrote. Raises CurveError, naming the file, where it is not a curve."""
        where = os.fspath(path)
        text = read_text(expand(path, error=CurveError), error=CurveError, name=where)
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CurveError(f"{where}: not a curve ({' '.join(str(error).split())})") from error
        if not isinstance(data, dict):
            raise CurveError(f"{where}: not a curve (holds a {type(data).__name__})")
        try:
            return cls.from_dict(data)
        except CurveError as error:
            raise CurveError(f"{where}: not a curve ({error})") from error

    def __repr__(self) -> str:
        low, high = (
            (np.nan, np.nan) if np.isnan(self.values).all() else (np.nanmin(self.values), np.nanmax(self.values))
        )
        return (
            f"Curve({self.instruction!r}, {len(self)} prefixes of {self.num_frames} frames, "
            f"{low:.4g} .. {high:.4g} {self.unit})"
        )


def expect(data: Mapping[str, Any], kinds: Mapping[str, str], what: str) -> None:
    """Raise CurveError where what was read from JSON is not of its kind: numpy would take "1" or true for 1.

    `kinds`: a word of `_KINDS` for each key; with `?` behind it null will do, too. Keys that are not there are not
    missed. `what`: whose keys they are, for the message.
    """
    for key, kind in kinds.items():
        if key not in data or (data[key] is None and kind.endswith("?")):
            continue
        if not _KINDS[kind.removesuffix("?")](data[key]):
            shown = repr(data[key])
            shown = shown if len(shown) <= 60 else f"{shown[:59]}…"
            raise CurveError(f"{what}'s {key} is {shown}, want {_WANTED[kind.removesuffix('?')]}")


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _every(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple | np.ndarray) and all(holds(item) for item in value)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "texts": lambda value: _every(value, lambda item: isinstance(item, str)),
    "flag": lambda value: isinstance(value, bool),
    "count": _is_count,
    "counts": lambda value: _every(value, _is_count),
    "number": _is_number,
    "numbers": lambda value: _every(value, lambda item: item in (None, "inf", "-inf") or _is_number(item)),
    "mapping": lambda value: isinstance(value, Mapping),
    "mappings": lambda value: _every(value, lambda item: isinstance(item, Mapping)),
    "tally": lambda value: isinstance(value, Mapping) and all(map(_is_number, value.values())),
}
_WANTED = {
    "text": "a text",
    "texts": "a list of texts",
    "flag": "true or false",
    "count": "a whole number",
    "counts": "a list of whole numbers",
    "number": "a number",
    "numbers": "a list of numbers, nulls, 'inf' and '-inf'",
    "mapping": "a mapping",
    "mappings": "a list of mappings",
    "tally": "a mapping to numbers",
}


def _pick(pixels: NDArray[np.uint8], indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    # Not a lambda: clips travel to worker processes.
    return pixels[indices]


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


def _spelled(number: float) -> float | str | None:
    """A number as JSON can hold it."""
    if isinstance(number, float) and not math.isfinite(number):
        return None if math.isnan(number) else f"{number}"
    return number


def _read(spelled: float | str | None) -> float:
    """The inverse of `_spelled`."""
    return math.nan if spelled is None else float(spelled)


def _short(value: Any) -> str:
    """What it is, in few words, whatever it is."""
    return reprlib.Repr().repr(value)


def is_encodable(text: str) -> bool:
    """Whether it can be written as UTF-8: lone surrogates, from odd file names, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
