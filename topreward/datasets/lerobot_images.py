"""Cameras whose pictures lie in LeRobot's parquet files: a column of struct{bytes, path} → a Clip.

In: a data file, a column, the row of the episode's first frame. Out: a Clip that reads the row groups its frames lie
in. Knows nothing of episodes and tasks.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageOps

from topreward.datasets.messages import one_line
from topreward.datasets.roots import Root
from topreward.datasets.tables import PARQUET_ERRORS
from topreward.errors import DatasetError, VideoError
from topreward.types import Clip
from topreward.video.pixels import check_size, empty_frames

# LeRobot's own tolerance for time stamps, s. They are stored as float32, which rounds them by a few microseconds.
TIMESTAMP_TOLERANCE = 1e-4

_MODES = ("RGB", "L", "P", "RGBA", "LA", "1")
_BATCH = 32
"""Rows decompressed at once: some tens of encoded images."""


@dataclass(frozen=True)
class ImageColumn:
    """One camera's images in a data file, PNG or JPEG, one a row."""

    root: Root
    file: str
    """Path within the dataset."""
    key: str
    """The column's name."""
    first_row: int
    """Row of the episode's first frame."""
    source: str
    """For messages."""

    def decode(self, indices: NDArray[np.int64], height: int, width: int) -> NDArray[np.uint8]:
        """(N,) increasing frame indices → (N, height, width, 3) uint8 RGB."""
        out = empty_frames(len(indices), height, width)
        for slot, (frame, encoded) in enumerate(zip(indices, self._encoded(indices), strict=True)):
            pixels = _decoded(encoded, f"{self.source}: frame {frame}")
            if pixels.shape != out.shape[1:]:
                size = f"{pixels.shape[0]}x{pixels.shape[1]}"
                raise VideoError(f"{self.source}: frame {frame} is {size} px, frame 0 {height}x{width} px")
            out[slot] = pixels
        return out

    def first_size(self) -> tuple[int, int]:
        """(height, width) of frame 0, px."""
        pixels = _decoded(self._encoded([0])[0], f"{self.source}: frame 0")
        return pixels.shape[0], pixels.shape[1]

    def _encoded(self, indices: Sequence[int] | NDArray[np.int64]) -> list[bytes]:
        """The image files of some frames (increasing)."""
        wanted = [self.first_row + int(index) for index in indices]
        path = self.root.file(self.file)
        found: list[bytes] = []
        try:
            file = pq.ParquetFile(path)
            kind = file.schema_arrow.field(self.key).type if self.key in file.schema_arrow.names else None
            if kind is None or not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
                raise DatasetError(f"{self.source}, {self.file}: the column is {kind}, want struct<bytes, path>")
            start = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if any(start <= row < start + rows for row in wanted):
                    found.extend(self._in_group(file, group, start, wanted))
                start += rows
        except (DatasetError, VideoError):  # which are ValueErrors too
            raise
        except PARQUET_ERRORS as error:
            raise VideoError(f"{self.source}: {self.file} cannot be read ({one_line(error)})") from error
        return found

    def _in_group(self, file: pq.ParquetFile, group: int, start: int, wanted: Sequence[int]) -> list[bytes]:
        found: list[bytes] = []
        for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group], columns=[self.key]):
            column = batch.column(0)
            here = [row - start for row in wanted if start <= row < start + len(batch)]
            found.extend(self._bytes_of(column[row].as_py(), row + start - self.first_row) for row in here)
            start += len(batch)
        return found

    def _bytes_of(self, value: Mapping[str, Any] | None, frame: int) -> bytes:
        content = (value or {}).get("bytes")
        if isinstance(content, bytes):
            return content
        path = (value or {}).get("path")
        if not isinstance(path, str):
            raise VideoError(f"{self.source}: frame {frame} has neither image bytes nor a path")
        try:
            return self.root.file(path).read_bytes()
        except (DatasetError, OSError) as error:
            raise VideoError(f"{self.source}: frame {frame}: {one_line(error)}") from error


@dataclass(frozen=True)
class _Frames:
    """`Clip.decode` of an image column."""

    column: ImageColumn
    height: int
    width: int

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.column.decode(indices, self.height, self.width)


def image_clip(column: ImageColumn, seconds: NDArray[np.float64], *, fps: float) -> Clip:
    """The images as a clip. `seconds`: (T,) time of every frame, increasing."""
    height, width = column.first_size()
    since_start = seconds - seconds[0]
    nominal = np.arange(seconds.size) / fps
    if np.abs(since_start - nominal).max() <= TIMESTAMP_TOLERANCE:
        since_start = nominal  # undoes the float32 rounding: frame / fps is what was meant
    return Clip(
        pts_seconds=since_start,
        fps=fps,
        height=height,
        width=width,
        decode=_Frames(column, height, width),
        source=column.source,
    )


def _decoded(encoded: bytes, name: str) -> NDArray[np.uint8]:
    """One image file → (H, W, 3) uint8 RGB, turned as its EXIF says."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_size has its own limit
            image = Image.open(io.BytesIO(encoded))
        with image:
            check_size(name, image.height, image.width)
            if image.mode not in _MODES:
                raise VideoError(f"{name} has the pixel mode {image.mode}, want 8-bit colour or grey")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except VideoError:  # which is a ValueError too
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{name} is no image that can be read ({one_line(error)})") from error
