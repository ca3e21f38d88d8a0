"""Frames of a video file by decord, for those who need its very pixels. In: a path. Out: a Clip.

decord 0.6.0 returns wrong frames, without a word, from files with an edit list, from transport streams, and
by random access from HEVC, MPEG-4 and any open group of pictures; it turns, but does not mirror. So the
container is indexed with PyAV as for `backend="pyav"`, and the file is refused unless it is of a kind on
which decord was exact, and decord agrees with PyAV on the number, times and size of the frames and on the
look of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topreward.errors import VideoError
from topreward.types import Clip
from topreward.video.index import Index
from topreward.video.pyav import PyAVFrames, read_pyav

_ADVICE = "use backend='pyav'"
_CONTAINERS = ("mp4", "matroska")
_CODECS = ("h264", "vp8", "vp9")
_SAME_PICTURE = 1.0
"""Mean difference in levels of 255 up to which two decoders show one picture; both convert as swscale does."""


@dataclass(frozen=True)
class DecordFrames:
    """`Clip.decode` through decord; opens the file on each call, as decord's readers cannot be pickled."""

    path: str
    name: str

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        with _reader(self.path, self.name) as reader:
            batch = reader.get_batch(indices.tolist())
            # A program that set decord's bridge to another library gets that library's tensors.
            return np.asarray(batch.asnumpy() if hasattr(batch, "asnumpy") else batch)


def read_decord(path: Path) -> Clip:
    """Open a video file. Raises VideoError as `read_pyav` does, and where decord is missing, fails or disagrees."""
    clip = read_pyav(path)
    assert isinstance(clip.decode, PyAVFrames)
    _check_kind(clip.source, clip.decode.index)
    frames = DecordFrames(clip.decode.path, clip.source)
    with _reader(frames.path, frames.name) as reader:
        count = len(reader)
        times = np.asarray(reader.get_frame_timestamp(range(count)), dtype=np.float64)[:, 0]
    if count != clip.num_frames:
        raise VideoError(f"{clip.source}: decord finds {count} frames, the file has {clip.num_frames}; {_ADVICE}")
    error = np.abs(times - times[0] - clip.pts_seconds).max()
    if error > 0.5 * np.diff(clip.pts_seconds, append=clip.duration_seconds).min():
        raise VideoError(f"{clip.source}: decord is up to {error:.3g} s off the file's frame times; {_ADVICE}")
    ours, theirs = clip.frames([0])[0], frames(np.array([0]))[0]
    if ours.shape != theirs.shape or np.abs(ours.astype(np.int16) - theirs).mean() > _SAME_PICTURE:
        raise VideoError(f"{clip.source}: decord shows another first frame (turned, mirrored or coloured); {_ADVICE}")
    return replace(clip, decode=frames)


def _check_kind(name: str, index: Index) -> None:
    if index.hidden:
        raise VideoError(f"{name}: an edit list hides {index.hidden} frames, which decord gets wrong; {_ADVICE}")
    exact = any(kind in index.container for kind in _CONTAINERS) and index.codec in _CODECS and index.closed_gops
    if not exact:
        gops = "closed" if index.closed_gops else "open"
        raise VideoError(
            f"{name}: decord fails on, or gets wrong, {index.codec} in {index.container.split(',')[0]} with {gops} "
            f"groups of pictures; {_ADVICE}"
        )


@contextmanager
def _reader(path: str, name: str) -> Iterator[Any]:
    try:
        import decord
    except (ImportError, OSError) as error:  # OSError: its shared library does not load
        raise VideoError(f"{name}: decord cannot be imported ({_one_line(error)}); {_ADVICE}") from error
    try:
        yield decord.VideoReader(path, ctx=decord.cpu(0))
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise VideoError(f"{name}: decord {decord.__version__} failed ({_one_line(error)}); {_ADVICE}") from error


def _one_line(error: Exception) -> str:
    """decord's message without the C++ source line in front and the stack trace behind."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].rsplit("ERROR ", 1)[-1].strip()
