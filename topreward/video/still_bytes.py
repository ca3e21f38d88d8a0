"""What the bytes of a picture file say before, and beside, Pillow: its kind, its size, is it one picture, is it whole?

In: an open file. Out: facts in plain values; no pixel is decoded. PNG: an unbroken chain of chunks with right checksums
up to IEND. JPEG: an end marker behind its scans, for a file cut short by a full disk often keeps its length, in zeros,
which decode as grey. The other formats' truncation is Pillow's to notice.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_PNG = b"\x89PNG\r\n\x1a\n"
_KINDS = (
    (_PNG, "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    *((b"P" + digit, "PPM") for digit in (b"1", b"2", b"3", b"4", b"5", b"6")),
    # What is refused is named all the same.
    (b"GIF8", "a GIF, which is a video: read it by itself"),
    (b"%!", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "a PDF"),
    (b"\x89HDF", "HDF5"),
    (b"\x1aE\xdf\xa3", "a Matroska video"),
    (b"8BPS", "a Photoshop file"),
    (b"YUV4MPEG2", "a y4m video"),
    (b"Pf", "floating-point PFM"),
    (b"PF", "floating-point PFM"),
    (b"P7", "PAM"),
)
_JPEG_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))
"""JPEG markers without a length: TEM and the restart markers."""
_JPEG_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")
"""In a scan: a marker that is neither a stuffed byte nor a restart."""


class Head(NamedTuple):
    """What the first bytes say."""

    kind: str
    """Pillow's name of the format, or in words what else it is."""
    size: tuple[int, int] | None = None
    """(height, width), px, where they have to be known before Pillow sees the file."""
    several: str | None = None
    """In words, if it is known to hold several pictures."""


def head(file: BinaryIO) -> Head:
    """The kind of a file."""
    file.seek(0)
    start = file.read(64)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _webp(start)
    if start[4:8] == b"ftyp":
        return Head("AVIF or HEIC" if start[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1") else "an MP4 video")
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return Head("an AVI video")
    kind = next((kind for magic, kind in _KINDS if start.startswith(magic)), "of no known format")
    return Head(kind)


def damage(file: BinaryIO) -> str | None:
    """Why a PNG or JPEG is not whole, in words; None where it is, or is of another kind."""
    kind = head(file).kind
    if kind == "PNG":
        try:
            return (
                None
                if b"IEND" in [name for name, _, _ in png_chunks(file, check=True)]
                else "it ends before its end chunk"
            )
        except Broken as error:
            return str(error)
    if kind == "JPEG":
        file.seek(0)
        return _jpeg_damage(file.read())
    return None


def several(file: BinaryIO) -> str | None:
    """What an animated WebP, a PNG or a TIFF is, in words; None for other kinds."""
    found = head(file)
    return found.several or {"TIFF": "a TIFF", "PNG": "a PNG", "WEBP": "a WebP"}.get(found.kind)


def late_exif(file: BinaryIO) -> bytes | None:
    """The EXIF chunk of a PNG, which may lie behind the pixels."""
    try:
        for name, at, length in png_chunks(file, check=False):
            if name == b"eXIf":
                file.seek(at)
                return file.read(length)
    except Broken:
        pass  # then reading its pixels is an error
    return None


class Broken(Exception):
    """A chain of chunks breaks off; the message says where."""


def png_chunks(file: BinaryIO, *, check: bool) -> Iterator[tuple[bytes, int, int]]:
    """(name, where its body starts, length) of each chunk of a PNG up to IEND; raises Broken."""
    size = file.seek(0, 2)
    at = len(_PNG)
    while at + 12 <= size:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        if at + 12 + length > size:
            raise Broken(f"{size} bytes of {at + 12 + length} promised")
        if check:
            body, stated = file.read(length), file.read(4)
            if zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(stated, "big"):
                raise Broken(f"the checksum of its chunk at byte {at} is wrong")
        yield name, at + 8, length
        if name == b"IEND":
            return
        at += 12 + length


def _jpeg_damage(data: bytes) -> str | None:
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return f"no marker at byte {at}"
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker == 0xD9:
            return None
        elif marker in _JPEG_ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if marker == 0xDA:
                found = _JPEG_MARKER.search(data, at)
                if found is None:
                    return "it ends before its end marker"
                at = found.end() - 2
    return None if data[at : at + 2] == b"\xff\xd9" else "it ends before its end marker"


def _webp(start: bytes) -> Head:
    """A WebP's canvas: its extended header (RFC 9649), else that of its one frame (RFC 6386, RFC 9649)."""
    chunk, several = start[12:16], None
    width = height = 1
    if chunk == b"VP8X" and len(start) >= 30:
        width, height = (1 + int.from_bytes(start[at : at + 3], "little") for at in (24, 27))
        several = "an animated WebP" if start[20] & 2 else None
    elif chunk == b"VP8L" and len(start) >= 25:
        bits = int.from_bytes(start[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif chunk == b"VP8 " and len(start) >= 30:
        width, height = (int.from_bytes(start[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return Head("WEBP", (height, width), several)
