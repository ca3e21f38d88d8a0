"""A video, in whatever form it comes, → a Clip that decodes frames when they are asked for.

In: the path of a video file, image files, a folder of image files, or an array. Out: a `Clip` whose frame
`i` is exactly the i-th frame that playing the file from its start would show. This room knows nothing of
sampling, models or datasets.

A wrong frame is worse than no frame, so the backend was chosen by measurement. decord 0.6.0, the usual
choice, cannot decode AV1 (what LeRobot records by default), and returns wrong frames, without a word, from
files with an edit list (what `ffmpeg -ss … -c copy` writes). PyAV, reading all presentation times from the
container first (no decoding) and then decoding forward from the keyframe before each wanted frame, was
exact on every file tried, for no more CPU time. So `auto` means `pyav`; `decord` is there by name, and only for
files on which it agrees with the container.

    index.py    the container's packets → which frames are shown, when, and where decoding may start
    matroska.py is a Matroska file whole? (it states no number of frames)
    chains.py   the same for GIF, APNG, y4m, IVF and AVI
    pyav.py     index + wanted frames → pixels, or an error; never another frame
    pixels.py   a decoded frame → RGB as displayed: colour matrix, range, rotation
    images.py   image files → Clip
    stills.py   one picture file → RGB, the only place where one is opened
    still_bytes.py  what a picture's bytes say beside Pillow: kind, several pictures, cut short
    order.py    names of pictures in a folder → their order
    decord.py   the same through decord
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from topreward.errors import VideoError, nearest
from topreward.limits import hold, hold_fps
from topreward.types import Clip
from topreward.video.images import IMAGE_SUFFIXES, read_folder, read_images
from topreward.video.stills import regular_file, several

Backend = Literal["auto", "pyav", "decord"]
BACKENDS: tuple[str, ...] = ("auto", "pyav", "decord")
Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | NDArray[Any]

__all__ = ["BACKENDS", "Backend", "Source", "read_video"]


def read_video(source: Source, *, backend: str = "auto", fps: float | None = None) -> Clip:
    """Open a video; nothing but its first frame is decoded before frames are asked for.

    `source`: a video file (path); a list or tuple of image files, in order; a folder of image files, in
    the order of the numbers in their names (`2.png` before `10.png`, `0.05.png` before `0.4.png`); or a (T, H, W, 3)
    uint8 RGB array. `backend` says who decodes video files: `auto` (= `pyav`), `pyav` or `decord`. `fps` (frames/s) is
    required for images and arrays, and refused for video files, which carry their own times.

    Raises VideoError, one line with the file and the cause, for whatever cannot be read whole and exactly.
    """
    if backend not in BACKENDS:
        raise VideoError(f"backend is {backend!r}, want one of {', '.join(BACKENDS)}{nearest(str(backend), BACKENDS)}")
    if isinstance(source, np.ndarray):
        hold("max_frames", len(source) if source.ndim else 1, "array", error=VideoError)
        return Clip.from_array(source, _required(fps, "array"))
    if isinstance(source, (list, tuple)):
        return read_images(source, _required(fps, "list of images"))
    if not isinstance(source, (str, os.PathLike)):
        raise VideoError(f"source is a {type(source).__name__}, want a path, a list of image paths or a uint8 array")
    return _read_path(Path(source), backend, fps)


def _read_path(path: Path, backend: str, fps: float | None) -> Clip:
    if os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises where a folder above may not be entered)
        return read_folder(path, _required(fps, str(path)))
    regular_file(path, "file")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        if (kind := several(path)) is not None:
            raise VideoError(f"{path}: {kind}; write its pictures one a file, or as a video")
        raise VideoError(f"{path}: a single image; give a list of image files, or a folder of them, with fps")
    if fps is not None:
        raise VideoError(
            f"{path}: fps={fps} given, but a video file has its own frame times (fps is for images, arrays)"
        )
    if backend == "decord":
        from topreward.video.decord import read_decord

        return read_decord(path)
    from topreward.video.pyav import read_pyav

    return read_pyav(path)


def _required(fps: float | None, what: str) -> float:
    if fps is None:
        raise VideoError(f"{what}: fps is required, for there are no frame times")
    if not (isinstance(fps, (int, float, np.number)) and np.isfinite(fps) and fps > 0):
        raise VideoError(f"{what}: fps is {fps!r}, want a positive number")
    hold_fps(float(fps), f"{what}: fps", error=VideoError)
    return float(fps)
