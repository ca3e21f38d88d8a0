"""Frames of a video file by PyAV. In: an index and the numbers of frames. Out: exactly these, or VideoError.

Decoding goes forward from the keyframe before each wanted frame. Nothing is taken on trust: what comes out
must be, frame for frame, what the index says of this stretch of packets. Where it is not (a keyframe from
which the decoder cannot start after all, a demuxer that lands too late), the file is decoded from its start
and frames are counted, which needs no assumption. Where that fails too, the file is at fault.

Each call opens the file anew, so a `Clip` can be pickled and used by several threads at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from topreward.errors import VideoError
from topreward.types import Clip
from topreward.video import stills
from topreward.video.index import Index, Run, opened, read_index, reason
from topreward.video.pixels import RGB, Turn, check_size, empty_frames, most_pixels, turn_of

_SKIM = 64
"""packets; a shorter way to the next keyframe is read through, a longer one is sought."""

_MAX_THREADS = 4
"""Beyond, frame threads help little, and every loading process has its own."""


class _Unproven(Exception):
    """What came out after a seek is not what the index says; start from the beginning."""


def read_pyav(path: Path) -> Clip:
    """Open a video file. Raises VideoError, see `read_index`, and where its first frame cannot be decoded."""
    name = str(path)
    absolute = str(stills.absolute(path))
    index = read_index(absolute, name)
    index, first = _first_frame(absolute, name, index)
    turn = turn_of(first, name)
    height, width = RGB(name, turn)(first).shape[:2]
    return Clip(
        pts_seconds=index.pts_seconds,
        fps=index.fps,
        height=height,
        width=width,
        decode=PyAVFrames(absolute, name, path.stat().st_size, index, height, width, turn),
        source=name,
    )


def _first_frame(path: str, name: str, index: Index) -> tuple[Index, Any]:
    """The first frame that decoding yields, and the index from this frame on.

    A stream cut out of a longer one may begin with pictures that refer to what was cut off: all before its
    first keyframe, and those after it that are displayed before it. No decoder can show them, so they are
    not frames of this video.
    """
    try:
        first = _decode_first(path, name, index)
        sound_start = first.key_frame or index.first_keyframe == 0
    except VideoError:
        if index.first_keyframe == 0:
            raise
        sound_start = False
    if not sound_start:  # an error, or a picture made up from others that are not there
        index = index.starting_at(index.first_keyframe)
        first = _decode_first(path, name, index)
    check_size(name, first.height, first.width)
    if index.unproven_order:
        return index, first
    position = int(np.searchsorted(index.display_pts, first.pts))
    if position == index.num_frames or index.display_pts[position] != first.pts:
        raise VideoError(f"{name}: its first frame has a time that no packet has ({first.pts})")
    cut, keyframe = index.shown[:position], index.first_keyframe
    leading = (cut > keyframe) & (index.pts[cut] < index.pts[keyframe])
    if not ((cut < keyframe) | leading).all():
        raise _too_few(name, 0, index, f"decoding starts at frame {position}")
    return index.without(position), first


def _decode_first(path: str, name: str, index: Index) -> Any:
    with opened(path, name) as container:
        stream = _stream(container, index, strict=False)
        try:
            first = next(_all_frames(container, stream, index), None)
        except av.FFmpegError as error:
            raise _too_few(name, 0, index, reason(error)) from error
    if first is None or first.pts is None:
        raise _too_few(name, 0, index, "no frame can be decoded")
    if first.is_corrupt:
        raise _too_few(name, 0, index, "the first frame is damaged")
    return first


@dataclass(frozen=True, eq=False)
class PyAVFrames:
    """`Clip.decode` for a video file. Holds no open file; pickles with its index."""

    path: str
    name: str
    size_bytes: int
    index: Index
    height: int
    width: int
    turn: Turn

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        out = empty_frames(len(indices), self.height, self.width)
        if not Path(self.path).is_file() or Path(self.path).stat().st_size != self.size_bytes:
            raise VideoError(f"{self.name}: gone or changed since it was opened ({self.size_bytes} bytes then)")
        try:
            if not self.index.unique:
                raise _Unproven
            self._from_keyframes(indices, out)
        except _Unproven:
            self._from_start(indices, out)
        return out

    def _from_keyframes(self, wanted: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        rgb = RGB(self.name, self.turn)
        with opened(self.path, self.name) as container:
            stream = _stream(container, self.index, strict=True)
            packets = _Packets(container, stream, self.index)
            try:
                for run in self.index.runs(wanted):
                    for number, frame in self._run(packets, stream.codec_context, run):
                        slot = int(np.searchsorted(wanted, number))
                        if slot < wanted.size and wanted[slot] == number:
                            if turn_of(frame, self.name) != self.turn:  # set by a picture before the keyframe?
                                raise _Unproven
                            out[slot] = self._pixels(rgb, frame)
                    stream.codec_context.flush_buffers()
            except av.FFmpegError as error:
                raise _Unproven from error

    def _run(self, packets: _Packets, decoder: Any, run: Run) -> Iterator[tuple[int, Any]]:
        """(number, frame) of each displayed frame of a run, checked against the index."""
        expected = self.index.expected(run)
        display_pts = self.index.display_pts
        floor = self.index.pts[run.first] if run.first > self.index.start else display_pts[0]
        count = 0
        for packet in packets.of(run):
            for frame in decoder.decode(packet):
                # Below the floor: leading pictures of the keyframe, or what a flush left behind.
                if frame.pts is None or frame.pts < floor:
                    continue
                if count == expected.size or display_pts[expected[count]] != frame.pts or frame.is_corrupt:
                    raise _Unproven
                yield int(expected[count]), frame
                count += 1
        if count < expected.size:
            raise _Unproven

    def _from_start(self, wanted: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        rgb = RGB(self.name, self.turn)
        index = self.index
        display_pts = index.display_pts
        count = slot = 0
        with opened(self.path, self.name) as container:
            stream = _stream(container, index, strict=False)
            try:
                for frame in _all_frames(container, stream, index):
                    if frame.is_corrupt:
                        raise _too_few(self.name, count, index, f"frame {count} is damaged")
                    if count == index.num_frames:
                        raise VideoError(f"{self.name}: holds more frames than the {count} its container states")
                    if frame.pts != display_pts[count] and not index.unproven_order:
                        raise _too_few(self.name, count, index, f"frame {count} is missing or out of order")
                    if wanted[slot] == count:
                        out[slot] = self._pixels(rgb, frame)
                        slot += 1
                        if slot == wanted.size:
                            return
                    count += 1
            except av.FFmpegError as error:
                raise _too_few(self.name, count, index, reason(error)) from error
        raise _too_few(self.name, count, index, "the decoder has no more")

    def _pixels(self, rgb: RGB, frame: Any) -> NDArray[np.uint8]:
        pixels = rgb(frame)
        if pixels.shape[:2] != (self.height, self.width):
            raise VideoError(
                f"{self.name}: its frames change size from {self.height}x{self.width} px to "
                f"{pixels.shape[0]}x{pixels.shape[1]} px"
            )
        return pixels


class _Packets:
    """The packets of a file, known by their number in the index although read from the middle."""

    def __init__(self, container: Any, stream: Any, index: Index) -> None:
        self._container = container
        self._stream = stream
        self._index = index
        self._source: Iterator[Any] = container.demux(stream)
        self._next: int | None = 0  # number of the packet to come; None: not known yet, after a seek

    def of(self, run: Run) -> Iterator[Any]:
        """The run's packets, then None, which makes the decoder give out what it holds back."""
        if self._next is None or run.first - self._next > _SKIM:
            self._container.seek(int(self._index.seek_to[run.first]), stream=self._stream)
            self._source = self._container.demux(self._stream)
            self._next = None
        while self._next is None or self._next <= run.last:
            number, packet = self._read()
            if number is None:
                continue
            self._next = number + 1
            if number >= run.first:
                yield packet
        yield None

    def _read(self) -> tuple[int | None, Any]:
        for packet in self._source:
            if not packet.size:
                continue
            pts = self._index.pts
            if self._next is not None:
                if self._next >= pts.size or packet.pts != pts[self._next]:
                    raise _Unproven
                return self._next, packet
            if packet.pts is None:
                return None, packet
            # After a seek into the middle of a transport stream the first packet can be half a frame.
            at = int(np.searchsorted(pts, packet.pts, sorter=self._index.by_pts))
            found = at < pts.size and pts[self._index.by_pts[at]] == packet.pts
            return (int(self._index.by_pts[at]) if found else None), packet
        raise _Unproven  # the end, before the run was complete


