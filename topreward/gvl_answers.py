"""What a model answered → one percentage per frame, or why not.

In goes the text of an answer and which frame numbers were asked for; out come the percentages in the order
of those numbers, or a Failure. Pure text: knows nothing of models, of shuffling or of the prompt.

Strict, because what is read here is scored: every frame asked for must be answered by its number, once or
twice alike, between 0 and 100, and no other frame. Nothing is rescaled, clamped, filled in or left out, and
a restated anchor ("In the initial robot scene … 0") is no answer. A range ("40-50%"), a fraction ("40/100")
or a decimal comma is unreadable rather than read by half.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FailureKind = Literal["refusal", "no_answers", "not_asked", "contradiction", "out_of_range", "unreadable", "missing"]

# Possessive quantifiers (`*+`): an answer full of blanks must not cost quadratic time.
# What may stand around a name or a number: list marks, quotes, brackets, Markdown.
_MARKS = r"\t *_#>•|\"'`{}()\[\]"
_HEADING = re.compile(
    rf"(?P<line>^[\-{_MARKS}]*(?:[0-9]{{1,3}}[.)][ \t]+[{_MARKS}]*)?)?(?<![^\W_])"
    r"(?:(?P<anchor>(?:in[ \t]+)?(?:the[ \t]+)?initial[ \t]+(?:robot[ \t]+)?(?:scene|frame|image|state)\b)"
    r"|frame[ \t#]*(?P<number>[0-9]{1,9})(?![^\W_]|\.[0-9]))"
    rf"[{_MARKS}]*(?P<colon>[:=]|[-–—](?=\s))?",
    re.IGNORECASE | re.MULTILINE,
)
_FILL = rf"(?:[\s:=~≈{_MARKS}]|[-–—](?=\s)|\b(?:is|of|about|approximately|around|roughly)\b)*+"
_NUMBER = (
    r"(?P<number>[-+−]?[0-9]{1,300}+(?:\.[0-9]{1,300}+)?+)"
    r"(?![^\W_]|[.,][0-9]|(?:\s*%)?\s*(?:[-–—/~]|to\b|or\b|and\b)\s*[0-9])"
    rf"[{_MARKS}]*+(?P<percent>[%％])?+"
)
_LABELLED = re.compile(rf"completion(?:[ \t]+percent(?:age)?s?\b|[{_MARKS}]*[:=])(?:{_FILL}{_NUMBER})?", re.IGNORECASE)
_BARE = re.compile(rf"{_FILL}{_NUMBER}(?:(?<=[%％])|[.,;{_MARKS}]*(?:\n|\Z))", re.IGNORECASE)
_LAST = re.compile(
    rf"(?<![\w.,+\-−])(?<![-–—/~][ \t])(?<!\bto )(?<!\bor )(?<!\band ){_NUMBER}(?<=[%％])[.,;\s{_MARKS}]*\Z",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"[0-9][ \t]*[%％]")
_REFUSAL = re.compile(
    r"\b(?:sorry|apologi[sz]e|can(?:not|['’]t)|can not|unable|not able|as an ai|won['’]t|refuse|decline)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Failure:
    """An answer that gives no percentages."""

    kind: FailureKind
    reason: str
    """One line, with the frames and values meant."""


@dataclass(frozen=True)
class _Reading:
    """One frame named in the text, with what was read for it: `values` is empty where nothing can be."""

    frame: int
    values: tuple[float, ...]
    settled: bool
    """Whether more text could not change it."""


def parse(text: str, count: int, *, first: int = 1) -> NDArray[np.float64] | Failure:
    """The percentages of frames `first` … `first + count - 1`.

    Returns (count,) float64 in [0, 100] in the order of the frame numbers, whatever order the text has them
    in, or a Failure. Never raises, whatever the text.
    """
    asked = range(first, first + count)
    read: dict[int, set[float]] = {}
    for reading in _read(text):
        read.setdefault(reading.frame, set()).update(reading.values)
    found = {frame: sorted(values) for frame, values in sorted(read.items()) if values}
    if not found:
        return _nothing(text, sorted(read.keys() & set(asked)))
    if extra := [frame for frame in found if frame not in asked]:
        return Failure("not_asked", f"{_frames(extra)} not asked for, only {first} to {asked[-1]}")
    for frame, values in found.items():
        if len(values) > 1:
            listed = ", ".join(f"{v:g}" for v in values)
            return Failure("contradiction", f"frame {frame} answered twice with different values ({listed})")
        if not 0 <= values[0] <= 100:
            return Failure("out_of_range", f"frame {frame}: {values[0]:g} % out of range")
    if missing := [frame for frame in asked if frame not in read]:
        return Failure("missing", f"missing {_frames(missing)}")
    if unreadable := [frame for frame in asked if frame not in found]:
        return Failure("unreadable", f"no readable percentage for {_frames(unreadable)}")
    return np.array([found[frame][0] for frame in asked], dtype=np.float64)


def answered(text: str, count: int, *, first: int = 1) -> bool:
    """Whether every frame asked for has its answer, and none would read otherwise if the text went on.

    What ends a generation: a number that may still grow ("8" of "85%") does not count yet.
    """
    settled = {reading.frame for reading in _read(text) if reading.values and reading.settled}
    return settled.issuperset(range(first, first + count))


def _read(text: str) -> Iterator[_Reading]:
    """Every frame that the text names, with the values in what follows its name."""
    name: re.Match[str] | None = None
    waits, since = False, 0
    for heading in _HEADING.finditer(text):
        within = heading["line"] is None
        if within and heading["number"] and not heading["colon"]:
            continue
        # Descriptions compare ("closer than in frame 3: …", "as in the initial scene"): while a frame waits for
        # its percentage, only a frame named at the start of a line takes over from it.
        waits = waits and not _values(text[since : heading.start()], bare=name is not None and since == name.end())
        since = heading.end()
        if waits and (within or heading["anchor"]):
            continue
        if name is not None:
            yield from _reading(name, text, heading.start())
        name, waits = heading, bool(heading["number"])
    if name is not None:
        yield from _reading(name, text, len(text))


def _reading(name: re.Match[str], text: str, stop: int) -> Iterator[_Reading]:
    if name["number"] is None:  # the anchor restated
        return
    said = text[name.end() : stop]
    numbers = _values(said)
    # A percentage after its label is final at its "%"; any other number only once its line has ended.
    labelled = bool(numbers) and _LABELLED.search(said) is not None
    settled = bool(numbers) and (
        (labelled and bool(numbers[-1]["percent"])) or "\n" in said[numbers[-1].end("number") :]
    )
    settled = settled or stop < len(text)
    yield _Reading(int(name["number"]), tuple(_number(n["number"]) for n in numbers), settled)


def _values(said: str, *, bare: bool = True) -> list[re.Match[str]]:
    """The numbers that answer a frame in what is said of it: labelled ones, else the one that stands alone.

    `bare`: whether a number may follow the frame's name directly.
    """
    labelled = [match for match in _LABELLED.finditer(said) if match["number"]]
    if labelled or _LABELLED.search(said):
        return labelled
    if bare and (direct := _BARE.match(said)):
        return [direct]
    # "The gripper is open. 30%": the line's last word, where it is the only percentage.
    last = _LAST.search(said)
    return [last] if last and len(_PERCENT.findall(said)) == 1 else []


def _number(text: str) -> float:
    return float(text.replace("−", "-"))


def _nothing(text: str, named: list[int]) -> Failure:
    shown = " ".join(text.split())
    shown = f"{shown[:80]}…" if len(shown) > 80 else shown
    if _REFUSAL.search(text):
        return Failure("refusal", f"the model declines: {shown!r}")
    if named:
        return Failure("unreadable", f"no readable percentage for {_frames(named)}")
    return Failure("no_answers", f"no frame is answered: {shown!r}" if shown else "the answer is empty")


def _frames(numbers: Iterable[int]) -> str:
    listed = list(numbers)
    return f"frame{'s' if len(listed) > 1 else ''} {', '.join(map(str, listed))}"
