"""How many samples does an MP4 claim? In: a file's path. Out: VideoError where it is more than a clip may have.

FFmpeg takes 24 bytes for each sample that the sample table, or a fragment, states, before it has seen one of them, and
24 bytes of a file can state 4 billion. So the boxes are walked first. What is no MP4 is no chain of boxes, and is left
alone. Knows nothing of frames and times. Format: ISO/IEC 14496-12.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from topreward.errors import VideoError
from topreward.limits import hold, limit

_ENTERED = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
_PER_SAMPLE = 0xF00
"""Flags of a `trun` that give each of its samples a field of its own."""


def check_claims(path: str, name: str) -> None:
    """Raise VideoError where the boxes state more samples than a clip may have frames, or hide what they state, and
    where the file cannot be opened at all."""
    try:
        _check(path, name)
    except OSError as error:
        raise VideoError(f"{name}: cannot be opened ({error.strerror or error})") from error


def _check(path: str, name: str) -> None:
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        handler, in_fragments = b"vide", 0
        for kind, at in _boxes(data, 0, len(data)):
            if kind == b"cmov":
                raise VideoError(f"{name}: its index is compressed (cmov), which is not read; remux it")
            if kind == b"trak":
                handler = b"vide"
            elif kind == b"hdlr":
                handler = data[at + 8 : at + 12]
            elif kind in (b"stsz", b"stz2"):
                each = max(1, _number(data, at + 4)) if kind == b"stsz" else 1
                count = _number(data, at + 8)
                # Uncompressed sound has a sample for every moment, but each of them is there.
                if handler == b"vide" or count * each > max(len(data), limit("max_frames")):
                    hold("max_frames", count, f"{name}: its sample table", error=VideoError)
            elif kind == b"trun" and not _number(data, at) & _PER_SAMPLE:
                in_fragments += _number(data, at + 4)
                hold("max_frames", in_fragments, f"{name}: its fragments", error=VideoError)


def _boxes(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[bytes, int]]:
    """(kind, where its payload starts) of all boxes, containers before what is in them."""
    ends = [end]
    while ends:
        if at + 8 > ends[-1]:
            at = ends.pop()
            continue
        size, kind, body = _number(data, at), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, body = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        stop = ends[-1] if size == 0 else min(at + size, ends[-1])
        if stop < body:
            return
        yield kind, body
        if kind in _ENTERED:
            ends.append(stop)
            at = body
        else:
            at = stop


def _number(data: mmap.mmap, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