def _stream(container: Any, index: Index, *, strict: bool) -> Any:
    """The indexed stream, its decoder set up to notice damage.

    crccheck: verify checksums where the stream has them. explode: give up on the first error rather than
    conceal it. But H.264 that starts in the middle of an open group of pictures refers, harmlessly, to
    frames that are not there; read from the start (not `strict`), damage is known by the frames' flags.
    """
    stream = container.streams[index.stream]
    h264 = index.codec == "h264"
    if strict and not h264:
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = min(_MAX_THREADS, os.cpu_count() or 1)
    else:
        # Threads lose errors of the H.264 decoder: of 60 files with one bit flipped in a 640x480 video
        # one thread noticed 58, frame threads 47, slice threads (PyAV's default) none. Of other codecs
        # threads noticed as many.
        stream.thread_type = "NONE"
    detect = "crccheck" if h264 and not strict else "crccheck+explode"
    stream.codec_context.options = {"err_detect": detect, "max_pixels": str(most_pixels())}
    return stream


def _all_frames(container: Any, stream: Any, index: Index) -> Iterator[Any]:
    """All frames in display order, decoded from the index's start."""
    with_picture = (packet for packet in container.demux(stream) if packet.size)
    for packet in islice(with_picture, index.start, None):
        yield from stream.codec_context.decode(packet)
    yield from stream.codec_context.decode(None)


def _too_few(name: str, count: int, index: Index, why: str) -> VideoError:
    return VideoError(f"{name}: corrupt or truncated: read {count} of {index.num_frames} frames promised ({why})")
