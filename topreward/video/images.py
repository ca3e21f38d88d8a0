"""Image files → a Clip. In: paths in order, and a frame rate. Out: frames k/fps seconds apart.

Only headers are read at opening; each image is decoded when its frame is asked for. Knows no video format.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topreward.errors import VideoError
from topreward.types import Clip
from topreward.video.pixels import check_size, empty_frames

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

# More than 8 bits a channel: PIL would clip these to 255 instead of scaling them.
_DEEP_MODES = ("I", "F")
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageFrames:
    """`Clip.decode` over image files; pickles as its list of paths."""

    paths: tuple[Path, ...]
    height: int
    width: int

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        out = empty_frames(len(indices), self.height, self.width)
        for slot, index in enumerate(indices):
            out[slot] = self._read(self.paths[int(index)])
        return out

    def _read(self, path: Path) -> NDArray[np.uint8]:
        try:
            with _open(path) as image:
                turn = _TURNS.get(_orientation(image))
                rgb = image.convert("RGB")
                pixels = np.asarray(rgb if turn is None else rgb.transpose(turn))
        except (OSError, SyntaxError, ValueError) as error:  # PIL raises all three on broken files
            raise VideoError(f"{path}: corrupt or truncated image ({_one_line(error)})") from error
        if pixels.shape[:2] != (self.height, self.width):
            raise VideoError(
                f"{path}: is {pixels.shape[0]}x{pixels.shape[1]} px now, was {self.height}x{self.width} when opened"
            )
        return pixels


def read_images(sources: Sequence[str | os.PathLike[str]], fps: float, *, source: str | None = None) -> Clip:
    """A clip of image files, in the order given, `fps` frames/s.

    Grey, palette and RGBA images become RGB (alpha is dropped); EXIF orientation is applied. Raises
    VideoError for no images, a missing or broken one, sizes that differ, or more than 8 bits a channel.
    """
    if len(sources) == 0:
        raise VideoError("list of images: empty, want at least one image file")
    for item in sources:
        if not isinstance(item, (str, os.PathLike)):
            raise VideoError(f"list of images: holds a {type(item).__name__}, want paths of image files")
    paths = tuple(Path(item).absolute() for item in sources)
    height, width = _displayed_size(paths[0])
    for path in paths[1:]:
        if (size := _displayed_size(path)) != (height, width):
            raise VideoError(f"{path}: is {size[0]}x{size[1]} px, but {paths[0].name} is {height}x{width} px")
    return Clip(
        pts_seconds=np.arange(len(paths)) / fps,
        fps=fps,
        height=height,
        width=width,
        decode=ImageFrames(paths, height, width),
        source=source if source is not None else f"{paths[0].name} … ({len(paths)} images)",
    )


def read_folder(folder: Path, fps: float) -> Clip:
    """A clip of all image files in a folder (not below it), in natural order.

    Hidden files and other kinds of file are left out. Raises VideoError for a folder with no images, or with
    images of several kinds: which of `0.png` and `0.jpg` is the frame, nobody can say.
    """
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not found:
        raise VideoError(f"{folder}: a folder with no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    kinds = {p.suffix.lower().replace(".jpeg", ".jpg").replace(".tiff", ".tif") for p in found}
    if len(kinds) > 1:
        raise VideoError(f"{folder}: images of several kinds ({', '.join(sorted(kinds))}); give a list of files")
    found.sort(key=_natural)
    return read_images(found, fps, source=str(folder))


def _natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: runs of digits compare as numbers, so that frame 2 comes before frame 10."""
    runs = re.findall(r"\d+|\D+", path.stem.lower(), flags=re.ASCII)
    return [(0, int(run), "") if run.isascii() and run.isdigit() else (1, 0, run) for run in runs], path.name


def _displayed_size(path: Path) -> tuple[int, int]:
    """(height, width) in px after EXIF rotation, from the header."""
    if not path.is_file():
        raise VideoError(f"{path}: no such image file")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: empty image file (0 bytes)")
    try:
        with _open(path) as image:
            width, height = image.size
            mode = image.mode
            transposed = _orientation(image) >= 5
    except (OSError, SyntaxError, ValueError) as error:
        raise VideoError(f"{path}: not an image that can be read ({_one_line(error)})") from error
    check_size(str(path), height, width)
    if mode.startswith(_DEEP_MODES):
        raise VideoError(f"{path}: has more than 8 bits a channel (mode {mode}); scale it to 8 bits first")
    return (width, height) if transposed else (height, width)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8, out of the file's header."""
    # Not image.getexif(): for a PNG that decodes the whole image, to look for a chunk behind the pixels.
    return int(Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1))


def _open(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        # Our own limit on the size is checked before any pixel is decoded.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(path)
        except Image.DecompressionBombError as error:
            raise VideoError(f"{path}: image too large ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
