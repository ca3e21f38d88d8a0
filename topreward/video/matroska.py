"""Is a Matroska or WebM file whole? In: its path, and how many packets FFmpeg found. Out: what is wrong.

FFmpeg reads such a file up to where it ends, and where its structure is broken it searches for the next
intact piece: either way frames go missing without an error. But the elements of the format lie back to back,
each with its length, so a walk over their headers finds gaps, and counts the blocks that hold frames. It
reads no payload and knows nothing of codecs. Format: RFC 8794 (EBML) and RFC 9559 (Matroska).
"""

from __future__ import annotations

import mmap
from collections import Counter
from pathlib import Path

_EBML, _SEGMENT, _CLUSTER, _BLOCK_GROUP = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xA0
_SIMPLE_BLOCK, _BLOCK = 0xA3, 0xA1
_ENTERED = frozenset((_SEGMENT, _CLUSTER, _BLOCK_GROUP))
_OTHERS = frozenset(
    (
        # beside clusters: SeekHead, Info, Tracks, Cues, Tags, Chapters, Attachments; anywhere: Void, CRC-32
        *(0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469, 0xEC, 0xBF),
        # in clusters: Timestamp, Position, PrevSize, SilentTracks, EncryptedBlock
        *(0xE7, 0xA7, 0xAB, 0x5854, 0xAF),
        # in block groups: BlockAdditions, BlockDuration, ReferencePriority, ReferenceBlock, ReferenceVirtual,
        # CodecState, DiscardPadding, Slices, ReferenceFrame, BlockVirtual
        *(0x75A1, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x8E, 0xC8, 0xA2),
    )
)
_KNOWN = _ENTERED | _OTHERS | {_EBML, _SIMPLE_BLOCK, _BLOCK}


def damage(path: str, packets: int) -> str | None:
    """What keeps the file from being one unbroken chain of elements with as many blocks as `packets` in one
    of its tracks, in words; None where it is one."""
    blocks: Counter[int] = Counter()  # by track number
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, end = 0, len(data)
        while at < end:
            header = _header(data, at)
            if header is None or header[0] not in _KNOWN:
                return f"its structure breaks off at byte {at} of {len(data)}"
            element, body, length = header
            if length is None and element not in (_SEGMENT, _CLUSTER):
                return f"the element at byte {at} has no length"
            if length is not None and body + length > len(data):
                return f"{len(data)} bytes of {body + length} promised"
            if element in (_SIMPLE_BLOCK, _BLOCK) and length:
                blocks[_number(data, body)[0]] += 1
            if element == _SEGMENT:
                end = len(data) if length is None else body + length  # what follows the segment is not ours
            at = body if element in _ENTERED else body + (length or 0)
    if packets not in blocks.values():
        return f"no track has {packets} blocks, but {', '.join(map(str, blocks.values())) or 'none'}"
    return None


def _header(data: mmap.mmap, at: int) -> tuple[int, int, int | None] | None:
    """(element id, where its body starts, its length or None for unknown) at a byte; None if there is none."""
    length_at = at + 9 - data[at].bit_length()
    if length_at > at + 4 or length_at >= len(data):
        return None
    length, body = _number(data, length_at)
    if body > length_at + 8 or body > len(data):
        return None
    unknown = (1 << 7 * (body - length_at)) - 1
    return int.from_bytes(data[at:length_at], "big"), body, None if length == unknown else length


def _number(data: mmap.mmap, at: int) -> tuple[int, int]:
    """(value, where it ends) of EBML's variable-length integer; its leading zero bits say how long it is."""
    size = 9 - data[at].bit_length()
    return int.from_bytes(data[at : at + size], "big") & ((1 << 7 * size) - 1), at + size
