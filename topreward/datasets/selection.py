"""Which episodes of a dataset are meant.

In: a range such as "0:50" or "3,7,9", and the size and seed of a random subset. Out: positions. Pure; knows
nothing of what an episode holds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from topreward.datasets.messages import short
from topreward.errors import DatasetError

_PART = re.compile(r"(?P<one>[0-9]{1,12})|(?P<start>[0-9]{0,12}):(?P<stop>[0-9]{0,12})(:(?P<step>[0-9]{1,12}))?")


def parse_episodes(episodes: str | Iterable[int], count: int) -> list[int]:
    """Episode numbers out of `"0:50"` (50 not included), `"3,7,9"`, `"0:10,40:"`, `"::2"` or integers.

    In the order given. Every number must exist among `count` episodes: a range that reaches past the end is an
    error, not a shorter range. Raises DatasetError on that, on a repeated number, and on anything else.
    """
    numbers: dict[int, None] = {}  # not a list: "0:1000000,0:1000000,…" must not fill the memory

    def add(number: int) -> None:
        if number in numbers:
            raise DatasetError(f"episodes={short(episodes)} asks for episode {number} more than once")
        numbers[number] = None

    if isinstance(episodes, str):
        for part in episodes.split(","):
            for number in _parse_part(part.strip(), episodes, count):
                add(number)
    elif not isinstance(episodes, Iterable):
        raise DatasetError(f"episodes is {short(episodes)}, want a range such as '0:50', or integers")
    else:
        for number in episodes:
            # numpy integers are welcome, booleans and 3.0 are not
            if isinstance(number, bool) or not hasattr(number, "__index__"):
                raise DatasetError(f"episodes holds {number!r}, want integers")
            add(int(number))
    outside = [number for number in numbers if not 0 <= number < count]
    if outside:
        have = f"has episodes 0..{count - 1}" if count else "has no episodes"
        raise DatasetError(f"episodes={episodes!r} asks for episode {outside[0]}, the dataset {have}")
    if not numbers:
        raise DatasetError(f"episodes={episodes!r} asks for no episode at all")
    return list(numbers)


def _parse_part(part: str, whole: str, count: int) -> Iterable[int]:
    match = _PART.fullmatch(part)
    if match is None:
        raise DatasetError(f"episodes={whole!r}: cannot read {part!r}, want a range such as '0:50' or '3,7,9'")
    if match["one"] is not None:
        return [int(match["one"])]
    start = int(match["start"] or 0)
    stop = int(match["stop"] or count)
    step = int(match["step"] or 1)
    if step == 0 or start >= stop:
        raise DatasetError(f"episodes={whole!r}: the range {part!r} is empty")
    if stop > count:  # before the range is spelled out: "0:9999999999" must not fill the memory
        raise DatasetError(f"episodes={whole!r} asks for episode {stop - 1}, the dataset has {count} episodes")
    return range(start, stop, step)


def random_subset(ids: Sequence[str], size: int, seed: int) -> list[int]:
    """Positions of `size` episodes drawn at random, in their original order.

    An episode's rank is a hash of the seed and its id. So the draw does not depend on the version of any random
    generator, a larger subset of the same seed contains the smaller one, and an episode added to the dataset
    changes at most one other pick. Raises DatasetError if there are fewer than `size` episodes.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise DatasetError(f"subset is {size!r}, want a positive number of episodes")
    if size > len(ids):
        raise DatasetError(f"subset={size}, but there are only {len(ids)} episodes to choose from")

    def rank(position: int) -> bytes:
        return hashlib.sha256(f"{seed}:{ids[position]}".encode()).digest()

    return sorted(sorted(range(len(ids)), key=rank)[:size])
