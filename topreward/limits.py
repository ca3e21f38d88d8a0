"""How large what comes from outside may be: one table, each number with a name by which it can be raised.

Videos, datasets, listings and checkpoints come from strangers; a claim of size in them is held to these numbers before
memory or time is spent on it. `TOPREWARD_MAX_FRAMES=2000000` in the environment raises `max_frames` for a process and
its workers. docs/limits.md is this table in words. Knows nothing of what is limited.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from numbers import Real

from topreward.errors import ConfigError, TopRewardError

GIB = 2**30


@dataclass(frozen=True)
class Limit:
    """One bound."""

    value: float
    """The default."""
    unit: str
    what: str
    """What it bounds, in a few words."""
    least: bool = False
    """Whether it bounds from below."""


LIMITS = {
    "max_frames": Limit(1_000_000, "frames", "frames of one clip"),
    "min_fps": Limit(0.01, "frames/s", "any frame rate, sampling rates included", least=True),
    "max_fps": Limit(1_000, "frames/s", "any frame rate, sampling rates included"),
    "max_instruction": Limit(8_192, "characters", "one instruction"),
    "max_array_bytes": Limit(2 * GIB, "bytes", "one array, chunk, picture or row group, decoded"),
    "max_picture_pixels": Limit(2**26, "px", "height times width of a picture or a frame"),
    "max_episodes": Limit(1_000_000, "episodes", "episodes of one dataset or listing"),
    "max_decode_seconds": Limit(600, "seconds", "decoding one episode in a decoder process"),
    "max_text_bytes": Limit(64 * 2**20, "bytes", "one JSON or listing file as it lies on disk"),
    "max_yaml_bytes": Limit(2**20, "bytes", "one YAML file as it lies on disk; its reader takes seconds a megabyte"),
}


def limit(name: str) -> float:
    """The bound in force: the environment's `TOPREWARD_<NAME>`, else the default. Raises ConfigError for no number."""
    variable = f"TOPREWARD_{name.upper()}"
    given = os.environ.get(variable)
    if given is None:
        return LIMITS[name].value
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise ConfigError(f"{variable} is {given!r}, want a number above 0")
    return value


def hold(name: str, value: float, where: object, *, error: type[TopRewardError] = ConfigError) -> None:
    """Raise `error` where `value` is beyond the limit `name`, or is NaN or no number.

    The message says `where`, and how the limit is moved.
    """
    bound, entry = limit(name), LIMITS[name]
    if not _is_number(value):
        raise error(f"{where}: is a {type(value).__name__}, want a number of {entry.unit}")
    if (value >= bound) if entry.least else (value <= bound):
        return
    side = "at least" if entry.least else "at most"
    claimed = f"{value:.12g}" if not abs(value) > 1e300 else f"more than {1e300:g}"  # an integer may be beyond floats
    raise error(
        f"{where}: {claimed} {entry.unit}, allowed are {side} {bound:.12g} "
        f"({'lower' if entry.least else 'raise'} it with TOPREWARD_{name.upper()})"
    )


def hold_fps(fps: float, where: object, *, error: type[TopRewardError] = ConfigError) -> None:
    """Hold a frame rate, frames/s, to both its limits."""
    hold("min_fps", fps, where, error=error)
    hold("max_fps", fps, where, error=error)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
