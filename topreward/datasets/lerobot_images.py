"""Cameras whose pictures lie in LeRobot's parquet files: a column of struct{bytes, path} → a Clip.

In: a data file, a column, the row of the episode's first frame. Out: a Clip that reads the row groups its frames lie
in. Knows nothing of episodes and tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from topreward.datasets.messages import one_line
from topreward.datasets.roots import Root
from topreward.datasets.tables import PARQUET_ERRORS, image_batch_rows
from topreward.errors import DatasetError, VideoError
from topreward.limits import hold
from topreward.types import Clip
from topreward.video import stills
from topreward.video.pixels import empty_frames
from topreward.video.stills import Shape

# LeRobot's own tolerance for time stamps, s. They are stored as float32, which rounds them by a few microseconds.
TIMESTAMP_TOLERANCE = 1e-4

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

    def decode(self, indices: NDArray[np.int64], first: Shape) -> NDArray[np.uint8]:
        """(N,) increasing frame indices → (N, H, W, 3) uint8 RGB, each of the shape of the first frame."""
        out = empty_frames(len(indices), first.height, first.width)
        for slot, (frame, encoded) in enumerate(zip(indices, self._encoded(indices), strict=True)):
            pixels, shape = stills.pixels(encoded, f"{self.source}: frame {frame}")
            if shape.orientation != first.orientation:
                raise VideoError(
                    f"{self.source}: frame {frame} has the EXIF orientation {shape.orientation}, frame 0 has "
                    f"{first.orientation}"
                )
            if shape != first:
                raise VideoError(f"{self.source}: frame {frame} is {shape}, frame 0 {first}")
            out[slot] = pixels
        return out

    def first_shape(self) -> Shape:
        """The shape of frame 0, whose pixels are read too."""
        return stills.pixels(self._encoded([0])[0], f"{self.source}: frame 0")[1]

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
        rows = image_batch_rows(file, self.key, _BATCH, f"{self.source}, {self.file}")
        for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=[self.key]):
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
            file = self.root.file(path)
            hold("max_array_bytes", stills.regular_file(file), file, error=VideoError)
            return file.read_bytes()
        except (DatasetError, OSError) as error:
            raise VideoError(f"{self.source}: frame {frame}: {one_line(error)}") from error


@dataclass(frozen=True)
class _Frames:
    """`Clip.decode` of an image column."""

    column: ImageColumn
    shape: Shape

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.column.decode(indices, self.shape)


def image_clip(column: ImageColumn, seconds: NDArray[np.float64], *, fps: float) -> Clip:
    """The images as a clip. `seconds`: (T,) time of every frame, increasing."""
    shape = column.first_shape()
    since_start = seconds - seconds[0]
    nominal = np.arange(seconds.size) / fps
    if np.abs(since_start - nominal).max() <= TIMESTAMP_TOLERANCE:
        since_start = nominal  # undoes the float32 rounding: frame / fps is what was meant
    return Clip(
        pts_seconds=since_start,
        fps=fps,
        height=shape.height,
        width=shape.width,
        decode=_Frames(column, shape),
        source=column.source,
    )
