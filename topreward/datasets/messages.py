"""Other libraries' errors, in words that fit on one line of ours."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
