"""Files that are either whole or absent."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from topreward.errors import ConfigError


def check_target(path: str | os.PathLike[str]) -> None:
    """Make the folder that a file is to be written to later, and see that it can be. Raises ConfigError."""
    target = Path(path).expanduser()
    if target.is_dir():
        raise ConfigError(f"{path}: is a folder, want a file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text under a temporary name in the same folder, then rename it into place.

    Makes the folder where it is missing. A run that is killed leaves the old file or the new one, never half.
    Raises ConfigError where that fails.
    """
    target = Path(path).expanduser()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            temporary.chmod(0o644)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error})") from error
