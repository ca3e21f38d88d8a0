"""Other libraries' errors, in words that fit on one line of ours."""

from __future__ import annotations

import reprlib
from typing import Any

_LONGEST = 300


def one_line(error: Any) -> str:
    """The first line of an error's message (or of another text), or the name of its kind where it has none."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def short(value: Any) -> str:
    """What a stranger's value is, in a few words: it may be a list of a million lists."""
    few = reprlib.Repr()
    few.maxstring = few.maxother = 80
    return few.repr(value)
