"""Is a GIF, APNG, y4m, IVF or AVI file whole? In: its path, and what FFmpeg found in it. Out: what is wrong.

FFmpeg reads such a file up to where it ends, and calls that the video. But their pieces lie back to back, each with
its length, up to an end mark or to a number that the header states, so a walk over their heads tells. It reads no
payload. In AVI an empty piece is a frame that the camera dropped: the one before stays on, and the header counts it.
Formats: GIF89a, PNG (third edition), yuv4mpeg(5), IVF, RIFF with OpenDML.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from topreward.video.still_bytes import Broken, png_chunks


def damage(container: str, path: str, packets: int, packet_bytes: int) -> str | None:
    """What keeps a file from being one unbroken chain of `packets` frames, in words; None where it is one, or where it
    is of another kind. `packet_bytes`: the size of the first frame, as FFmpeg has it."""
    with Path(path).open("rb") as file:
        if container == "apng":
            return _apng(file)
        if container not in ("gif", "yuv4mpegpipe", "ivf"):
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                if container == "gif":
                    found = _gif_images(data)
                elif container == "ivf":
                    found = _ivf_frames(data)
                else:
                    found = _y4m_frames(data, packet_bytes)
            except (Broken, IndexError) as error:
                return str(error) if isinstance(error, Broken) else f"it breaks off within its {len(data)} bytes"
    return None if found == packets else f"{found} frames lie in it, {packets} of which can be read"


def dropped_frames(path: str, stream: int) -> int:
    """How many frames of a stream an AVI file holds as empty pieces."""
    names = tuple(f"{stream:02d}{kind}".encode() for kind in ("dc", "db"))
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return sum(1 for name, size in _riff_pieces(data, 0, len(data)) if name in names and size == 0)


def _gif_images(data: mmap.mmap) -> int:
    """Images up to the trailer."""
    at = 13 + _colours(data[10])
    images = 0
    while True:
        kind = data[at]
        if kind == 0x3B:
            return images
        if kind == 0x2C:
            images += 1
            at += 11 + _colours(data[at + 9])
        elif kind == 0x21:
            at += 2
        else:
            raise Broken(f"no block at byte {at} of {len(data)}")
        while length := data[at]:
            at += 1 + length
        at += 1


def _colours(flags: int) -> int:
    """Bytes of a GIF's colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _apng(file: BinaryIO) -> str | None:
    promised, shown, ended = None, 0, False
    try:
        for name, at, _ in png_chunks(file, check=True):
            if name == b"acTL":
                file.seek(at)
                promised = int.from_bytes(file.read(4), "big")
            shown += name == b"fcTL"
            ended = name == b"IEND"
    except Broken as error:
        return str(error)
    if not ended:
        return "it ends before its end chunk"
    return None if promised in (None, shown) else f"{shown} of {promised} frames promised"


def _y4m_frames(data: mmap.mmap, frame_bytes: int) -> int:
    """Frames of one size up to the end of the file, each behind a line of its own."""
    at, frames = data.find(b"\n") + 1, 0
    while at < len(data):
        line = data.find(b"\n", at, at + 256)
        if data[at : at + 5] != b"FRAME" or line < 0 or line + 1 + frame_bytes > len(data):
            raise Broken(f"frame {frames} breaks off at byte {at} of {len(data)}")
        at, frames = line + 1 + frame_bytes, frames + 1
    return frames


def _ivf_frames(data: mmap.mmap) -> int:
    """Frames up to the end of the file, or as many as the header states, if that is more."""
    at = int.from_bytes(data[6:8], "little")
    promised = int.from_bytes(data[24:28], "little")
    frames = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        if at + 12 + length > len(data):
            raise Broken(f"frame {frames} breaks off at byte {at} of {len(data)}")
        at, frames = at + 12 + length, frames + 1
    return max(frames, promised)


def _riff_pieces(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[bytes, int]]:
    """(name, size) of all pieces of RIFF files and the lists in them, as far as the chain holds."""
    ends = [end]
    while at + 8 <= ends[-1]:
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name in (b"RIFF", b"LIST"):
            ends.append(min(at + 8 + size, ends[-1]))
            at += 12
        else:
            yield name, size
            at += 8 + size + (size & 1)
        while len(ends) > 1 and at + 8 > ends[-1]:
            at = max(at, ends.pop())
            at += at & 1
