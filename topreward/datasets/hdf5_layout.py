"""What stands where in a robomimic, LIBERO or RoboCasa file.

In: a file, a demonstration's name. Out: camera shapes, instruction, control frequency, pixels. Each call opens
the file and closes it. Follows no soft or external link, and no storage in another file. Knows nothing of episodes.
"""

from __future__ import annotations

import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from topreward.datasets.messages import one_line, short
from topreward.datasets.paths import readable_file
from topreward.errors import DatasetError, TopRewardError, VideoError
from topreward.limits import hold, hold_fps
from topreward.video.pixels import empty_frames

T = TypeVar("T")

_BAND = 256 * 2**20
"""Bytes of decompressed pictures that are read in one piece, and most that are kept for the next call."""


def demo_names(file: Path) -> list[str]:
    """The groups below `data/`, by number: demo_2 comes before demo_10."""
    with _opened(file) as opened:
        data = _child(opened, "data", f"{file}")
        if not isinstance(data, h5py.Group):
            raise DatasetError(f"{file}: there is no group 'data', want the robomimic layout (data/demo_0/obs/…)")
        hold("max_episodes", len(data), f"{file}: its groups", error=DatasetError)
        names = [name for name in data if _is_link(data, name) or data.get(name, getclass=True) is h5py.Group]
        return sorted(names, key=lambda name: [int(s) if s.isdigit() else s for s in re.split(r"([0-9]+)", name)])


def with_demo(file: Path, group: str, use: Callable[[h5py.Group], T]) -> T:
    """Open a demonstration for the time of one call. Raises DatasetError where it is not there."""
    where = f"{file}, data/{group}"
    with _opened(file) as opened:
        demo = _child(_child(opened, "data", where), group, where)
        if not isinstance(demo, h5py.Group):
            raise DatasetError(f"{where}: there is no such group")
        return use(demo)


def image_shapes(demo: h5py.Group) -> dict[str, tuple[int, int, int]]:
    """(frames, height, width) of every array of pictures below `obs/`, by name."""
    where = f"{demo.file.filename}, {demo.name.lstrip('/')}"
    observations = _child(demo, "obs", where)
    if not isinstance(observations, h5py.Group):
        raise DatasetError(f"{where}: there is no group 'obs'")
    shapes: dict[str, tuple[int, int, int]] = {}
    for name in observations:
        array = _child(observations, name, where)
        if isinstance(array, h5py.Dataset) and array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] == 3:
            # a claim that costs nothing to write and much memory to believe
            hold("max_frames", array.shape[0], f"{where}/obs/{name}", error=DatasetError)
            shapes[name] = (int(array.shape[0]), int(array.shape[1]), int(array.shape[2]))
    if not shapes:
        raise DatasetError(
            f"{where}/obs: holds {one_line(', '.join(observations) or 'nothing')}, but no (T, H, W, 3) uint8 pictures"
        )
    return shapes


def why_no_pictures(demo: h5py.Group, name: str) -> str | None:
    """What an array below `obs/` is, where it is there and holds no pictures."""
    where = f"{demo.file.filename}, {demo.name.lstrip('/')}"
    array = _child(_child(demo, "obs", where), name, where)
    if not isinstance(array, h5py.Dataset):
        return None
    return f"obs/{name} is {array.dtype} {array.shape}, want uint8 (T, H, W, 3)"


