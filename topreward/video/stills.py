"""A stranger's picture file → RGB as displayed, or a VideoError. The one place where pictures are opened.

In: a path or the bytes of one picture. Out: its size, its turn, its pixels. Only the six formats below are tried,
whatever the name says: given all it knows, Pillow hands PostScript to Ghostscript, and others to whatever is
installed. A file that holds several pictures is refused (which one is the frame?), except JPEG's MPO form, whose
first picture is the picture and the rest previews or gain maps. So is more than 8 bits a channel, judged by what is
stored: Pillow opens 16-bit colour as 8-bit and drops the low byte. Knows nothing of clips.
"""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topreward.errors import MemoryLimitError, TopRewardError, VideoError
from topreward.limits import hold
from topreward.video import still_bytes
from topreward.video.pixels import check_size

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
"""Pillow's names."""
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
"""Pillow's pixel modes that hold 8 bits a channel and become RGB."""

_ORIENTATION, _BITS, _SAMPLE_FORMAT = 0x0112, 258, 339
"""Tags of EXIF and TIFF."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_LONGEST = 300
"""Characters of a path in a message."""


class Shape(NamedTuple):
    """What a picture's header says."""

    height: int
    """px, as displayed."""
    width: int
    """px, as displayed."""
    orientation: int
    """EXIF's, 1 (upright) to 8; already applied in height and width."""

    def __str__(self) -> str:
        return f"{self.height}x{self.width} px"


def regular_file(path: Path, what: str = "image file") -> int:
    """The size in bytes of a file that may be opened. Raises VideoError for anything but a regular, non-empty file:
    a named pipe would be waited for, for ever, and a device never ends."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise VideoError(f"{path}: no such {what}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        shown = str(path) if len(str(path)) <= _LONGEST else f"…{str(path)[-_LONGEST:]}"
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise VideoError(f"{shown!a}: cannot be opened ({reason})") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise VideoError(f"{path}: {kind}, want {'an' if what[0] in 'aeiou' else 'a'} {what}")
    if status.st_size == 0:
        raise VideoError(f"{path}: empty {what} (0 bytes)")
    return status.st_size


def absolute(path: Path) -> Path:
    """The path from the root on. Raises VideoError where the folder that it starts from is gone."""
    try:
        return path.absolute()
    except OSError as error:
        raise VideoError(f"{path}: the working folder is gone ({error.strerror or error})") from error


def shape(source: Path | bytes, name: str) -> Shape:
    """A picture's shape, from its header. Raises VideoError, its message opening with `name`."""
    with _complaints(f"{name}: not an image that can be read"), _file(source) as file:
        image = _open(file, name)
        return _shape(image, _orientation(image, file), name)


def several(path: Path) -> str | None:
    """What a file of several pictures is, in words; None for one picture, and for what is none."""
    try:
        shape(path, "it")
    except _SeveralError as error:
        return error.kind
    except VideoError:
        pass  # whatever else is wrong with it
    return None


