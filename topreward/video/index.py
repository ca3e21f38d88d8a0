"""What a container says about its video, read without decoding. In: a file. Out: an `Index`.

The index lists every packet in decode order, which of them are shown and when, and from which packets a
decoder may start. It knows nothing of pixels. A file that ends early is found here where its container
promises a number of frames or bytes, or has an end (MP4, AVI, Matroska, GIF, APNG, y4m, IVF); MPEG-TS and the like
promise nothing.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from topreward.errors import MemoryLimitError, VideoError
from topreward.limits import hold, hold_fps, limit
from topreward.video import chains, matroska, still_bytes
from topreward.video.mp4_claims import check_claims
from topreward.video.pixels import check_size, most_pixels

# Demuxers that read one self-contained file. Playlists (hls, concat, …) would open other files and addresses
# that an untrusted video names. Audio formats and bare streams are here only for a clearer error.
_FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,gif,apng,ogg,asf,mxf,nut,ivf,dv,rm,wtv,yuv4mpegpipe,"
    "h264,hevc,obu,av1,m4v,mjpeg,wav,mp3,aac,flac,ogg,w64,aiff"
)
# Metadata may be in any encoding. From 19 on PyAV reads them all, and the option is gone.
_ANY_ENCODING: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


class Run(NamedTuple):
    """Packets to decode in one go, from a keyframe to the last packet that is needed; both included."""

    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Index:
    """The packets of one video stream; P packets in decode order, T frames in display order."""

    stream: int
    """The stream's number in its container."""
    container: str
    """FFmpeg's name of the demuxer, e.g. `mov,mp4,m4a,3gp,3g2,mj2`."""
    codec: str
    """FFmpeg's name of the codec, e.g. `h264` or `av1`."""
    time_base: Fraction
    """s per unit of `pts` and `seek_to`."""
    pts: NDArray[np.int64]
    """(P,) presentation time of each packet's frame."""
    seek_to: NDArray[np.int64]
    """(P,) what to ask the demuxer for to land on this packet or before it: the decoding time, if known."""
    keyframe: NDArray[np.bool_]
    """(P,) may decoding start here?"""
    shown: NDArray[np.int64]
    """(T,) packet of each displayed frame; `pts[shown]` increases strictly."""
    fps: float
    """Nominal frames/s, see `_nominal_rate`."""
    hidden: int
    """Packets that an edit list hides: decoded, because others refer to them, but not shown."""
    unique: bool
    """No two packets have one pts, so that a packet is known by it after a seek."""
    unproven_order: bool
    """The codec reorders frames, but the pts never do: the container may hold decoding times only (AVI)."""
    start: int = 0
    """The packet where decoding starts."""

    @property
    def num_frames(self) -> int:
        """T."""
        return int(self.shown.size)

    @cached_property
    def display_pts(self) -> NDArray[np.int64]:
        """(T,) presentation times of the displayed frames, strictly increasing."""
        return self.pts[self.shown]

    @cached_property
    def display_number(self) -> NDArray[np.int64]:
        """(P,) which displayed frame each packet holds, -1 for none."""
        numbers = np.full(self.pts.size, -1, dtype=np.int64)
        numbers[self.shown] = np.arange(self.shown.size)
        return numbers

    @cached_property
    def by_pts(self) -> NDArray[np.int64]:
        """(P,) packets in order of presentation."""
        return np.argsort(self.pts, kind="stable")

    @property
    def pts_seconds(self) -> NDArray[np.float64]:
        """(T,) s, the first displayed frame at 0."""
        # Subtract in integers: a stream that starts at 10^5 s loses nothing.
        since_start = self.display_pts - self.display_pts[0]
        seconds: NDArray[np.float64] = since_start * self.time_base.numerator / self.time_base.denominator
        return seconds

    @property
    def closed_gops(self) -> bool:
        """No group of pictures refers into the one before: all after a keyframe is displayed after it."""
        earliest_from_here = np.minimum.accumulate(self.pts[::-1])[::-1]
        return bool((earliest_from_here == self.pts)[self.keyframe].all())

    def runs(self, wanted: NDArray[np.int64]) -> list[Run]:
        """The least that must be decoded for the `wanted` displayed frames (strictly increasing)."""
        keyframes = np.flatnonzero(self.keyframe)
        needed: list[Run] = []
        for packet in self.shown[wanted]:
            after = int(np.searchsorted(keyframes, packet, side="right"))
            # A keyframe displayed later than the frame does not help: the frame is one of its leading
            # pictures, which refer to what came before it.
            at = after - 1
            while at >= 0 and self.pts[keyframes[at]] > self.pts[packet]:
                at -= 1
            last = int(packet)
            if self.unproven_order:
                # Decode to the end of the group of pictures; the order in which frames come out tells.
                last = int(keyframes[after]) - 1 if after < keyframes.size else self.pts.size - 1
            needed.append(Run(max(int(keyframes[at]) if at >= 0 else 0, self.start), last))
        merged: list[Run] = []
        for run in sorted(needed):
            if merged and run.first <= merged[-1].last + 1:
                merged[-1] = Run(merged[-1].first, max(merged[-1].last, run.last))
            else:
                merged.append(run)
        return merged

    def expected(self, run: Run) -> NDArray[np.int64]:
        """The displayed frames that decoding exactly this run must yield, in order."""
        numbers = np.sort(self.display_number[run.first : run.last + 1])
        numbers = numbers[numbers >= 0]
        if run.first > self.start:  # leading pictures of the first keyframe lack what they refer to
            numbers = numbers[self.display_pts[numbers] >= self.pts[run.first]]
        return numbers

    @property
    def first_keyframe(self) -> int:
        """The first packet from which decoding may start; 0 where the container marks none."""
        return int(np.argmax(self.keyframe))

    def starting_at(self, packet: int) -> Index:
        """The same without what comes before a packet in decode order."""
        return replace(self, start=packet, shown=self.shown[self.shown >= packet])

    def without(self, frames: int) -> Index:
        """The same without the first displayed frames."""
        return replace(self, shown=self.shown[frames:])


