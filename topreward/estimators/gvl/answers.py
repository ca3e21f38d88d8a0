"""What a model answered → one percentage per frame, or why not.

In goes the text of an answer and which frame numbers were asked for; out come the percentages in the order
of those numbers, or a Failure. Pure text: knows nothing of models, of shuffling or of the prompt.

Strict, because what is read here is scored: every frame asked for must be answered by its number, once or
twice alike, between 0 and 100, and no other frame. Nothing is rescaled, clamped, filled in or left out, and
a restated anchor ("In the initial robot scene … 0") is no answer. A number must end its line or field: a range
("40-50%"), a fraction ("3 of 5"), a list ("10%, 20%"), a tolerance ("50 ± 10%"), a decimal comma or a percentage
of something else ("50% open") is unreadable rather than read by half. JSON (`json_answers`) is held to the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from topreward.estimators.gvl import json_answers

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
_FILL = (
    rf"(?:[\s:=~≈{_MARKS.replace('>', '')}]|[-–—](?=\s)|[-=]>|→"
    r"|\b(?:is|of|about|approximately|around|roughly)\b)*+"
)
_NUMBER = (
    r"(?P<number>[-+−]?[0-9]{1,300}+(?:\.[0-9]{1,300}+)?+)"
    r"(?![^\W_]|[.,][0-9]|(?:\s*%)?\s*(?:[-–—/~]|to\b|or\b|and\b)\s*[0-9])"
    rf"(?:[{_MARKS}]*+(?P<percent>[%％]|percent\b))?+"
)
# What may follow a number that answers: the end of its line or field, or a remark that holds no other number.
_BLANK = rf"{_MARKS}\r\f\v\xa0\u3000"
_END = rf"[.,;:!。，；、{_BLANK}]*+(?:\n|\Z)"
_REMARK = r"(?:frame[ \t#]*[0-9]{1,9}|(?!percent)[^\n\d%％])*+(?:\n|\Z)"
_DONE = rf"(?:[{_BLANK}]*+\b(?:of the task|task|is|complete|completed|completion|done|finished|progress)\b)*+"
_BREAK = r"[ \t\r\f\v\xa0\u3000*_>\"'`)}\]]*+(?:[.,;:!(\[|。，；、]|[-–—](?=\s)|\b(?:because|since|as)\b)"
_STOP = rf"(?={_DONE}(?:{_END}|[.,;:\-–—{_BLANK}]*+(?:frame[ \t]+)?description\b|{_BREAK}{_REMARK}))"
_LABELLED = re.compile(
    rf"completion(?:[ \t]+percent(?:age)?s?\b|[{_MARKS}]*[:=])"
    rf"(?:(?P<given>{_FILL})(?=[-+−]?[0-9])(?:{_NUMBER}{_STOP})?)?",
    re.IGNORECASE,
)
_BARE = re.compile(rf"{_FILL}{_NUMBER}(?(percent){_STOP}|(?={_END}|[ \t*_`]*+\|{_REMARK}))", re.IGNORECASE)
_LAST = re.compile(rf"(?<![\w.,+\-−])(?<![-–—/~][ \t]){_NUMBER}(?<=[%％])[.,;\s{_MARKS}]*\Z", re.IGNORECASE)
_HALF = re.compile(
    r"(?:[0-9]|[0-9][ \t]*~|[0-9][ \t]+(?:out[ \t]+)?of|[+±−\-–—/→…<>≤≥]"
    r"|\b(?:to|or|and|then|by|plus|minus|than|least|most))\Z",
    re.IGNORECASE,
)
"""Ends of a text that make the percentage after them half of something."""
_PERCENT = re.compile(r"[0-9][ \t]*(?:[%％]|percent\b)", re.IGNORECASE)
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
    """Every frame that the text names, with what is given for it: first in JSON, then in the words around it."""
    words, since = "", 0
    for document in json_answers.documents(text):
        words, since = words + text[since : document.start] + "\n", document.stop
        for given in document.given:
            values = [_json_value(value) for value in given.values]
            # A value that cannot be read is not made good by a second one.
            readable = tuple(value for value in values if value is not None)
            yield _Reading(given.frame, readable if len(readable) == len(values) else (), True)
    yield from _read_words(words + text[since:])


def _json_value(value: Any) -> float | None:
    """A number, or a string that would be an answer behind a frame's name; None for anything else."""
    if (number := json_answers.number(value)) is not None:
        return number
    if not isinstance(value, str):
        return None
    found = _values(f": {value}")
    return _number(found[0]["number"]) if len(found) == 1 else None


def _read_words(text: str) -> Iterator[_Reading]:
    """Every frame that the text names, with the values in what follows its name."""
    name: re.Match[str] | None = None
    waits, since = False, 0
    for heading in _HEADING.finditer(text):
        within = heading["line"] is None
        if within and heading["number"] and not heading["colon"]:
            continue
        # Descriptions compare ("closer than in frame 3: …", "as in the initial scene"): while a frame waits for
        # its percentage, only a frame named at the start of a line takes over from it.
        said = _said(text, since, heading.start())
        waits = waits and not _values(said, bare=name is not None and since == name.end())
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
    said = _said(text, name.end(), stop)
    numbers = _values(said)
    # Even after its "%" a number may turn out to be one of several, until its line has ended.
    settled = stop < len(text) or (bool(numbers) and "\n" in said[numbers[-1].end("number") :])
    yield _Reading(int(name["number"]), tuple(_number(n["number"]) for n in numbers), settled)


def _said(text: str, start: int, stop: int) -> str:
    """What stands between a frame's name and the next one, without an "and" that only leads on to that."""
    said = text[start:stop]
    return said.rstrip().removesuffix(" and") if stop < len(text) else said


def _values(said: str, *, bare: bool = True) -> list[re.Match[str]]:
    """The numbers that answer a frame in what is said of it: labelled ones, else the one that stands alone.

    `bare`: whether a number may follow the frame's name directly. Empty where a label's number is half an answer.
    """
    if labels := list(_LABELLED.finditer(said)):
        half = any(match["given"] is not None and not match["number"] for match in labels)
        return [] if half else [match for match in labels if match["number"]]
    if bare and (direct := _BARE.match(said)):
        return [direct]
    # "The gripper is open. 30%": the line's last word, where it is the only percentage.
    last = _LAST.search(said)
    return [last] if last and len(_PERCENT.findall(said)) == 1 and _whole(said[: last.start()]) else []


def _whole(before: str) -> bool:
    """Whether a percentage after this text is all of an answer, not the end of a range, a fraction or a list."""
    if any(map(str.isdigit, before)) and not any(map(str.isalpha, before)):
        return False
    return not _HALF.search(before[-40:].rstrip(" \t\r\n*_#•\"'`{}()[]"))


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