class _SeveralError(VideoError):
    """A file holds several pictures."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(f"{name}: {kind}; write its pictures one a file, or as a video")
        self.kind = kind


def pixels(source: Path | bytes, name: str) -> tuple[NDArray[np.uint8], Shape]:
    """((H, W, 3) uint8 RGB as displayed, its shape) of a picture. Alpha is dropped; palettes and grey become colour.

    Raises VideoError, its message opening with `name`, and MemoryLimitError.
    """
    with _complaints(f"{name}: not an image that can be read"), _file(source, whole=name) as file:
        image = _open(file, name)
        turn = _orientation(image, file)
        found = _shape(image, turn, name)
        if (damage := still_bytes.damage(file)) is not None:
            raise VideoError(f"{name}: corrupt or truncated image ({damage})")
        with _complaints(f"{name}: corrupt or truncated image"):
            image.load()
            # A TIFF is turned by Pillow as it is loaded, which takes the tag away.
            left = image.tag_v2.get(_ORIENTATION, 1) if image.format == "TIFF" else turn
            rgb = image.convert("RGB")
            out = np.asarray(rgb.transpose(_TURNS[left]) if left in _TURNS else rgb)
    if out.shape != (found.height, found.width, 3):
        raise VideoError(f"{name}: its pixels are {out.shape[0]}x{out.shape[1]} px, its header says {found}")
    return out, found


@contextmanager
def _complaints(opening: str) -> Iterator[None]:
    """Pillow's plugins raise whatever their reading of a broken file runs into: all of it is the file's fault."""
    try:
        with warnings.catch_warnings():
            # The size is held to our own limits before a pixel is decoded; damage that only warns is looked for.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\b")
            yield
    except TopRewardError:
        raise
    except MemoryError as error:
        raise MemoryLimitError(f"{opening} (no room for it in memory)") from error
    except Exception as error:
        raise VideoError(f"{opening} ({_one_line(error)})") from error


@contextmanager
def _file(source: Path | bytes, *, whole: str | None = None) -> Iterator[BinaryIO]:
    """The open file; all of it in memory where `whole` (a name for messages) is given."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    size = regular_file(source)
    try:
        opened = source.open("rb")
    except OSError as error:
        raise VideoError(f"{source}: cannot be opened ({error.strerror or error})") from error
    with opened as file:
        if whole is None:
            yield file
        else:
            hold("max_array_bytes", size, whole, error=VideoError)
            yield io.BytesIO(file.read())


def _open(file: BinaryIO, name: str) -> Any:
    """Pillow's image, not loaded; refused where it is too large, deep or several."""
    head = still_bytes.head(file)
    if head.kind not in FORMATS:
        raise VideoError(f"{name}: not an image that can be read ({head.kind}; want {', '.join(FORMATS)})")
    if head.size is not None:  # a WebP's canvas is taken as it is opened
        check_size(name, *head.size)
    if head.several is not None:
        raise _SeveralError(name, head.several)
    file.seek(0)
    image = Image.open(file, formats=(head.kind,))
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise _SeveralError(name, f"a {image.format} of several pictures")
    if (depth := _depth(image)) is not None:
        raise VideoError(f"{name}: has more than 8 bits a channel ({depth}); scale it to 8 bits first")
    if image.mode not in _MODES:
        raise VideoError(f"{name}: has the pixel mode {image.mode}, want 8-bit colour or grey")
    return image


def _depth(image: Any) -> str | None:
    """How a picture's samples are stored, in words, where they are not 8 bits or less, whole and unsigned."""
    if image.mode.startswith(("I", "F")):
        return f"mode {image.mode}"
    tags = getattr(image, "tag_v2", {})
    if max(bits := tags.get(_BITS, (1,))) > 8:
        return f"{max(bits)} bits"
    if not set(tags.get(_SAMPLE_FORMAT, (1,))) <= {1, 4}:  # unsigned, or undefined
        return f"sample format {tags[_SAMPLE_FORMAT]}"
    for tile in image.tile:
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        for value in arguments:
            # "RGB;16B" is Pillow's name of a layout; PPM states its largest value
            if isinstance(value, str) and ";16" in value:
                return "16 bits"
            if tile[0].startswith("ppm") and isinstance(value, int) and value > 255:
                return f"levels up to {value}"
    return None


def _shape(image: Any, turn: int, name: str) -> Shape:
    # Pillow gives a TIFF's size as turned, depending on its version; the tags give it as stored.
    tags = getattr(image, "tag_v2", {})
    width, height = (tags[256], tags[257]) if image.format == "TIFF" else image.size
    check_size(name, height, width)
    return Shape(width, height, turn) if turn >= 5 else Shape(height, width, turn)


def _orientation(image: Any, file: BinaryIO) -> int:
    """EXIF orientation, 1 (upright) to 8, out of the file's header."""
    # Not image.getexif(): for a PNG that decodes the whole image, to look for a chunk behind the pixels.
    exif = Image.Image.getexif(image)
    if image.format == "PNG" and _ORIENTATION not in exif and (late := still_bytes.late_exif(file)) is not None:
        exif = Image.Exif()
        exif.load(late)
    value = exif.get(_ORIENTATION, 1)
    return int(value) if value in _TURNS else 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