def read_index(path: str, name: str) -> Index:
    """Index the first video stream of a file.

    `path` is opened, `name` stands in messages. Raises VideoError for files that are not videos, are cut
    short, hold no video or one that this FFmpeg cannot decode, or whose frame times are missing or doubled.
    """
    check_claims(path, name)
    with opened(path, name) as container:
        stream = _video_stream(container, name)
        packets, raw_count, trouble = _scan(container, stream, name)
        _check_whole(path, name, container, stream, raw_count, packets, trouble)
        return _build(name, stream, packets)


@contextmanager
def opened(path: str, name: str, **options: str) -> Iterator[Any]:
    """An open PyAV container; FFmpeg's errors from opening it become VideoErrors."""
    # FFmpeg may decode a frame just to learn its size.
    decoding = {"max_pixels": str(most_pixels())}
    safe = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
    try:
        # "file:" so that no name is taken for another protocol.
        container = av.open(
            f"file:{path}", mode="r", options=decoding, container_options=safe | options, **_ANY_ENCODING
        )
    except MemoryError as error:
        raise MemoryLimitError(f"{name}: no room to open it") from error
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"{name}: not a video that can be read ({_why_unreadable(path, error)})") from error
    with container:
        yield container


def reason(error: Exception) -> str:
    """FFmpeg's words for an error, without the file name it repeats."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]


def _why_unreadable(path: str, error: Exception) -> str:
    try:
        with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[4:8] == b"ftyp" and data.find(b"moov") < 0:
                return "an MP4 without its index: cut short, or still being written"
            file.seek(0)
            if (kind := still_bytes.several(file)) is not None:
                return f"{kind}: write its pictures one a file, or as a video"
    except (OSError, ValueError):
        pass  # then FFmpeg's own reason says why it cannot be opened
    return reason(error)


def _video_stream(container: Any, name: str) -> Any:
    # An attached picture is the cover of an audio file.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        others = ", ".join(s.type for s in container.streams) or "none"
        raise VideoError(f"{name}: holds no video (streams: {others})")
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{name}: its video codec is not one that this FFmpeg build can decode")
    height, width = stream.codec_context.height, stream.codec_context.width
    if not height or not width:
        raise VideoError(f"{name}: states no frame size, or one beyond TOPREWARD_MAX_PICTURE_PIXELS")
    check_size(name, height, width)
    return stream


class _Packet(NamedTuple):
    size: int
    pts: int | None
    dts: int | None
    keyframe: bool
    hidden: bool


def _scan(container: Any, stream: Any, name: str) -> tuple[list[_Packet], int, str | None]:
    """Packets that hold a picture, how many there are with empty ones, and what stopped the reading."""
    packets: list[_Packet] = []
    raw_count, most = 0, limit("max_frames")
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                return packets, raw_count, "a packet is damaged"
            if packet.dts is not None or packet.size:  # neither: PyAV's end-of-file packet
                raw_count += 1
                if raw_count > most:
                    hold("max_frames", raw_count, name, error=VideoError)
            if packet.size:
                packets.append(_Packet(packet.size, packet.pts, packet.dts, packet.is_keyframe, packet.is_discard))
    except av.FFmpegError as error:
        return packets, raw_count, reason(error)
    return packets, raw_count, None


def _check_whole(
    path: str, name: str, container: Any, stream: Any, raw_count: int, packets: list[_Packet], trouble: str | None
) -> None:
    promised, count = int(stream.frames), len(packets)
    if "mp4" in container.format.name:
        # Fragments state no number; the demuxer's own list of samples does, once it has read them all.
        promised = max(promised, len(getattr(stream, "index_entries", ())))
        if trouble is None and raw_count < promised:
            # An edit list may leave out whole groups of pictures: compare without it.
            with opened(path, name, ignore_editlist="1") as plain:
                raw_count = _scan(plain, plain.streams[stream.index], name)[1]
    elif container.format.name == "mxf":
        promised = max(promised, int(stream.duration or 0))  # which it states in frames
    if trouble is not None:
        read = f"{count} of {promised} frames promised" if promised else f"{count} frames"
        raise VideoError(f"{name}: corrupt or truncated: read {read} ({trouble})")
    if raw_count < promised and container.format.name == "avi":
        raw_count += chains.dropped_frames(path, stream.index)  # which the header counts, and FFmpeg leaves out
    if raw_count < promised:
        raise VideoError(f"{name}: corrupt or truncated: read {raw_count} of {promised} frames promised")
    if "matroska" in container.format.name and (trouble := matroska.damage(path, raw_count)) is not None:
        raise VideoError(f"{name}: corrupt or truncated: read {count} frames ({trouble})")
    if count == 0:
        raise VideoError(f"{name}: holds no frames")
    if container.format.name == "flv" and (trouble := _ends_early(container, stream, packets)) is not None:
        raise VideoError(f"{name}: corrupt or truncated: read {count} frames ({trouble})")
    if (trouble := chains.damage(container.format.name, path, raw_count, packets[0].size)) is not None:
        raise VideoError(f"{name}: corrupt or truncated: read {count} frames ({trouble})")


def _ends_early(container: Any, stream: Any, packets: list[_Packet]) -> str | None:
    """What an FLV lacks of the time that it states, in words; sound may go on after the film, so with it, nothing."""
    times = [packet.pts for packet in packets if packet.pts is not None]
    if len(container.streams) > 1 or not times or not container.duration or not stream.average_rate:
        return None
    end, stated = float(max(times) * stream.time_base), container.duration / av.time_base
    return f"it ends after {end:.3f} s of {stated:.3f} s" if stated - end > 2.5 / float(stream.average_rate) else None


def _build(name: str, stream: Any, packets: list[_Packet]) -> Index:
    for number, packet in enumerate(packets):
        if packet.pts is None:
            raise VideoError(f"{name}: packet {number} has no presentation time; remux it, e.g. to MP4")
    pts = np.array([p.pts for p in packets], dtype=np.int64)
    hidden = np.array([p.hidden for p in packets], dtype=np.bool_)
    shown = np.flatnonzero(~hidden)
    if shown.size == 0:
        raise VideoError(f"{name}: holds no frames ({len(packets)} packets, all hidden by its edit list)")
    shown = shown[np.argsort(pts[shown], kind="stable")]
    doubled = np.flatnonzero(np.diff(pts[shown]) == 0)
    if doubled.size:
        at = float(pts[shown[doubled[0]]] * stream.time_base)
        raise VideoError(
            f"{name}: frames {doubled[0]} and {doubled[0] + 1} have one presentation time, {at:.6g} s "
            f"({doubled.size} such pairs)"
        )
    # In Python's integers, for 64 bits may not hold what a file states.
    ticks = int(pts[shown[-1]]) - int(pts[shown[0]])
    if ticks * max(stream.time_base.numerator, 1) >= 2**62 or (pts.max() >= 2**62 or pts.min() <= -(2**62)):
        raise VideoError(
            f"{name}: its frame times go up to {float(ticks * stream.time_base):.3g} s, which no video has"
        )
    fps = _nominal_rate(stream, shown.size, float(ticks * stream.time_base))
    hold_fps(fps, f"{name}: its frame rate", error=VideoError)
    return Index(
        stream=stream.index,
        container=stream.container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        time_base=stream.time_base,
        pts=pts,
        seek_to=np.array([p.pts if p.dts is None else p.dts for p in packets], dtype=np.int64),
        keyframe=np.array([p.keyframe for p in packets], dtype=np.bool_),
        shown=shown,
        fps=fps,
        hidden=int(hidden.sum()),
        unique=np.unique(pts).size == pts.size,
        unproven_order=bool(stream.codec_context.has_b_frames) and bool((np.diff(pts) > 0).all()),
    )


def _nominal_rate(stream: Any, num_frames: int, span_seconds: float) -> float:
    """Frames/s: the container's average where the frame times bear it out to 20 %, else what they measure.

    One frame measures nothing: then the container's average, guessed or base rate, whichever is sane first,
    or 1.0.
    """
    claims = [float(r) for r in (stream.average_rate, stream.guessed_rate, stream.base_rate) if r]
    sane = [rate for rate in claims if limit("min_fps") <= rate <= limit("max_fps")]
    if num_frames == 1:
        return sane[0] if sane else 1.0
    measured = (num_frames - 1) / span_seconds
    return next((rate for rate in sane[:1] if abs(rate / measured - 1) <= 0.2), measured)