def read_frames(demo: h5py.Group, camera: str, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(N,) increasing indices → (N, H, W, 3) uint8, reading no other frame than these (and their chunks, once each)."""
    where = f"{demo.file.filename}, {demo.name.lstrip('/')}/obs/{camera}"
    array = _child(_child(demo, "obs", where), camera, where)
    check_storage(demo, camera)
    out = empty_frames(len(indices), *array.shape[1:3])
    try:
        depth = array.chunks[0] if array.chunks else 1
        starts = np.flatnonzero(np.diff(indices // depth, prepend=-1))
        for first, stop in zip(starts, [*starts[1:], len(indices)], strict=True):
            _read_band(array, indices[first:stop], depth, out[first:stop])
    except (OSError, RuntimeError, TypeError, ValueError, IndexError) as error:
        raise VideoError(f"{where}: frames cannot be read ({one_line(error)})") from error
    return out


def check_storage(demo: h5py.Group, camera: str) -> None:
    """Raise VideoError where reading one frame would take more than the limits allow, however few are asked for."""
    where = f"{demo.file.filename}, {demo.name.lstrip('/')}/obs/{camera}"
    array = _child(_child(demo, "obs", where), camera, where)
    if not isinstance(array, h5py.Dataset):
        raise VideoError(f"{where}: the camera is gone")
    if array.chunks:
        hold("max_array_bytes", math.prod(array.chunks), f"{where}: a chunk, decoded", error=VideoError)
    plan = array.id.get_create_plist()
    filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
    if len(set(filters)) < len(filters):  # a few bytes could unfold again and again
        raise VideoError(f"{where}: its chunks are compressed several times over")


def _read_band(array: h5py.Dataset, indices: NDArray[np.int64], depth: int, out: NDArray[np.uint8]) -> None:
    """Frames that lie in one row of chunks, each chunk decompressed once. `out`: (N, H, W, 3)."""
    first, last = int(indices[0]), int(indices[-1])
    frame = math.prod(array.shape[1:])
    if depth == 1:
        out[0] = array[first]
        return
    band = first // depth
    whole = min((band + 1) * depth, array.shape[0]) - band * depth
    if whole * frame <= _BAND:
        out[:] = _kept_band(array, band, depth)[indices - band * depth]
    elif (last + 1 - first) * frame <= _BAND:
        out[:] = array[first : last + 1][indices - first]
    else:  # chunk by chunk, so that no more than one is unfolded at a time
        _, high, wide, deep = array.chunks
        for top in range(0, array.shape[1], high):
            for left in range(0, array.shape[2], wide):
                for colour in range(0, array.shape[3], deep):
                    part = np.s_[top : top + high, left : left + wide, colour : colour + deep]
                    out[(slice(None), *part)] = array[(slice(first, last + 1), *part)][indices - first]


_kept: OrderedDict[tuple[Any, ...], NDArray[np.uint8]] = OrderedDict()


def _kept_band(array: h5py.Dataset, band: int, depth: int) -> NDArray[np.uint8]:
    """A whole row of chunks, kept for the calls that ask for its other frames: at most `_BAND` bytes of them."""
    state = Path(array.file.filename).stat()
    key = (array.file.filename, state.st_mtime_ns, state.st_size, array.name, band)
    if (block := _kept.pop(key, None)) is None:
        block = array[band * depth : (band + 1) * depth]
    _kept[key] = block
    while sum(kept.nbytes for kept in _kept.values()) > _BAND and len(_kept) > 1:
        _kept.popitem(last=False)
    return block


# -- instruction and frame rate --------------------------------------------------------------------------------


def instruction(demo: h5py.Group, attribute: str | None) -> str:
    """What the file says the robot was told.

    `attribute`: an HDF5 attribute of the demonstration, of `data` or of the file, the first that has it;
    `name.key` reads a key of a JSON text. None looks where LIBERO (`problem_info.language_instruction`) and
    RoboCasa (`ep_meta.lang`) keep it. Raises DatasetError where there is none.
    """
    where = f"{demo.file.filename}, {demo.name.lstrip('/')}"
    candidates = ("problem_info.language_instruction", "ep_meta.lang") if attribute is None else (attribute,)
    for candidate in candidates:
        value = _attribute(demo, candidate, where)
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = "".join(value)  # some LIBERO files hold the text letter by letter
        if isinstance(value, str) and (text := value.strip().strip('"').strip()):
            hold("max_instruction", len(text), f"{where}: the attribute {candidate}", error=DatasetError)
            return text
        if value is not None:
            raise DatasetError(f"{where}: the attribute {candidate} is {short(value)}, want a text")
    names = sorted({name for place in (demo, demo.parent, demo.file) for name in place.attrs})[:40]
    looked = " and ".join(candidates)
    raise DatasetError(
        f"{where}: no instruction in {looked}; the attributes are {', '.join(names) or 'none'}: "
        "name one with instruction_attribute=, or give instruction="
    )


def control_frequency(demo: h5py.Group) -> float | None:
    """`env_args.env_kwargs.control_freq` in Hz, None where the file does not say."""
    value = _attribute(demo, "env_args.env_kwargs.control_freq", demo.file.filename)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise DatasetError(
            f"{demo.file.filename}: env_args gives a control_freq of {short(value)}; say otherwise with fps="
        )
    hold_fps(value, f"{demo.file.filename}: control_freq of env_args", error=DatasetError)
    return float(value)


def _attribute(demo: h5py.Group, name: str, where: str) -> Any:
    """An attribute by its whole name, else by `name.key.key` into a JSON text; None where it is absent."""
    first, *keys = name.split(".")
    for place in (demo, demo.parent, demo.file):
        if name in place.attrs:
            return _plain(_read_attribute(place, name, where))
        if keys and first in place.attrs:
            value = _plain(_read_attribute(place, first, where))
            try:
                value = json.loads(value) if isinstance(value, str) else value
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{where}: the attribute {first} is not JSON ({one_line(error)})") from error
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            return value
    return None


def _read_attribute(place: Any, name: str, where: str) -> Any:
    """Its value; a text may stand in it letter by letter, but no more letters than an instruction may have."""
    handle = h5py.h5a.open(place.id, name.encode())
    hold(
        "max_instruction",
        handle.get_space().get_simple_extent_npoints(),
        f"{where}: values of {name}",
        error=DatasetError,
    )
    if handle.get_space().get_simple_extent_npoints():  # h5py takes a size of 0 for an error
        hold("max_text_bytes", handle.get_storage_size(), f"{where}: the attribute {name}", error=DatasetError)
    value = place.attrs[name]
    if isinstance(value, str | bytes):
        hold("max_text_bytes", len(value), f"{where}: the attribute {name}", error=DatasetError)
    return value


def _plain(value: Any) -> Any:
    """HDF5 attributes arrive as bytes, numpy scalars or arrays of them."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()] if value.ndim else _plain(value.item())
    if isinstance(value, np.generic):
        value = value.item()
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value


# -- opening ---------------------------------------------------------------------------------------------------


@contextmanager
def _opened(file: Path) -> Iterator[h5py.File]:
    readable_file(file, where=str(file))
    try:
        with h5py.File(file, "r") as opened:
            yield opened
    except TopRewardError:  # some of which are ValueErrors too
        raise
    except Exception as error:  # over damage h5py raises nearly every kind there is
        raise DatasetError(f"{file}: cannot be read as HDF5 ({one_line(error)})") from error


def _child(parent: Any, name: str, where: str) -> Any:
    """A member of a group, None where it is missing; refuses links, and values that another file holds."""
    if not isinstance(parent, h5py.Group):
        return None
    if _is_link(parent, name):
        link = parent.get(name, getlink=True)
        target = f"into another file ({link.filename})" if isinstance(link, h5py.ExternalLink) else f"to {link.path}"
        raise DatasetError(f"{where}: {name} is a link {target}")
    child = parent.get(name)
    if isinstance(child, h5py.Dataset) and (child.external or child.is_virtual):
        raise DatasetError(f"{where}: {name} keeps its values in another file")
    return child


def _is_link(parent: h5py.Group, name: str) -> bool:
    """Whether a member is a name for something elsewhere; nothing is opened to find out."""
    # A soft link counts: it may point at an external one, and would be followed without a word.
    return isinstance(parent.get(name, getlink=True), h5py.SoftLink | h5py.ExternalLink)
