"""Text from outside, made fit to be looked at: ids, file names, instructions, error messages.

In goes any text; out comes one line that a terminal or a picture shows as what it is. What would act instead of being
seen (escape sequences, marks that turn the direction of writing, invisible letters) is spelled out as Python spells it.
Files that are read by programs keep the text as it is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks that Unicode counts as visible, and that nobody sees."""

MOST_MARKS = 4
"""Marks on one letter: no script has more, and thousands of them fill the lines above."""


def showable(text: object, *, lines: bool = False) -> str:
    """The text with all that does not show spelled out: `\\x1b`, `\\u202e`, `\\n`. `lines`: line ends stay."""
    shown, marks = [], 0
    for c in str(text):
        marks = marks + 1 if unicodedata.category(c) in ("Mn", "Me") else 0
        seen = (_shows(c) and marks <= MOST_MARKS) or (lines and c == "\n")
        shown.append(c if seen else _spelled(c))
    return "".join(shown)


def shorten(text: object, width: int) -> str:
    """At most `width` columns of the showable text; where that is not all of it, … stands for its middle."""
    whole = showable(text)
    if cell_len(whole) <= width:
        return whole
    back = max(0, (width - 1) // 2)
    end = _take(reversed(whole), back)[::-1]
    return _take(whole, max(0, width - 1 - cell_len(end))) + "…" + end


def say(console: Console, text: object, style: str = "", *, wrap: bool = True) -> None:
    """Print text, from outside or not, as it is: no markup, no emoji names. Without `wrap` a line stays a line."""
    console.print(Text(showable(text), style=style), soft_wrap=not wrap)


def _shows(character: str) -> bool:
    return character not in BLANK and (character.isprintable() or unicodedata.category(character) == "Zs")


def _spelled(character: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character) or (
        f"\\x{ord(character):02x}"
        if ord(character) < 0x100
        else f"\\u{ord(character):04x}"
        if ord(character) < 0x10000
        else f"\\U{ord(character):08x}"
    )


def _take(characters: Iterable[str], width: int) -> str:
    """As many as fit."""
    taken, cells = "", 0
    for character in characters:
        cells += cell_len(character)
        if cells > width:
            break
        taken += character
    return taken
