"""What safetensors files say they hold: names, shapes and types of tensors, read without the tensors.

In go paths, out comes a table by name. Knows nothing of models and configs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from topreward.errors import ModelError
from topreward.limits import hold


@dataclass(frozen=True)
class Stored:
    """One tensor on disk."""

    name: str
    """Under which the file holds it."""
    shape: tuple[int, ...]
    dtype: str
    """safetensors' name, e.g. `BF16`."""
    file: Path

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)


def read_headers(paths: Iterable[Path]) -> dict[str, Stored]:
    """The tensors of all files, by name. Raises ModelError for a file that is none, or a name that two files hold."""
    found: dict[str, Stored] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                header = int.from_bytes(file.read(8), "little")
            if header < path.stat().st_size:  # else the library says that it is cut
                hold("max_text_bytes", header, f"{path}: its header", error=ModelError)
            with safe_open(str(path), framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (no mapping)
                    part = tensors.get_slice(name)
                    if name in found:
                        raise ModelError(f"{path}: holds tensor {name!r}, which {found[name].file.name} holds as well")
                    found[name] = Stored(name, tuple(part.get_shape()), str(part.get_dtype()), path)
        except (OSError, SafetensorError, ValueError) as error:
            if isinstance(error, ModelError):
                raise
            reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
            raise ModelError(f"{path}: not readable as safetensors ({reason})") from error
    return found
