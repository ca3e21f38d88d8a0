"""Image files → a Clip. In: paths in order, and a frame rate. Out: frames k/fps seconds apart.

Only headers are read at opening; each image is decoded when its frame is asked for. Knows no video format; what a
picture file is, and what is refused, is `stills`' knowledge, the order of a folder's is `order`'s.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topreward.errors import VideoError
from topreward.limits import hold, hold_fps
from topreward.types import Clip
from topreward.video import stills
from topreward.video.order import in_order
from topreward.video.pixels import empty_frames
from topreward.video.stills import Shape

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

OTHER_SUFFIXES = frozenset(
    {
        ".gif",
        ".apng",
        ".avif",
        ".heic",
        ".heif",
        ".jp2",
        ".jxl",
        ".jfif",
        ".pbm",
        ".pnm",
        ".pfm",
        ".pam",
        ".tga",
        ".exr",
    }
    | {".hdr", ".dng", ".psd", ".ico", ".svg", ".pdf", ".eps"}
)
"""Pictures that are not read: among those that are, each would be a frame that is missing."""


@dataclass(frozen=True)
class ImageFrames:
    """`Clip.decode` over image files; pickles as its list of paths."""

    paths: tuple[Path, ...]
    shape: Shape
    """Of every picture, its EXIF orientation included."""

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        out = empty_frames(len(indices), self.shape.height, self.shape.width)
        for slot, index in enumerate(indices):
            path = self.paths[int(index)]
            pixels, shape = stills.pixels(path, str(path))
            if shape != self.shape:
                raise VideoError(
                    f"{path}: is {shape} now, turned by EXIF {shape.orientation}, was {self.shape} when opened"
                )
            out[slot] = pixels
        return out


def read_images(sources: Sequence[str | os.PathLike[str]], fps: float, *, source: str | None = None) -> Clip:
    """A clip of image files, in the order given, `fps` frames/s.

    Grey, palette and RGBA images become RGB (alpha is dropped); an EXIF orientation that all share is applied. Raises
    VideoError for no images or too many, a missing or broken one, sizes or orientations that differ, several pictures
    in a file, or more than 8 bits a channel.
    """
    if len(sources) == 0:
        raise VideoError("list of images: empty, want at least one image file")
    hold("max_frames", len(sources), source or "list of images", error=VideoError)
    hold_fps(fps, source or "list of images", error=VideoError)
    for item in sources:
        if not isinstance(item, (str, os.PathLike)):
            raise VideoError(f"list of images: holds a {type(item).__name__}, want paths of image files")
    paths = tuple(stills.absolute(Path(item)) for item in sources)
    first = stills.shape(paths[0], str(paths[0]))
    for path in paths[1:]:
        shape = stills.shape(path, str(path))
        if shape.orientation != first.orientation:
            raise VideoError(
                f"{path}: its EXIF orientation is {shape.orientation}, that of {paths[0].name} {first.orientation}; "
                "a camera that was turned on the way makes no clip"
            )
        if shape != first:
            raise VideoError(f"{path}: is {shape}, but {paths[0].name} is {first}")
    return Clip(
        pts_seconds=np.arange(len(paths)) / fps,
        fps=fps,
        height=first.height,
        width=first.width,
        decode=ImageFrames(paths, first),
        source=source if source is not None else f"{paths[0].name} … ({len(paths)} images)",
    )


def read_folder(folder: Path, fps: float) -> Clip:
    """A clip of all image files in a folder (not below it), in the order of the numbers in their names.

    Hidden files and what is no picture are left out. Raises VideoError for a folder with no images, with names of which
    nobody can say the order (`order`), or with images of several kinds, read or not: is `0.png` or `0.jpg` the frame?
    """
    try:
        listed = [p for p in folder.iterdir() if not p.name.startswith(".")]
    except OSError as error:
        raise VideoError(f"{folder}: cannot be read ({error.strerror or error})") from error
    found = [p for p in listed if p.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise VideoError(f"{folder}: a folder with no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    hold("max_frames", len(found), str(folder), error=VideoError)
    kinds = {p.suffix.lower().replace(".jpeg", ".jpg").replace(".tiff", ".tif") for p in found}
    kinds |= {suffix for p in listed if (suffix := p.suffix.lower()) in OTHER_SUFFIXES}
    if len(kinds) > 1:
        raise VideoError(f"{folder}: images of several kinds ({', '.join(sorted(kinds))}); give a list of files")
    names = in_order(folder, (path.name for path in found))
    return read_images([folder / name for name in names], fps, source=str(folder))
