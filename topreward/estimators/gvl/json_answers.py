"""JSON in a model's answer → which frames it names, and what it gives for each. In: text. Out: raw JSON values.

Read are a list of objects that name a frame and its percentage, an object keyed by frames, either of them within
another object, and an object of two lists of one length; with or without a code fence and words around it, several one
after the other (JSON lines) too. JSON that breaks off gives nothing, and no word of it is an answer: its descriptions
speak of other frames. What a value must look like is `answers`' knowledge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

_START = re.compile(r'(?:\[\s*+)?\{\s*+"[^"\n]{1,80}"\s*+:')
_DEPTH = 8

# Keys, spelt in lower case without blanks, marks and units.
_FRAME_KEY = re.compile(r"(?:frame|image)s?(?:number|no|id|index|name)?")
_PLACE_KEY = re.compile(r"number|no|index|id")
_PERCENT = r"percent(?:age)?s?"
_SHARE_KEY = re.compile(
    r"(?:estimated|predicted)?(?:task)?"
    rf"(?:(?:completion|progress)?{_PERCENT}(?:of)?(?:completed?|completion)?|completion|progress)"
)
_NAMED = re.compile(r"(?:frame|image)?[ \t_#-]*([0-9]{1,9})", re.IGNORECASE)
_SPELLING = re.compile(r"[\s_\-%()]+")


class Given(NamedTuple):
    """One frame that a document names."""

    frame: int
    values: tuple[Any, ...]
    """What is given for it, as JSON has it; empty for nothing."""


@dataclass(frozen=True)
class Document:
    """A JSON value in a text."""

    start: int
    stop: int
    given: tuple[Given, ...]
    """Empty where it names no frame, or is broken."""


class _Object(tuple[tuple[str, Any], ...]):
    """An object's pairs: a key given twice must not hide its first value."""


_DECODER = json.JSONDecoder(
    object_pairs_hook=_Object, parse_int=lambda digits: _Integer(digits), parse_constant=lambda _: None
)


class _Integer(str):
    """The digits of an integer: Python makes no number of 5000 of them."""


def documents(text: str) -> Iterator[Document]:
    """The JSON values in a text that speak of frames, in order; the last may be broken, or not ended, and reaches to
    the end of the text. Never raises."""
    at = 0
    while opening := _START.search(text, at):
        try:
            value, at = _DECODER.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            yield Document(opening.start(), len(text), ())
            return
        given = tuple(_given(value, 0))
        if given or "frame" in text[opening.start() : at].lower():
            yield Document(opening.start(), at, given)


def number(value: Any) -> float | None:
    """A JSON number, None for anything else (booleans and NaN among it)."""
    if isinstance(value, _Integer):
        return float(value)
    return value if isinstance(value, float) else None


def _given(value: Any, depth: int) -> Iterator[Given]:
    if depth > _DEPTH:
        return
    if isinstance(value, list):
        for item in value:
            yield from _given(item, depth + 1)
    elif isinstance(value, _Object):
        spelt = [(_SPELLING.sub("", key).lower(), item) for key, item in value]
        names = [item for key, item in spelt if _FRAME_KEY.fullmatch(key)]
        names = names or [item for key, item in spelt if _PLACE_KEY.fullmatch(key)]
        shares = [item for key, item in spelt if _SHARE_KEY.fullmatch(key)]
        if names and all(_is_name(name) for name in names):
            yield from _of_one_frame(names, shares)
        elif len(names) == len(shares) == 1 and isinstance(names[0], list) and all(map(_is_name, names[0])):
            yield from _side_by_side(names[0], shares[0])
        else:
            for key, item in value:
                yield from _keyed(key, item, depth)


def _of_one_frame(names: list[Any], shares: list[Any]) -> Iterator[Given]:
    frames = {frame for name in names if (frame := _frame(name)) is not None}
    for frame in sorted(frames):
        yield Given(frame, tuple(shares) if len(frames) == 1 else ())


def _side_by_side(names: list[Any], shares: Any) -> Iterator[Given]:
    fits = isinstance(shares, list) and len(shares) == len(names)
    for place, name in enumerate(names):
        if (frame := _frame(name)) is not None:
            yield Given(frame, (shares[place],) if fits else ())


def _keyed(key: str, item: Any, depth: int) -> Iterator[Given]:
    frame = _frame(key)
    if frame is None:
        yield from _given(item, depth + 1)
    elif isinstance(item, _Object):
        yield Given(frame, tuple(v for k, v in item if _SHARE_KEY.fullmatch(_SPELLING.sub("", k).lower())))
    else:
        yield Given(frame, (item,))


def _is_name(value: Any) -> bool:
    return isinstance(value, str)  # an _Integer too


def _frame(name: Any) -> int | None:
    """`1`, `"1"`, `"Frame 1"`, `"frame_1"` → 1; None for the anchor, and for what is no frame."""
    found = _NAMED.fullmatch(name.strip()) if isinstance(name, str) else None
    return int(found[1]) if found else None
