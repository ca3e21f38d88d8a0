"""A decoded frame → RGB pixels as displayed. In: one `av.VideoFrame`. Out: (H, W, 3) uint8.

Colour: the matrix and the range that the stream states; where it states none, BT.601 and limited range,
which is what swscale, decord and OpenCV assume. The arithmetic is swscale's default, so that a model sees
here, level for level, what PyAV, decord and LeRobot's own readers show it. (Interpolated chroma would be
finer, and 1 to 2 levels away from what others trained on.) Light is not mapped: an HDR video looks flat.
Rotation and mirroring by the display matrix are applied; non-square pixels are not stretched.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from topreward.errors import MemoryLimitError, VideoError
from topreward.limits import hold, limit

MAX_SIDE = 16384
"""px; larger frames are refused before memory is taken (FFmpeg would go to 2^31 bytes a plane)."""

# swscale's flag bits (libswscale/swscale.h): bilinear, its default, and nothing else.
_SWS_FLAGS = 0x2

# FFmpeg's AVColorSpace (0 RGB, 1 BT.709, 2 unspecified, 4 FCC, 5 and 6 BT.601, 7 SMPTE 240M, 9 BT.2020) →
# swscale's matrix. 6 rather than 5 for BT.601: PyAV < 17 takes 5 for "as before".
_BT601, _BT709 = 6, 1
_MATRICES = {0: _BT601, 1: _BT709, 2: _BT601, 4: 4, 5: _BT601, 6: _BT601, 7: 7, 9: 9}
_LIMITED, _FULL = 1, 2


def most_pixels() -> int:
    """Height times width of the largest frame that may be decoded."""
    return min(MAX_SIDE * MAX_SIDE, int(limit("max_picture_pixels")))


def check_size(name: str, height: int, width: int) -> None:
    """Raise VideoError unless the size is one that a frame can have."""
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise VideoError(f"{name}: frames are {height}x{width} px, want 1x1 to {MAX_SIDE}x{MAX_SIDE}")
    hold("max_picture_pixels", height * width, f"{name}: frames of {height}x{width} px", error=VideoError)


def empty_frames(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """(count, height, width, 3) uint8, unfilled. Raises MemoryLimitError where that is too much."""
    hold(
        "max_array_bytes", count * height * width * 3, f"{count} frames of {height}x{width} px", error=MemoryLimitError
    )
    try:
        return np.empty((count, height, width, 3), dtype=np.uint8)
    except MemoryError as error:
        gigabytes = count * height * width * 3 / 1e9
        raise MemoryLimitError(
            f"{count} frames of {height}x{width} px take {gigabytes:.1f} GB; ask for fewer at once"
        ) from error


class Turn(NamedTuple):
    """How a decoded picture is turned to be displayed: first transposed, then mirrored."""

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A view of (H, W, 3) pixels as displayed."""
        pixels = pixels.transpose(1, 0, 2) if self.transposed else pixels
        return pixels[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]


class RGB:
    """Converts the frames of one video; keeps swscale's context between frames.

    `turn`: how all of its frames are turned, as `turn_of` says of the first. A codec can turn a single picture (the
    display orientation message of H.264 and HEVC); a video in which that changes is refused.
    """

    def __init__(self, name: str, turn: Turn) -> None:
        self._name = name
        self._turn = turn
        self._swscale = VideoReformatter()

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB as displayed; a view where that saves a copy. Raises VideoError for formats or
        matrices that swscale does not convert."""
        matrix = _MATRICES.get(int(frame.colorspace))
        if matrix is None:
            raise VideoError(f"{self._name}: its colour matrix (number {int(frame.colorspace)}) is not supported")
        full = int(frame.color_range) == _FULL or frame.format.name.startswith("yuvj")
        try:
            rgb = self._swscale.reformat(
                frame,
                format="rgb24",
                interpolation=_SWS_FLAGS,
                src_colorspace=matrix,
                # RGB has no matrix; a value that differs from the source's makes PyAV < 17 set the source's.
                dst_colorspace=_BT709 if matrix != _BT709 else _BT601,
                src_color_range=_FULL if full else _LIMITED,
                dst_color_range=_FULL,
            )
        except (av.FFmpegError, ValueError) as error:
            raise VideoError(f"{self._name}: its pixel format {frame.format.name} cannot be made RGB") from error
        pixels: NDArray[np.uint8] = np.asarray(rgb.to_ndarray(), dtype=np.uint8)
        turn = turn_of(frame, self._name)
        if turn != self._turn:
            raise VideoError(f"{self._name}: its orientation changes on the way, from {self._turn} to {turn}")
        return turn(pixels)


def turn_of(frame: Any, name: str) -> Turn:
    """How a frame's display matrix turns it.

    The matrix: 9 integers a b u, c d v, x y w as in ISO/IEC 14496-12, mapping (x, y) to (ax + cy, bx + dy).
    All eight turns and mirrorings are exact; any other matrix (a turn by 30 degrees) is a VideoError.
    """
    matrix = _display_matrix(frame)
    if matrix is None:
        return Turn()
    a, b, _, c, d = matrix[:5]
    if b == c == 0 and a != 0 and d != 0:
        return Turn(False, d < 0, a < 0)
    if a == d == 0 and b != 0 and c != 0:
        return Turn(True, b < 0, c < 0)
    raise VideoError(f"{name}: its display matrix {[a, b, c, d]} is not a turn by a multiple of 90 degrees")


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    for entry in frame.side_data:
        if entry.type.name == "DISPLAYMATRIX":
            return struct.unpack("=9i", bytes(entry)[:36])
    return None
