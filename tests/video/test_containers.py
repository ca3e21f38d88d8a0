"""What containers leave unsaid: where they end, which frames a camera dropped, which way up one picture stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from topreward.errors import VideoError
from topreward.video import read_video
from videos import decode_all, numbers_of, packets_of, set_display_matrix, write_video

# --- the end --------------------------------------------------------------------------------------------


def write_animation(path: Path, frames: int = 12) -> Path:
    """Small pictures that change a little, as Pillow stores them: one whole, then the parts that change."""
    pictures = []
    for number in range(frames):
        pixels = np.full((48, 64, 3), (20, 60, 120), np.uint8)
        pixels[10:20, 4 * number : 4 * number + 9] = (230, 170, 40)
        pictures.append(Image.fromarray(pixels))
    kind = {".gif": "GIF", ".apng": "PNG", ".webp": "WEBP", ".tif": "TIFF"}[path.suffix]
    pictures[0].save(path, format=kind, save_all=True, append_images=pictures[1:], duration=50, disposal=1)
    return path


WITH_AN_END: dict[str, Callable[[Path], Path]] = {
    "parts.gif": write_animation,
    "whole.gif": lambda path: write_video(path, "gif", gop=None, pix_fmt="rgb8", fps=10, frames=12),
    "parts.apng": write_animation,
    "raw.y4m": lambda path: write_video(path, "rawvideo", gop=None, frames=12),
    "vp8.ivf": lambda path: write_video(path, "libvpx", options={"cpu-used": "8", "deadline": "realtime"}, frames=12),
    "av1.ivf": lambda path: write_video(path, "libsvtav1", options={"preset": "12"}, frames=12),
}


@pytest.mark.parametrize("name", WITH_AN_END)
def test_a_file_cut_anywhere_is_no_shorter_video(name: str, tmp_path: Path) -> None:
    path = WITH_AN_END[name](tmp_path / name)
    truth, _ = decode_all(path)
    clip = read_video(path)
    assert clip.num_frames == 12
    for index in (11, 3, 7):
        np.testing.assert_array_equal(clip.frames([index])[0], truth[index])
    whole = path.read_bytes()
    ends = {len(whole) - 1, len(whole) - 2, *(len(whole) * part // 10 for part in range(1, 10))}
    if path.suffix != ".y4m":  # which has no end mark and states no number
        ends |= {p.pos for p in packets_of(path)[1:] if p.pos} | {
            p.pos + p.size for p in packets_of(path)[:-1] if p.pos
        }
    for end in sorted(ends):
        path.write_bytes(whole[:end])
        with pytest.raises(VideoError) as caught:
            read_video(path)
        assert name in str(caught.value), f"cut at {end} of {len(whole)}"
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["film.flv", "film.mxf"])
def test_a_container_that_states_how_long_it_is_is_held_to_it(name: str, tmp_path: Path) -> None:
    codec = {"film.flv": "flv", "film.mxf": "mpeg2video"}[name]
    path = write_video(tmp_path / name, codec, gop=4, fps=25, frames=12)
    assert read_video(path).num_frames == 12
    whole, reasons = path.read_bytes(), set()
    for end in range(len(whole) // 2, len(whole) * 9 // 10, len(whole) // 300):
        path.write_bytes(whole[:end])
        with pytest.raises(VideoError, match="corrupt or truncated: read") as caught:
            read_video(path)
        reasons.add("it ends after" in str(caught.value) or "of 12 frames promised" in str(caught.value))
    assert True in reasons  # some cuts lie between two frames


def test_the_middle_of_a_gif_that_is_gone_is_missed(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "parts.gif")
    whole = path.read_bytes()
    path.write_bytes(whole[:400] + bytes(200) + whole[600:])
    with pytest.raises(VideoError, match=r"corrupt or truncated"):
        read_video(path)


@pytest.mark.parametrize("name", ["moving.webp", "stack.tif"])
def test_several_pictures_in_an_image_file_say_what_they_are(name: str, tmp_path: Path) -> None:
    path = write_animation(tmp_path / name)
    with pytest.raises(VideoError, match=r"an animated WebP|a TIFF of several pictures") as caught:
        read_video(path)
    assert "one a file, or as a video" in str(caught.value)
    other = path.rename(tmp_path / "video.mp4")
    with pytest.raises(VideoError, match=r"an animated WebP|a TIFF"):
        read_video(other)


# --- dropped frames -------------------------------------------------------------------------------------

DROPPED: dict[str, dict[str, Any]] = {
    "mjpeg": {"codec": "mjpeg", "gop": None, "pix_fmt": "yuvj420p"},
    "mpeg4": {"codec": "mpeg4", "bframes": 0},
    "ffv1": {"codec": "ffv1", "gop": None},
    "h264": {"codec": "libx264", "bframes": 0},
}


@pytest.mark.parametrize("name", DROPPED)
@pytest.mark.parametrize("dropped", [{7, 8, 20}, {1, 28}, set(range(5, 25)), set(range(1, 29, 2))], ids=str)
def test_frames_that_a_camera_dropped_leave_the_one_before_on(name: str, dropped: set[int], tmp_path: Path) -> None:
    kept = [number for number in range(30) if number not in dropped]
    path = write_video(tmp_path / "dropped.avi", frames=len(kept), fps=10, pts=kept, **DROPPED[name])
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > len(kept), "the header counts dropped frames"
    truth, seconds = decode_all(path)
    if name != "h264":  # AVI has decoding times only, and x264 shifts those
        np.testing.assert_allclose(seconds, np.array(kept) / 10, atol=1e-9)
    clip = read_video(path)
    assert numbers_of(clip.frames(np.arange(clip.num_frames))) == list(range(len(kept)))
    np.testing.assert_allclose(clip.pts_seconds, seconds, atol=1e-9)
    for index in (len(kept) - 1, 4, 0):
        np.testing.assert_array_equal(clip.frames([index])[0], truth[index])
    whole = path.read_bytes()
    for end in (len(whole) // 3, len(whole) // 2, packets_of(path)[-1].pos):
        path.write_bytes(whole[:end])
        with pytest.raises(VideoError):
            read_video(path)


# --- which way up ---------------------------------------------------------------------------------------


def display_orientation(quarter_turns: int) -> bytes:
    """The payload of an H.264/HEVC SEI message `display orientation` (47)."""
    # cancel 0, flips 00, anticlockwise rotation 16 bits, repetition period ue(0) = 1, extension 0, then the stop bit
    bits = f"000{quarter_turns * 0x4000:016b}" + "1" + "0" + "1"
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def with_messages(source: Path, target: Path, turns: dict[int, int]) -> Path:
    """A copy in which some packets begin with a display orientation message."""
    with av.open(str(source)) as original, av.open(str(target), "w") as output:
        stream = original.streams.video[0]
        copied = output.add_stream_from_template(stream, opaque=True)
        head = b"\x06" if stream.codec_context.name == "h264" else b"\x4e\x01"  # the unit's type: SEI
        for number, packet in enumerate(p for p in original.demux(stream) if p.size):
            data = bytes(packet)
            if number in turns:
                payload = display_orientation(turns[number])
                unit = head + bytes([47, len(payload)]) + payload + b"\x80"
                data = len(unit).to_bytes(4, "big") + unit + data
            new = av.Packet(data)
            new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
            new.is_keyframe = packet.is_keyframe
            new.stream = copied
            output.mux(new)
    return target


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_turn_within_the_stream_must_hold_throughout(codec: str, tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    plain = write_video(tmp_path / "plain.mp4", codec, frames=20, gop=5, bframes=0, options=options)
    truth, _ = decode_all(plain)

    throughout = with_messages(plain, tmp_path / "throughout.mp4", dict.fromkeys(range(20), 1))
    clip = read_video(throughout)
    assert (clip.height, clip.width) == (128, 96)
    for index in (0, 13):
        np.testing.assert_array_equal(clip.frames([index])[0], np.rot90(truth[index]))

    for odd, turn in ((7, 2), (7, 1), (19, 2)):
        clip = read_video(with_messages(plain, tmp_path / "odd.mp4", {odd: turn}))
        with pytest.raises(VideoError, match=r"odd\.mp4: its orientation changes on the way"):
            clip.frames(np.arange(20))
        assert numbers_of(clip.frames([2])) == [2]
        with pytest.raises(VideoError, match="orientation changes"):
            clip.frames([odd])


def test_a_turn_of_the_first_picture_alone(tmp_path: Path) -> None:
    # FFmpeg lets it hold for that picture in H.264, and for all after it in HEVC; so for each the file is read as one.
    plain = write_video(tmp_path / "h264.mp4", frames=20, gop=5, bframes=0)
    with pytest.raises(VideoError, match="orientation changes"):
        read_video(with_messages(plain, tmp_path / "first.mp4", {0: 2})).frames([1])
    options = {"x265-params": "log-level=none"}
    plain = write_video(tmp_path / "hevc.mp4", "libx265", frames=20, gop=5, bframes=0, options=options)
    clip = read_video(with_messages(plain, tmp_path / "first.mp4", {0: 2}))
    for index in (0, 3, 12, 17):
        np.testing.assert_array_equal(clip.frames([index])[0], np.rot90(decode_all(plain)[0][index], 2))


def test_a_turn_of_the_container_comes_before_one_of_a_picture(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.mp4", frames=20, gop=5, bframes=0)
    clip = read_video(set_display_matrix(with_messages(plain, tmp_path / "both.mp4", {7: 1}), -1, 0, 0, -1))
    for index in (2, 7):
        np.testing.assert_array_equal(clip.frames([index])[0], np.rot90(decode_all(plain)[0][index], 2))
