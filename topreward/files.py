"""Files that are either whole or absent, text that any JSON reader takes, and texts read no further than a bound.

In go a path and what is to lie there; what goes wrong on the way (no space, no permission, a name too long) is a
ConfigError of one line that names the path. Knows nothing of what files hold.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from topreward.errors import ConfigError, TopRewardError
from topreward.limits import hold, limit

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}(?:\.tmp)?|\.(?P<old>.+\.(?:parquet|mp4))\.\d+", re.DOTALL)
"""How files are called while they are written; by earlier versions without `.tmp`, or with a process's number."""


def expand(path: str | os.PathLike[str], *, error: type[TopRewardError] = ConfigError) -> Path:
    """A path with `~` spelled out. Raises `error` for one that no file can have, or where nobody's home is known."""
    text = os.fspath(path)
    if "\0" in text:
        raise error(f"{path!r}: a path cannot hold a NUL byte")
    try:
        return Path(text).expanduser()
    except RuntimeError as failure:  # no HOME, or ~somebody who is not there
        raise error(f"{path}: {failure}") from failure


@contextmanager
def told(path: str | os.PathLike[str], what: str = "cannot be written") -> Iterator[None]:
    """Make what the system refuses inside the block one line: the path, what failed, and why. Raises ConfigError."""
    try:
        yield
    except OSError as error:
        why = " ".join(str(error.strerror or error).split()) or type(error).__name__
        raise ConfigError(f"{path}: {what} ({why})") from error


def read_text(
    path: str | os.PathLike[str],
    *,
    error: type[TopRewardError],
    name: str | None = None,
    most: str = "max_text_bytes",
    encoding: str = "utf-8",
) -> str:
    """The text of a regular file. `name`: how messages call it; `most`: the limit of its size, see `limits`.

    Raises `error` in one line where it is missing, no regular file (a pipe would wait for ever), larger than the limit,
    or no text.
    """
    where = os.fspath(path) if name is None else name
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise error(f"{where}: not a regular file")
        with Path(path).open("rb") as file:
            data = file.read(int(min(limit(most), 2**62)) + 1)  # not `st_size`, which some file systems make up
    except OSError as failure:
        raise error(f"{where}: cannot be read ({failure.strerror or failure})") from failure
    except ValueError as failure:  # a NUL in the name, or `error` itself
        if isinstance(failure, TopRewardError):
            raise
        raise error(f"{where!a}: cannot be read ({failure})") from failure
    hold(most, len(data), where, error=error)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as failure:
        raise error(f"{where}: not a text in UTF-8 (byte {failure.start} is 0x{data[failure.start]:02x})") from failure


def check_target(path: str | os.PathLike[str]) -> None:
    """Make the folder that a file is to be written to later, and see that it can be. Raises ConfigError."""
    target = expand(path)
    with told(path):
        _refuse_other_than_file(target, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    sweep(target.parent, lambda name: name == _short(target.name))


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file in the same folder, to be written in the block; it takes its name when the block ends well.

    Makes the folder where it is missing. A run that is killed leaves the old file or the new one, never half; where
    the block fails the temporary file is removed. Raises ConfigError where the system refuses.
    """
    target = expand(path)
    with told(path):
        _refuse_other_than_file(target, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not the whole name: with what is added, it would be longer than a file's name may be.
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{_short(target.name)}.", suffix=".tmp")
        temporary = Path(name)
        try:
            _hold(handle)
            yield temporary
            os.fsync(handle)  # else a machine that loses power may keep the name and lose the bytes
            temporary.chmod(0o644)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write bytes, or text as UTF-8, as `whole_file` does. Raises ConfigError where that fails.

    What is no character (half of a surrogate pair, from the name of an odd file) is written as JSON spells it.
    """
    raw = content if isinstance(content, bytes) else content.encode("utf-8", errors="backslashreplace")
    with whole_file(path) as temporary:
        temporary.write_bytes(raw)


def sweep(folder: Path, ours: Callable[[str], bool]) -> None:
    """Remove what killed runs left half-written in a folder, of the files whose names are `ours`.

    Not what a process still writes: it holds a lock on it.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = TEMPORARY.fullmatch(entry.name)
            if found is not None and ours(found["name"] or found["old"]):
                with suppress(OSError):
                    _remove_stale(entry, closed=found["old"] is None)


def written_as(name: str) -> str | None:
    """The name (or its beginning, where it is very long) that a half-written file was to get; None for any other."""
    found = TEMPORARY.fullmatch(name)
    return None if found is None else found["name"] or found["old"]


def finite(value: Any) -> Any:
    """The same, with numbers that JSON does not have (NaN, infinities) in words: what a dataset says is not dropped."""
    if isinstance(value, Mapping):
        return {_key(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value


def json_text(value: Any, *, indent: int | None = None, compact: bool = False) -> str:
    """JSON that any reader takes: see `finite`; what JSON has no form for is its `str`."""
    separators = (",", ":") if compact else None
    try:
        return json.dumps(value, indent=indent, separators=separators, allow_nan=False, default=str)
    except ValueError:  # rare enough that the copy is made only then
        return json.dumps(finite(value), indent=indent, separators=separators, allow_nan=False, default=str)


def _key(key: Any) -> Any:
    return str(key) if isinstance(key, float) and not math.isfinite(key) else key


def _short(name: str) -> str:
    """What of a name fits, with what is added to it, in the 255 bytes of a file's name."""
    return name if len(name.encode(errors="replace")) <= 200 else name[:40]


def _refuse_other_than_file(target: Path, path: str | os.PathLike[str]) -> None:
    """Raises ConfigError where something lies there that a file must not take the place of: a folder, a device."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise ConfigError(f"{path}: is a folder, want a file")
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{path}: is no regular file, want one")


def _hold(handle: int) -> None:
    """Say that a process is at work on a file; where the file system has no locks, nothing says so."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_stale(entry: os.DirEntry[str], *, closed: bool) -> None:
    """`closed`: a half-written file is as closed to others as it was made; one that is not may be somebody's own."""
    found = entry.stat(follow_symlinks=False)
    if fcntl is None or not stat.S_ISREG(found.st_mode) or (closed and stat.S_IMODE(found.st_mode) != 0o600):
        return
    handle = os.open(entry.path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path(entry.path).unlink()
    finally:
        os.close(handle)
