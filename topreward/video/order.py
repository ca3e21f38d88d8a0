"""The order of the pictures in a folder, out of their names. In: file names. Out: the same, in order, or VideoError.

Numbers in a name compare as numbers: `2` before `10`, `0.05` before `0.4`, `-1.5` before `-1`, `5e-05` before `1e-04`;
the text between them compares as text. What a point between two runs of digits means is read from all names together:

- a decimal point, where the digits behind it look like a decimal fraction's: all of one width (`1.50`, `1.75`), or
  without a zero at the end (`0.25`, `0.5`, `1.0`), as Python and printf write numbers;
- else a separator (`cam0.9`, `cam0.10`), where the digits behind it look like a counter's: without a zero in front;
- else nobody can say, which is an error. So is a name that takes the same place as another (`1`, `01`).

Digits of any script are digits. Names whose texts differ (`left_1`, `left_2`, `right_1`) are of several series, such as
two cameras', which is an error, unless every name has a text of its own (`a`, `b`, `c`). Series that only a number
tells apart (`cam0_1`, `cam1_1`) come one after the other.

A minus sign is one where the name begins with it or where it follows a sign that is no letter or digit (`t=-0.5`), and
where not all names have it (`-001`, `-002` are numbered from 1 on, or backwards: an error). A comma between digits is
read like a point.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from topreward.errors import VideoError

_TOKEN = re.compile(
    r"(?P<sign>(?<![^\W_])-(?=\d))?"
    r"(?:(?<!\d[.,])(?P<whole>\d++)[.,](?P<fraction>\d++)(?![.,]\d)|(?P<run>\d++))"
    r"(?P<exponent>e[+-]\d{1,4}(?![^\W_]))?"
    r"|(?P<text>\D)",
    re.ASCII | re.IGNORECASE,
)
_Key = list[tuple[int, Decimal, str]]


def in_order(folder: Path, names: Iterable[str]) -> list[str]:
    """File names in the order of the frames that they are. Raises VideoError where two of them have one place, or
    where their numbers can be read in two ways."""
    listed = sorted(names)
    tokens = {name: list(_TOKEN.finditer(_with_plain_digits(Path(name).stem.lower()))) for name in listed}
    _check_series(folder, tokens)
    decimal = _points_are_decimal(folder, tokens)
    _check_signs(folder, tokens)
    keys = {name: _key(tokens[name], decimal) for name in listed}
    listed.sort(key=lambda name: keys[name])
    for first, second in pairwise(listed):
        if keys[first] == keys[second]:
            raise VideoError(f"{folder}: which comes first, {first!r} or {second!r}? Give a list of files, in order")
    return listed


def _points_are_decimal(folder: Path, tokens: dict[str, list[re.Match[str]]]) -> bool:
    found = [(name, t["fraction"]) for name, ts in tokens.items() for t in ts if t["fraction"]]
    fractions = [fraction for _, fraction in found]
    if len({len(f) for f in fractions}) <= 1 or all(f == "0" or not f.endswith("0") for f in fractions):
        return True
    if any(f != "0" and f.startswith("0") for f in fractions):
        example = next(name for name, f in found if f.startswith("0"))
        raise VideoError(
            f"{folder}: are its names numbered with decimals or with two counters (such as {example!r})? "
            "Give a list of files, in order"
        )
    return False


def _with_plain_digits(stem: str) -> str:
    """`１` and `²` sort as texts in an order that is not theirs."""
    return "".join(c if c.isascii() else str(unicodedata.digit(c, c)) for c in stem)


def _check_series(folder: Path, tokens: dict[str, list[re.Match[str]]]) -> None:
    """Frames of one film are named alike but for their numbers."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for name, found in tokens.items():
        # A sign in front of a number is the number's: `+0.5`, `-0.5`.
        series = re.sub(r"[+-](?=#)", "", "".join(t["text"] or "#" for t in found))
        first.setdefault(series, name)
        counts[series] += 1
    if len(counts) > 1 and max(counts.values()) > 1:
        one, other = list(first.values())[:2]
        raise VideoError(
            f"{folder}: are its pictures (such as {one!r} and {other!r}) all frames of one film? "
            "Give a list of files, in order"
        )


def _check_signs(folder: Path, tokens: dict[str, list[re.Match[str]]]) -> None:
    """A minus sign that every name has is more likely a dash."""
    if len(tokens) > 1 and all(any(t["sign"] for t in ts) for ts in tokens.values()):
        raise VideoError(
            f"{folder}: is the '-' of its names (such as {next(iter(tokens))!r}) a minus or a dash? "
            "Give a list of files, in order"
        )


def _key(tokens: list[re.Match[str]], decimal: bool) -> _Key:
    key: _Key = []
    for token in tokens:
        if token["text"]:
            key.append((1, Decimal(0), token["text"]))
            continue
        sign, power = token["sign"] or "", token["exponent"] or ""
        if token["run"]:
            key.append((0, Decimal(f"{sign}{token['run']}{power}"), ""))
        elif decimal:
            key.append((0, Decimal(f"{sign}{token['whole']}.{token['fraction']}{power}"), ""))
        else:
            key.extend((0, Decimal(f"{sign}{token[part]}"), "") for part in ("whole", "fraction"))
    return key
