"""Every error that topreward raises on purpose.

    TopRewardError
    ├── ConfigError   (ValueError)    a protocol, a wording or an option that makes no sense
    ├── VideoError    (ValueError)    a video that cannot be read whole, or frames of the wrong shape
    ├── DatasetError  (ValueError)    a dataset or a listing that contradicts itself
    ├── PromptError   (ValueError)    text that cannot go into a prompt
    ├── ModelError    (ValueError)    a checkpoint that cannot be loaded or is not of a supported kind
    ├── CurveError    (ValueError)    values, lengths and times that do not fit together
    └── MemoryLimitError (MemoryError)  work that would not fit, refused before it is started

Each inherits from the built-in error a caller would expect, so `except ValueError` works too. A message
says what was wrong, where (file, key, value) and, where it is known, what to do. It fits on one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TopRewardError(Exception):
    """Base of all errors of this package; `except TopRewardError` catches nothing else."""


class ConfigError(TopRewardError, ValueError):
    """A protocol, wording or option is unknown or out of range."""


class VideoError(TopRewardError, ValueError):
    """A video cannot be read, or not to its end."""


class DatasetError(TopRewardError, ValueError):
    """A dataset or listing is missing something, or contradicts itself."""


class PromptError(TopRewardError, ValueError):
    """A text cannot be put into a prompt, e.g. because it spells a special token."""


class ModelError(TopRewardError, ValueError):
    """A checkpoint cannot be loaded, or is of a kind that the one-pass scoring cannot serve."""


class CurveError(TopRewardError, ValueError):
    """A curve's arrays do not fit together."""


class MemoryLimitError(TopRewardError, MemoryError):
    """The work would need more memory than there is; nothing was started."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the allowed word closest to `word`, or an empty string."""
    matches = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean '{matches[0]}'?)" if matches else ""
