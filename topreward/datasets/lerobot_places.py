"""Episodes that share one video file: where each one lies in it, held against the others and against the file.

In: start, length and file of every episode, as the metadata tell them; later the file's true number of frames. Out: a
VideoPart per episode, and an error or a note about it. Opens no file. Some releases of LeRobot cut shared files by
float times, or name the wrong file for an episode: the lengths all agree, and another episode's frames are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from topreward.errors import DatasetError, VideoError

# Frames. Places that share a frame do so by a whole one; between 0 and 1 there is only jitter of the times.
_OVERLAP = 0.501
# A cut by float times leaves one or two frames too many on either side; anything longer is a run of its own, such as a
# take that was discarded.
_LEFTOVER = 2


@dataclass(frozen=True)
class Shared:
    """What the metadata place in one video file."""

    episodes: int
    """That lie in it."""
    frames: int
    """Of all of them together, those counted once that several claim."""
    last: float
    """Where the last one ends, in frames from the file's start."""
    leftover: int
    """Frames that lie singly or in pairs before or between episodes, in no episode."""


@dataclass(frozen=True)
class VideoPart:
    """Where an episode's frames begin in a video file."""

    file: str
    """Path within the dataset."""
    from_seconds: float
    """Time of the episode's first frame in that file, s. 0 where the file holds one episode (v2)."""
    until_seconds: float
    """Where the next episode begins, s; infinite for the last one of the file."""
    overlaps: int | None
    """Another episode that claims some of the same frames."""
    shared: Shared


def alone(file: str, length: int, *, also: int | None = None) -> VideoPart:
    """The part of an episode that has a file of its own. `also`: an episode that names the same file."""
    return VideoPart(file, 0.0, np.inf, also, Shared(1, length, length, 0))


@dataclass(frozen=True)
class Places:
    """All episodes of one camera of a dataset."""

    until: NDArray[np.float64]
    """(E,) where the next episode in the same file begins, s; NaN for one whose place is not known."""
    overlaps: NDArray[np.int64]
    """(E,) another episode in the same place, -1 for none."""
    shared: Mapping[str, Shared]
    """By file."""

    def part(self, episode: int, file: str, from_seconds: float) -> VideoPart:
        other = int(self.overlaps[episode])
        return VideoPart(
            file, from_seconds, float(self.until[episode]), None if other < 0 else other, self.shared[file]
        )


def find_places(
    files: Sequence[str | None], starts: NDArray[np.float64], lengths: NDArray[np.float64], fps: float
) -> Places:
    """`files`, `starts` (s), `lengths` (frames): (E,) by episode; None and NaN where the metadata make no sense.

    Those are left out: they are errors of their own, and nobody else's.
    """
    until, overlaps = np.full(len(files), np.nan), np.full(len(files), -1, dtype=np.int64)
    begins = starts * fps
    members: dict[str, list[int]] = {}
    for episode in np.flatnonzero(np.isfinite(begins) & (lengths > 0)).tolist():
        if (file := files[episode]) is not None:
            members.setdefault(file, []).append(episode)
    shared = {}
    for file, within in members.items():
        order = sorted(within, key=lambda episode: (begins[episode], episode))
        frames, leftover, end, latest = 0.0, 0, 0.0, -1
        for episode in order:
            begin, stop = float(begins[episode]), float(begins[episode] + lengths[episode])
            if latest >= 0 and end - begin > _OVERLAP:
                overlaps[episode] = latest
                overlaps[latest] = episode if overlaps[latest] < 0 else overlaps[latest]
            if 0 < round(begin - end) <= _LEFTOVER:
                leftover += round(begin - end)
            frames += max(0.0, stop - max(begin, end))
            if stop > end:
                end, latest = stop, episode
        for episode, following in pairwise(order):
            until[episode] = starts[following]
        until[order[-1]] = np.inf
        # Jitter of the times must not add up to frames; a hundred thousand episodes have a lot of it.
        exact = int(sum(lengths[episode] for episode in order)) if (overlaps[order] < 0).all() else round(frames)
        shared[file] = Shared(len(order), exact, end, leftover)
    return Places(until, overlaps, shared)


def hold_apart(part: VideoPart, source: str) -> None:
    """Raise DatasetError where another episode claims frames of this place."""
    if part.overlaps is not None:
        raise DatasetError(
            f"{source}: its place in {part.file}, from {part.from_seconds:.4f} s on, overlaps that of episode "
            f"{part.overlaps}; frames of one would be shown as the other's"
        )


def hold_to_file(part: VideoPart, last_seconds: float, num_frames: int, *, fps: float, source: str) -> tuple[str, ...]:
    """Hold a place against its file: nothing, or a note.

    `last_seconds`: time in the file of the episode's last frame. `num_frames`: of the whole file, counted. Raises
    VideoError where the episode runs into the next one, or the file holds fewer frames than its episodes have.
    """
    if last_seconds > part.until_seconds - 0.499 / fps:
        raise VideoError(
            f"{source}: its last frame is at {last_seconds:.4f} s of {part.file}, where the next episode begins "
            f"({part.until_seconds:.4f} s)"
        )
    shared = part.shared
    if num_frames < shared.frames:
        raise VideoError(
            f"{source}: {part.file} holds {num_frames} frames, its {_episodes(shared)} {shared.frames}; some tools "
            "drop frames where they cut, so any of them may show a neighbour's"
        )
    behind = round(num_frames - shared.last)
    if shared.episodes == 1 and behind > _LEFTOVER:
        return (
            f"{part.file} holds {behind} frames more than its one episode has: a take that was discarded, or the film "
            "of another episode",
        )
    surplus = shared.leftover + (behind if 0 < behind <= _LEFTOVER * shared.episodes else 0)
    if not surplus:
        return ()
    count = f"{surplus} {'frame' if surplus == 1 else 'frames'}"
    return (
        f"{part.file} holds {count} more than its {_episodes(shared)}, as some tools leave where they cut; if they lie "
        "between episodes, a curve may be of frames one or two off",
    )


def _episodes(shared: Shared) -> str:
    return "episode has" if shared.episodes == 1 else f"{shared.episodes} episodes have"
