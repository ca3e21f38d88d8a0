"""Video files that tests are made of, written with PyAV, and the frames that must come out of them.

Every picture carries its number in a 4x4 grid of blocks, orange for 1 and blue for 0, so that a test can
tell which frame it got, even after lossy coding, turning (the grid is not symmetric) or swapped channels.
"""

from __future__ import annotations

import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("SVT_LOG", "1")  # libsvtav1 writes a banner otherwise

import av
import numpy as np
from numpy.typing import NDArray

from topreward.demo.mp4 import same_priority

GRID = 4
ON, OFF = (230, 170, 40), (20, 60, 120)

SWSCALE_FLAGS = 0x2  # bilinear, swscale's default


@lru_cache(maxsize=64)
def _texture(height: int, width: int) -> NDArray[np.int16]:
    y, x = np.mgrid[: height * 2, : width * 2]
    return (20 * np.sin(x / 5) + 12 * np.cos(y / 7) + 8 * np.sin((x + 2 * y) / 3)).astype(np.int16)[..., None]


def picture(number: int, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB: the number in blocks, over a texture that moves by some pixels a frame."""
    rows = np.arange(height) * GRID // height
    columns = np.arange(width) * GRID // width
    on = (number >> (rows[:, None] * GRID + columns)) & 1
    colours = np.where(on[..., None], np.array(ON, np.int16), np.array(OFF, np.int16))
    top, left = 2 * number % height, 3 * number % width
    colours = colours + _texture(height, width)[top : top + height, left : left + width]
    return colours.clip(0, 255).astype(np.uint8)


def number_of(frame: NDArray[np.uint8]) -> int:
    """The number that a (possibly lossy) picture carries."""
    height, width, _ = frame.shape
    number = 0
    for bit in range(GRID * GRID):
        row, column = divmod(bit, GRID)
        block = frame[
            row * height // GRID + 1 : (row + 1) * height // GRID - 1,
            column * width // GRID + 1 : (column + 1) * width // GRID - 1,
        ].astype(np.int64)
        number |= int(block[..., 0].mean() > block[..., 2].mean()) << bit
    return number


def numbers_of(frames: NDArray[np.uint8]) -> list[int]:
    return [number_of(frame) for frame in frames]


def write_video(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 48,
    fps: int = 30,
    size: tuple[int, int] = (96, 128),
    gop: int | None = 12,
    bframes: int | None = None,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    first_pts: int = 0,
    audio: bool = False,
    tags: tuple[int, int] | None = None,
) -> Path:
    """Write numbered pictures. `size`: (height, width). `pts` with `time_base` makes the frame rate variable.

    `tags`: FFmpeg's numbers for (colour matrix, colour range); the pixels are converted to match.
    """
    if codec not in av.codecs_available:
        raise RuntimeError(f"this PyAV ({av.__version__}) cannot encode {codec}, which the tests of video need")
    height, width = size
    base = time_base if time_base is not None else Fraction(1, fps)
    with av.open(str(path), "w", options=container or {}) as output:
        stream: Any = output.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        stream.codec_context.time_base = base
        if gop is not None:
            stream.gop_size = gop
        if bframes is not None:
            stream.max_b_frames = bframes
        if tags is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = tags
        stream.options = dict(options or {})
        with same_priority():
            stream.codec_context.open(strict=False)
        sound: Any = output.add_stream("aac", rate=16000) if audio else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, height, width), format="rgb24")
            if tags is not None:
                frame = frame.reformat(format=pix_fmt, dst_colorspace=tags[0], dst_color_range=tags[1])
                frame.colorspace, frame.color_range = tags
            frame.pts = pts[number] if pts is not None else first_pts + number
            frame.time_base = base
            output.mux(stream.encode(frame))
            if sound is not None:
                output.mux(sound.encode(_silence(number, 16000 // fps)))
        output.mux(stream.encode(None))
        if sound is not None:
            output.mux(sound.encode(None))
    return path


def _silence(number: int, samples: int) -> Any:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, samples), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 16000, number * samples
    return frame


def write_sound(path: Path) -> Path:
    """An MP4 with no picture in it."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("aac", rate=16000)
        for number in range(20):
            output.mux(stream.encode(_silence(number, 1024)))
        output.mux(stream.encode(None))
    return path


def copy_from(source: Path, target: Path, *, start: int = 0, zero: int = 0) -> Path:
    """Copy the packets of a video from packet `start` on, without decoding, times counted from frame `zero`.

    With frame `zero` later than the first packet copied this is what `ffmpeg -ss … -c copy` writes: the
    packets from the keyframe on, and in MP4 an edit list that hides what comes before time 0.
    """
    with av.open(str(source)) as original, av.open(str(target), "w") as output:
        stream = original.streams.video[0]
        packets = [packet for packet in original.demux(stream) if packet.size]
        shift = sorted(packet.pts for packet in packets)[zero]
        copied = output.add_stream_from_template(stream, opaque=True)
        for packet in packets[start:]:
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = copied
            output.mux(packet)
    return target


def decode_all(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """((T, H, W, 3) RGB, (T,) s) of one full decode from the start, one thread, as the container says."""
    frames, seconds = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            full = frame.format.name.startswith("yuvj") or int(frame.color_range) == 2
            rgb = frame.to_ndarray(
                format="rgb24", interpolation=SWSCALE_FLAGS, src_color_range=2 if full else 1, dst_color_range=2
            )
            frames.append(rgb)
            seconds.append(frame.pts * stream.time_base)
    start = min(seconds)
    return np.stack(frames), np.array([float(s - start) for s in seconds])


def packets_of(path: Path) -> list[Any]:
    """The video's packets in decode order; `pos` and `size` say where they lie in the file."""
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(container.streams.video[0]) if packet.size]


def flip(path: Path, target: Path, at: int, bit: int = 3) -> Path:
    """A copy with one bit flipped."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    target.write_bytes(data)
    return target


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + length]
        at += length


def change_box(path: Path, names: Sequence[bytes], change: Callable[[bytes], bytes]) -> Path:
    """Change the payload of one kind of box in an MP4 whose index is at its end (so that no offset moves)."""

    def changed(data: bytes, names: Sequence[bytes]) -> bytes:
        out = b""
        for name, payload in _boxes(data):
            if name == names[0]:
                payload = change(payload) if len(names) == 1 else changed(payload, names[1:])
            out += struct.pack(">I", 8 + len(payload)) + name + payload
        return out

    path.write_bytes(changed(path.read_bytes(), names))
    return path


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into an MP4: (x, y) is shown at (ax + cy, bx + dy), units of 1."""
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    return change_box(path, (b"moov", b"trak", b"tkhd"), lambda box: box[:40] + matrix + box[76:])


def set_edit_list(path: Path, *entries: tuple[int, int]) -> Path:
    """Write an edit list into an MP4: (duration in ms, media time in the track's units; -1 for a pause) each."""
    body = struct.pack(">II", 0, len(entries))
    for duration, media_time in entries:
        body += struct.pack(">IiHH", duration, media_time, 1, 0)
    return change_box(path, (b"moov", b"trak", b"edts", b"elst"), lambda _: body)


def measure_speed(folder: Path) -> None:
    """Print what it takes to open a video and to read 32 of its 1000 frames, best of 9, and whether they are right."""
    from topreward.video import read_video

    wanted = np.linspace(0, 999, 32).astype(int)
    files = {
        "H.264, GOP 2": ("libx264", 2, {"preset": "veryfast"}),
        "H.264, GOP 250": ("libx264", 250, {"preset": "veryfast"}),
        "AV1, GOP 2": ("libsvtav1", 2, {"preset": "10"}),
    }
    for name, (codec, gop, options) in files.items():
        path = write_video(folder / "speed.mp4", codec, frames=1000, size=(480, 640), gop=gop, options=options)
        for backend in ("pyav", "decord"):
            spent = []
            try:
                for _ in range(9):
                    marks = [(time.perf_counter(), time.process_time())]
                    clip = read_video(path, backend=backend)
                    marks.append((time.perf_counter(), time.process_time()))
                    frames = clip.frames(wanted)
                    marks.append((time.perf_counter(), time.process_time()))
                    spent.append(np.diff(marks, axis=0))
            except ValueError as error:
                print(f"{name:15} {backend:7} {error}")
                continue
            (open_wall, open_cpu), (read_wall, read_cpu) = np.min(spent, axis=0)
            print(
                f"{name:15} {backend:7} open {open_wall:.3f} s (CPU {open_cpu:.3f}), 32 frames {read_wall:.3f} s "
                f"(CPU {read_cpu:.3f}), all right: {numbers_of(frames) == wanted.tolist()}"
            )


def measure_damage(folder: Path, count: int = 100) -> None:
    """Print how often one flipped bit in a packet is noticed when its frame is asked for, by codec."""
    from topreward.video import read_video

    quiet = "log-level=none"
    files = {
        "H.264 (CABAC)": ("libx264", {}),
        "H.264 (CAVLC)": ("libx264", {"x264-params": "cabac=0"}),
        "HEVC": ("libx265", {"x265-params": quiet, "preset": "veryfast"}),
        "HEVC with hashes": ("libx265", {"x265-params": f"{quiet}:hash=1", "preset": "veryfast"}),
        "VP9": ("libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}),
        "AV1": ("libsvtav1", {"preset": "10"}),
        "MPEG-4": ("mpeg4", {}),
    }
    for name, (codec, options) in files.items():
        path = write_video(folder / "whole.mp4", codec, frames=120, size=(480, 640), gop=50, options=options)
        clip, packets = read_video(path), packets_of(path)
        times = sorted(packet.pts for packet in packets)
        random = np.random.default_rng(0)
        tally = {"noticed": 0, "no effect": 0, "another picture": 0}
        for _ in range(count):
            packet = packets[random.integers(len(packets))]
            at = packet.pos + int(random.integers(min(20, packet.size - 1), packet.size))
            damaged = flip(path, folder / "damaged.mp4", at, int(random.integers(8)))
            index = [times.index(packet.pts)]
            try:
                same = np.array_equal(read_video(damaged).frames(index), clip.frames(index))
                tally["no effect" if same else "another picture"] += 1
            except ValueError:
                tally["noticed"] += 1
        print(f"{name:17} {count} bits flipped: " + ", ".join(f"{number} {what}" for what, number in tally.items()))


if __name__ == "__main__":  # the figures of docs/video.md
    with tempfile.TemporaryDirectory() as name:
        measure_speed(Path(name))
        measure_damage(Path(name))
