"""`hdf5:<file or folder>`: demonstrations in the robomimic layout, which LIBERO and RoboCasa share.

In: files with `data/demo_<i>/obs/<camera>` (T, H, W, 3) uint8. Out: a Source. Pixels are read from disk by
index when a clip asks for them. What stands where in a file is `hdf5_layout`'s knowledge.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from topreward.datasets import hdf5_layout as layout
from topreward.datasets.clips import side_by_side
from topreward.datasets.paths import file_under, kind_of, user_path
from topreward.datasets.source import choose_cameras
from topreward.errors import DatasetError, VideoError
from topreward.limits import hold, hold_fps
from topreward.types import Clip, Episode
from topreward.video.pixels import check_size

DEFAULT_FPS = 20.0  # robosuite's control frequency, at which robomimic and LIBERO record
_SUFFIXES = (".hdf5", ".h5")


@dataclass(frozen=True)
class Demo:
    """One demonstration: a group of a file."""

    file: Path
    group: str
    """Name below `data/`, e.g. `demo_0`."""
    id: str

    @property
    def name(self) -> str:
        return f"{self.file}, data/{self.group}"


@dataclass(frozen=True)
class Hdf5Source:
    """The demonstrations of one file, or of all files of a folder."""

    uri: str
    demos: Sequence[Demo]
    cameras: tuple[str, ...]
    """Those of the first demonstration."""
    chosen: tuple[str, ...]
    """The same for every demonstration: one that lacks a camera is an error, not shown from elsewhere."""
    fps: float | None
    flip_vertical: bool
    instruction: str | None
    instruction_attribute: str | None
    revision: None = None

    @property
    def ids(self) -> list[str]:
        return [demo.id for demo in self.demos]

    def has_instruction(self, position: int) -> bool:
        return True  # or `episode` raises, naming the attributes there are

    def episode(self, position: int) -> Episode:
        demo = self.demos[position]

        def describe(group: h5py.Group) -> Episode:
            shapes = layout.image_shapes(group)
            cameras = _choose(self.chosen, group, list(shapes), where=demo.name)
            lengths = [shapes[camera][0] for camera in cameras]
            if len(set(lengths)) != 1 or 0 in lengths:
                counts = ", ".join(f"{camera} {length}" for camera, length in zip(cameras, lengths, strict=True))
                raise DatasetError(f"{demo.name}: want at least one frame and as many of each camera, got {counts}")
            fps = self.fps or layout.control_frequency(group) or DEFAULT_FPS
            return Episode(
                id=demo.id,
                instruction=self.instruction or layout.instruction(group, self.instruction_attribute),
                load=DemoLoader(demo, cameras, fps, self.flip_vertical),
                camera="+".join(cameras),
                extra={"dataset_uri": self.uri, "episode_index": position, "length": lengths[0], "fps": fps},
            )

        return layout.with_demo(demo.file, demo.group, describe)


@dataclass(frozen=True)
class DemoLoader:
    """Opens one demonstration when called. Can be pickled, so that another process may call it."""

    demo: Demo
    cameras: tuple[str, ...]
    fps: float
    flip_vertical: bool

    def __call__(self) -> Clip:
        def look(group: h5py.Group) -> dict[str, tuple[int, int, int]]:
            for camera in self.cameras:
                layout.check_storage(group, camera)
            return layout.image_shapes(group)

        shapes = layout.with_demo(self.demo.file, self.demo.group, look)
        return side_by_side([self._view(camera, shapes.get(camera)) for camera in self.cameras], source=self.demo.name)

    def _view(self, camera: str, shape: tuple[int, int, int] | None) -> Clip:
        if shape is None:
            raise VideoError(f"{self.demo.name}: the camera {camera} is gone")
        count, height, width = shape
        check_size(f"{self.demo.name}/obs/{camera}", height, width)
        return Clip(
            pts_seconds=np.arange(count) / self.fps,
            fps=self.fps,
            height=height,
            width=width,
            decode=_Frames(self.demo, camera, self.flip_vertical),
            source=f"{self.demo.name}/obs/{camera}",
        )


@dataclass(frozen=True)
class _Frames:
    """`Clip.decode` of one camera of a demonstration."""

    demo: Demo
    camera: str
    flip_vertical: bool

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        def read(group: h5py.Group) -> NDArray[np.uint8]:
            return layout.read_frames(group, self.camera, indices)

        frames = layout.with_demo(self.demo.file, self.demo.group, read)
        return np.ascontiguousarray(frames[:, ::-1]) if self.flip_vertical else frames


def open_hdf5(
    location: str,
    *,
    camera: str | Sequence[str] | None = None,
    fps: float | None = None,
    flip_vertical: bool = False,
    instruction: str | None = None,
    instruction_attribute: str | None = None,
) -> Hdf5Source:
    """List the demonstrations of a file, or of every .hdf5 and .h5 file below a folder, in the order of their names.

    `fps`: frames/s; None takes the `control_freq` of the file's `env_args`, or 20 where it says nothing.
    `flip_vertical`: turn every frame upside down; LIBERO's own files store the bottom row first.
    `instruction_attribute`: see `hdf5_layout.instruction`. `instruction` replaces whatever the file says.
    """
    if not location:
        raise DatasetError("hdf5: names no dataset, want hdf5:<file> or hdf5:<folder>")
    if fps is not None:
        hold_fps(fps, "hdf5: fps", error=DatasetError)
    path, where = user_path(location, where="hdf5:"), f"hdf5:{location}"
    kind = kind_of(path, where=where)
    if kind == "file":
        files = {path.stem: path}
    elif kind == "folder":
        files = _files_below(path)
    elif kind == "other":
        raise DatasetError(f"{where}: not a regular file")
    else:
        raise DatasetError(f"hdf5: there is no file or folder {location!r}")
    demos = [Demo(file, group, f"{name}/{group}") for name, file in files.items() for group in layout.demo_names(file)]
    hold("max_episodes", len(demos), where, error=DatasetError)
    if not demos:
        raise DatasetError(f"{location}: there are no demonstrations (groups data/demo_0, … in .hdf5 files)")

    def look(group: h5py.Group) -> tuple[tuple[str, ...], tuple[str, ...]]:
        cameras = tuple(layout.image_shapes(group))
        return cameras, _choose(camera, group, cameras, where=f"hdf5:{location}")

    cameras, chosen = layout.with_demo(demos[0].file, demos[0].group, look)
    return Hdf5Source(
        uri=f"hdf5:{location}",
        demos=demos,
        cameras=cameras,
        chosen=chosen,
        fps=fps,
        flip_vertical=flip_vertical,
        instruction=instruction,
        instruction_attribute=instruction_attribute,
    )


def _choose(
    wanted: str | Sequence[str] | None, group: h5py.Group, available: Sequence[str], *, where: str
) -> tuple[str, ...]:
    """The cameras; where one is there but holds no pictures, the error says what it holds."""
    for name in [wanted] if isinstance(wanted, str) else wanted or ():
        if name not in available and (why := layout.why_no_pictures(group, name)):
            raise DatasetError(f"{where}: camera {name!r} holds no pictures: {why}")
    return choose_cameras(wanted, available, where=where)


def _files_below(folder: Path) -> dict[str, Path]:
    """HDF5 files by their path within the folder, without the suffix."""
    files: dict[str, Path] = {}
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DatasetError(f"hdf5:{folder}: no permission to read the folder")
    for file in sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES):
        if kind_of(file, where=str(file)) == "folder":
            continue
        relative = file.relative_to(folder)
        file_under(folder, relative.as_posix(), where=str(folder))
        name = relative.with_suffix("").as_posix()
        if name in files:
            raise DatasetError(f"{folder}: {relative} and {files[name].name} differ only in their suffix")
        files[name] = file
    return files
