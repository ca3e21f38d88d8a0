"""Every frame that `read_video` returns is the frame a full decode shows at that place, or there is an error.

The files are made here (tests/support/videos.py), of every codec and container that robot recordings come in, and
then trimmed, turned, cut short and damaged.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from places import SUPPORT
from topreward.errors import VideoError
from topreward.types import Clip
from topreward.video import pyav, read_video
from topreward.video.index import read_index
from topreward.video.pixels import RGB, Turn
from videos import (
    change_box,
    copy_from,
    decode_all,
    flip,
    numbers_of,
    packets_of,
    picture,
    set_display_matrix,
    set_edit_list,
    write_sound,
    write_video,
)

OPEN_GOP_264 = {"x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0:scenecut=0:b-pyramid=normal"}
OPEN_GOP_265 = {"x265-params": "log-level=none:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0:open-gop=1"}
AV1 = {"preset": "12"}
VP9 = {"cpu-used": "8", "deadline": "realtime", "lag-in-frames": "12", "auto-alt-ref": "1"}
VARIABLE = [round(1000 * t) for t in np.cumsum(np.resize([0.04, 0.01, 0.2, 0.033, 0.071], 48))]

KINDS: dict[str, dict[str, Any]] = {
    "h264_gop2.mp4": {"gop": 2, "bframes": 0},
    "h264_gop250.mp4": {"gop": 250},
    "h264_bframes.mp4": {"bframes": 3, "options": {"x264-params": "b-adapt=0:b-pyramid=normal"}},
    "h264_bframes.mkv": {"bframes": 3},
    "h264_bframes.ts": {"bframes": 3},
    "h264_bframes.flv": {"bframes": 3},
    "h264_bframes.avi": {"bframes": 3},
    "h264_faststart.mp4": {"container": {"movflags": "faststart"}},
    "h264_fragments.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "h264_dash.mp4": {"container": {"movflags": "dash+frag_keyframe"}},
    "h264_live.mkv": {"container": {"live": "1"}},
    "h264_open_gop.mp4": {"options": OPEN_GOP_264},
    "h264_open_gop.ts": {"options": OPEN_GOP_264},
    "h264_intra_refresh.mkv": {"options": {"x264-params": "intra-refresh=1:keyint=12"}},
    "h264_sound.mp4": {"audio": True, "bframes": 3},
    "h264_sound.mkv": {"audio": True, "bframes": 3},
    "h264_variable.mp4": {"pts": VARIABLE, "time_base": Fraction(1, 1000), "bframes": 2},
    "h264_variable.mkv": {"pts": VARIABLE, "time_base": Fraction(1, 1000), "bframes": 2},
    "h264_late_start.ts": {"first_pts": 300, "bframes": 3},
    "h264_odd_size.mp4": {"size": (67, 101), "pix_fmt": "yuv444p", "gop": 4},
    "h264_one_frame.mp4": {"frames": 1},
    "hevc_open_gop.mp4": {"codec": "libx265", "options": OPEN_GOP_265},
    "hevc_open_gop.mkv": {"codec": "libx265", "options": OPEN_GOP_265},
    "hevc_open_gop.ts": {"codec": "libx265", "options": OPEN_GOP_265},
    "vp8.webm": {"codec": "libvpx", "options": VP9},
    "vp9.webm": {"codec": "libvpx-vp9", "options": VP9},
    "vp9_odd_size.mp4": {"codec": "libvpx-vp9", "options": VP9, "size": (75, 113)},
    "av1_gop2.mp4": {"codec": "libsvtav1", "gop": 2, "options": AV1},
    "av1_gop30.mp4": {"codec": "libsvtav1", "gop": 30, "options": AV1},
    "av1.webm": {"codec": "libsvtav1", "gop": 10, "options": AV1},
    "mpeg4_bframes.mp4": {"codec": "mpeg4", "bframes": 2},
    "mpeg4_bframes.avi": {"codec": "mpeg4", "bframes": 2},
    "mpeg2_open_gop.ts": {"codec": "mpeg2video", "bframes": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "bframes": 2},
    "mjpeg.avi": {"codec": "mjpeg", "gop": None, "pix_fmt": "yuvj420p"},
    "ffv1.mkv": {"codec": "ffv1", "gop": None},
    "animation.gif": {"codec": "gif", "gop": None, "pix_fmt": "rgb8", "fps": 10},
}

# Read from the start each time, because no packet but the first is a sure start: the container has no
# presentation times, or the encoder's P-frames refer across keyframes.
SLOW = {"h264_bframes.avi", "h264_open_gop.mp4", "h264_open_gop.ts", "h264_intra_refresh.mkv", "mpeg2.mpg"}


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of one of KINDS → its file, made once."""
    folder = tmp_path_factory.mktemp("videos")

    def made(name: str) -> Path:
        path = folder / name
        return path if path.exists() else write_video(path, **KINDS[name])

    return made


@pytest.fixture(params=[0, 10_000], ids=["seeking", "skimming"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to the next keyframe, for these files are too short to show both by themselves."""
    monkeypatch.setattr(pyav, "_SKIM", request.param)


def one_line(caught: pytest.ExceptionInfo[VideoError], name: str) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert name in message
    return message


# --- exact ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", KINDS)
def test_each_frame_is_the_one_that_a_full_decode_shows(name: str, video: Callable[[str], Path]) -> None:
    truth, seconds = decode_all(video(name))
    clip = read_video(video(name))
    assert clip.num_frames == len(truth) == KINDS[name].get("frames", 48)
    assert numbers_of(truth) == list(range(len(truth)))
    assert (clip.height, clip.width) == truth.shape[1:3]
    np.testing.assert_allclose(clip.pts_seconds, np.sort(seconds), atol=1e-9)
    np.testing.assert_array_equal(clip.frames(np.arange(len(truth))), truth)
    random = np.random.default_rng(0)
    for count in (1, 1, 1, 1, 2, 3, 5, 12):
        some = random.permutation(len(truth))[:count]
        np.testing.assert_array_equal(clip.frames(some), truth[some], err_msg=f"frames {some}")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", ["h264_bframes.mp4", "hevc_open_gop.mp4", "av1.webm", "mpeg2_open_gop.ts"])
def test_any_set_of_frames_equals_the_full_decode(name: str, video: Callable[[str], Path], data: st.DataObject) -> None:
    path = video(name)
    truth, clip = _full(path)
    indices = data.draw(st.lists(st.integers(0, len(truth) - 1), min_size=1, max_size=8))
    skim = data.draw(st.sampled_from([0, 3, 64]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyav, "_SKIM", skim)
        np.testing.assert_array_equal(clip.frames(indices), truth[indices])


_FULL: dict[Path, tuple[NDArray[np.uint8], Clip]] = {}


def _full(path: Path) -> tuple[NDArray[np.uint8], Clip]:
    if path not in _FULL:
        _FULL[path] = decode_all(path)[0], read_video(path)
    return _FULL[path]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", sorted(set(KINDS) - SLOW))
def test_only_what_is_needed_is_decoded(
    name: str, video: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = read_video(video(name))
    monkeypatch.setattr(pyav.PyAVFrames, "_from_start", lambda *_: pytest.fail("decoded from the start"))
    for index in range(0, clip.num_frames, 5):
        clip.frames([index])
    clip.frames(np.arange(0, clip.num_frames, 15))


def test_decoding_times_in_place_of_presentation_times_mislead_nobody(video: Callable[[str], Path]) -> None:
    # AVI has no presentation times; FFmpeg makes some up that are wrong where frames are reordered.
    truth, clip = _full(video("h264_bframes.avi"))
    assert isinstance(clip.decode, pyav.PyAVFrames)
    assert clip.decode.index.unproven_order
    for index in range(48):
        np.testing.assert_array_equal(clip.frames([index])[0], truth[index])


def test_an_index_that_the_decoder_contradicts_is_never_followed(video: Callable[[str], Path]) -> None:
    truth, clip = _full(video("h264_bframes.mp4"))
    frames = clip.decode
    assert isinstance(frames, pyav.PyAVFrames)
    # Landing later than asked for costs time, not exactness.
    late = replace(frames, index=replace(frames.index, seek_to=frames.index.seek_to + 512 * 14))
    np.testing.assert_array_equal(late(np.array([2, 17, 40])), truth[[2, 17, 40]])
    # Frames that come out in another order than their times say.
    frames = _full(video("h264_bframes.avi"))[1].decode
    assert isinstance(frames, pyav.PyAVFrames)
    trusting = replace(frames, index=replace(frames.index, unproven_order=False))
    with pytest.raises(VideoError, match=r"read \d+ of 48 frames promised \(frame \d+ is missing or out of order"):
        trusting(np.arange(48))


def test_no_more_packets_reach_the_decoder_than_the_runs_hold(video: Callable[[str], Path]) -> None:
    index = read_index(str(video("h264_bframes.mp4")), "it")
    keyframes = np.flatnonzero(index.keyframe).tolist()
    assert keyframes == [0, 12, 24, 36]
    (run,) = index.runs(np.array([25]))
    assert run.first == 24
    assert run.last == int(index.shown[25])
    assert [r.first for r in index.runs(np.array([1, 40]))] == [0, 36]
    assert len(index.runs(np.arange(48))) == 1


# --- trimmed, turned, coloured --------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", ["h264_bframes.mp4", "hevc_open_gop.mp4", "av1_gop30.mp4", "vp9_odd_size.mp4"])
@pytest.mark.parametrize(("keyframe", "hidden"), [(0, 5), (1, 4), (1, 9)])
def test_frames_hidden_by_an_edit_list_are_not_frames(
    name: str, keyframe: int, hidden: int, video: Callable[[str], Path], tmp_path: Path
) -> None:
    packets = packets_of(video(name))
    start = [number for number, packet in enumerate(packets) if packet.is_keyframe][keyframe]
    zero = sorted(packet.pts for packet in packets).index(packets[start].pts) + hidden
    trimmed = copy_from(video(name), tmp_path / "trimmed.mp4", start=start, zero=zero)
    truth, seconds = decode_all(trimmed)
    assert any(packet.is_discard for packet in packets_of(trimmed)), "the file has nothing hidden"
    clip = read_video(trimmed)
    assert numbers_of(clip.frames(np.arange(clip.num_frames))) == list(range(zero, 48))
    assert len(truth) == 48 - zero
    np.testing.assert_allclose(clip.pts_seconds, seconds, atol=1e-9)
    for index in range(0, len(truth), 3):
        np.testing.assert_array_equal(clip.frames([index])[0], truth[index])


@pytest.mark.parametrize("name", ["h264_bframes.mp4", "h264_gop250.mp4"])
@pytest.mark.parametrize(
    "entries",
    [
        [(500, -1), (1600, 1024)],  # a pause before the first frame
        [(800, 6144)],  # from the middle of a group of pictures
        [(533, 12388)],  # from the middle of a frame
        [(500, 0), (400, 15360)],  # two stretches
        [(400, 15360), (500, 0)],  # the later one first
        [(300, 7168), (300, 7168)],  # one stretch twice
    ],
)
def test_edit_lists_of_every_kind(
    name: str, entries: list[tuple[int, int]], video: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "edited.mp4"
    shutil.copy(video(name), path)
    truth, seconds = decode_all(set_edit_list(path, *entries))
    if np.unique(seconds).size < seconds.size:
        with pytest.raises(VideoError, match="one presentation time"):
            read_video(path)
        return
    clip = read_video(path)
    assert isinstance(clip.decode, pyav.PyAVFrames)
    # What is hidden before a later stretch has times of an earlier one: packets are not known by their time.
    assert clip.decode.index.unique == (len(entries) == 1 or -1 in entries[0])
    np.testing.assert_array_equal(clip.frames(np.arange(clip.num_frames)), truth)
    np.testing.assert_allclose(clip.pts_seconds, seconds, atol=1e-9)
    for index in range(0, len(truth), 4):
        np.testing.assert_array_equal(clip.frames([index])[0], truth[index])


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("h264_bframes.mp4", "cut.ts"),
        ("h264_bframes.mp4", "cut.mkv"),
        ("hevc_open_gop.mp4", "cut.ts"),
        ("hevc_open_gop.mp4", "cut.mkv"),
        ("av1_gop30.mp4", "cut.mkv"),
        ("vp9.webm", "cut.webm"),
    ],
)
def test_a_recording_that_starts_between_keyframes_starts_at_the_first(
    name: str, target: str, video: Callable[[str], Path], tmp_path: Path
) -> None:
    first = next(p for p in sorted(packets_of(video(name)), key=lambda p: p.pts) if p.is_keyframe and p.pts > 0)
    expected = sorted(packet.pts for packet in packets_of(video(name))).index(first.pts)
    clip = read_video(copy_from(video(name), tmp_path / target, start=5))
    assert numbers_of(clip.frames(np.arange(clip.num_frames))) == list(range(expected, 48))
    assert numbers_of(clip.frames([3, 20 - expected % 12])) == [expected + 3, expected + 20 - expected % 12]
    assert clip.pts_seconds[0] == 0


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((1, 0, 0, 1), lambda f: f),
        ((0, 1, -1, 0), lambda f: np.rot90(f, -1)),  # a phone held upright: a quarter turn clockwise
        ((0, -1, 1, 0), lambda f: np.rot90(f, 1)),
        ((-1, 0, 0, -1), lambda f: np.rot90(f, 2)),
        ((-1, 0, 0, 1), lambda f: f[:, ::-1]),
        ((1, 0, 0, -1), lambda f: f[::-1]),
        ((0, 1, 1, 0), lambda f: f.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda f: np.rot90(f.transpose(1, 0, 2), 2)),
    ],
)
def test_the_display_matrix_is_applied(
    matrix: tuple[int, int, int, int], turned: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], tmp_path: Path
) -> None:
    path = write_video(tmp_path / "phone.mp4", frames=5)
    truth, _ = decode_all(path)
    clip = read_video(set_display_matrix(path, *matrix))
    assert (clip.height, clip.width) == turned(truth[0]).shape[:2]
    for index in (0, 3):
        np.testing.assert_array_equal(clip.frames([index])[0], turned(truth[index]))
    with av.open(str(path)) as container:  # the same sense of rotation as FFmpeg's
        rotation = next(container.decode(video=0)).rotation
    if matrix[0] * matrix[3] - matrix[1] * matrix[2] > 0:
        np.testing.assert_array_equal(clip.frames([3])[0], np.rot90(truth[3], rotation // 90))


def test_a_matrix_that_is_no_quarter_turn_is_refused(tmp_path: Path) -> None:
    path = set_display_matrix(write_video(tmp_path / "tilted.mp4", frames=2), 1, 1, -1, 1)
    with pytest.raises(VideoError, match="multiple of 90") as caught:
        read_video(path)
    one_line(caught, "tilted.mp4")


@pytest.mark.parametrize(
    ("pix_fmt", "matrix", "limited"),
    [
        ("yuv420p", None, True),  # no tags: BT.601, limited
        ("yuv420p", 6, True),
        ("yuv420p", 1, True),
        ("yuv420p", 1, False),
        ("yuv444p", 9, True),
        ("yuv444p", 6, False),
        ("yuvj420p", None, False),
    ],
)
def test_colours_follow_the_tags(pix_fmt: str, matrix: int | None, limited: bool) -> None:
    red, blue = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}.get(matrix or 6, (0.299, 0.114))
    convert = RGB("it", Turn())
    for y, u, v in [(16, 128, 128), (235, 128, 128), (81, 90, 240), (145, 54, 34), (41, 240, 110), (120, 100, 150)]:
        frame = av.VideoFrame(32, 16, pix_fmt)
        for plane, value in zip(frame.planes, (y, u, v), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        if matrix is not None:
            frame.colorspace, frame.color_range = matrix, 1 if limited else 2
        luma, cb, cr = ((y - 16) / 219, (u - 128) / 224, (v - 128) / 224) if limited else (y / 255, 0.0, 0.0)
        if not limited:
            cb, cr = (u - 128) / 255, (v - 128) / 255
        r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
        g = (luma - red * r - blue * b) / (1 - red - blue)
        expected = np.clip(np.round(255 * np.array([r, g, b])), 0, 255)
        got = convert(frame)
        assert got.shape == (16, 32, 3)
        assert np.abs(got.astype(int) - expected).max() <= 1, (pix_fmt, matrix, limited, (y, u, v))


def test_a_matrix_that_swscale_does_not_know_is_refused() -> None:
    frame = av.VideoFrame(32, 16, "yuv444p")
    frame.colorspace = 8  # YCgCo
    with pytest.raises(VideoError, match=r"it: its colour matrix \(number 8\)"):
        RGB("it", Turn())(frame)


@pytest.mark.parametrize("tags", [(1, 1), (1, 2), (5, 1)], ids=["bt709", "bt709 full range", "bt601"])
def test_tagged_files_keep_their_colours(tags: tuple[int, int], tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "tagged.mp4", frames=2, pix_fmt="yuv444p", tags=tags, options={"crf": "1", "preset": "ultrafast"}
    )
    clip = read_video(path)
    assert np.abs(clip.frames([1])[0].astype(int) - picture(1, 96, 128)).mean() < 1.5


# --- what the clip says ---------------------------------------------------------------------------------


def test_times_and_rates(video: Callable[[str], Path]) -> None:
    assert read_video(video("h264_gop2.mp4")).fps == 30
    assert read_video(video("animation.gif")).fps == 10
    np.testing.assert_allclose(np.diff(read_video(video("h264_gop2.mp4")).pts_seconds), 1 / 30, atol=1e-9)
    late = read_video(video("h264_late_start.ts"))
    assert late.pts_seconds[0] == 0
    variable = read_video(video("h264_variable.mp4"))
    np.testing.assert_allclose(np.diff(variable.pts_seconds), np.diff(VARIABLE) / 1000, atol=1e-9)
    assert variable.fps == pytest.approx(1 / np.diff(VARIABLE).mean() * 1000, rel=0.2)
    assert read_video(video("h264_one_frame.mp4")).fps == 30
    assert read_video(video("h264_one_frame.mp4")).pts_seconds.tolist() == [0]


def test_a_rate_that_the_times_contradict_is_not_believed(video: Callable[[str], Path], tmp_path: Path) -> None:
    # In MP4 the average rate comes from the sum of durations: make the last frame last for 10 s.
    path = tmp_path / "pause.mp4"
    shutil.copy(video("h264_gop2.mp4"), path)
    times = bytes.fromhex("00000000 00000002 0000002f 00000200 00000001 00026000")
    change_box(path, (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"), lambda _: times)
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate or 0) < 10
    assert read_video(path).fps == pytest.approx(30)


def test_a_clip_pickles_small_and_serves_many_threads(video: Callable[[str], Path], tmp_path: Path) -> None:
    truth, clip = _full(video("h264_bframes.mp4"))
    data = pickle.dumps(read_video(video("h264_bframes.mp4")))
    assert len(data) < 20_000
    np.testing.assert_array_equal(pickle.loads(data).frames([7, 40]), truth[[7, 40]])
    with ThreadPoolExecutor(4) as pool:
        for index, frames in enumerate(pool.map(clip.frames, [[i, (7 * i) % 48] for i in range(48)])):
            np.testing.assert_array_equal(frames, truth[[index, (7 * index) % 48]])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads and files through /proc")
def test_no_thread_and_no_file_is_left_open(video: Callable[[str], Path]) -> None:
    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))

    clip = read_video(video("h264_bframes.mp4"))
    clip.frames([30])
    before = held()
    for name in ("h264_bframes.mp4", "av1.webm", "h264_open_gop.ts"):
        read_video(video(name)).frames([0, 20, 41])
    assert held() == before


def test_ten_minutes_never_sit_in_memory(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "long.mp4", frames=6000, fps=10, size=(120, 160), gop=50, options={"preset": "ultrafast"}
    )
    code = f"""
        import resource, sys
        sys.path.insert(0, {str(SUPPORT)!r})
        from topreward.video import read_video
        from videos import numbers_of
        read = lambda: read_video({str(path)!r})
        read().frames([0])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        clip = read()
        assert (clip.num_frames, round(clip.duration_seconds)) == (6000, 600), clip
        assert numbers_of(clip.frames([5999, 3, 2500, 4999])) == [5999, 3, 2500, 4999]
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    raw_kilobytes = 6000 * 120 * 160 * 3 // 1024
    grown = int(run.stdout) if sys.platform != "darwin" else int(run.stdout) // 1024
    assert grown < raw_kilobytes // 10, f"{grown} kB more, the whole video has {raw_kilobytes} kB"


# --- cut short, damaged ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "h264_faststart.mp4",
        "h264_gop2.mp4",
        "h264_bframes.mkv",
        "vp9.webm",
        "av1.webm",
        "h264_bframes.avi",
        "mjpeg.avi",
    ],
)
def test_a_file_that_ends_early_is_an_error(name: str, video: Callable[[str], Path], tmp_path: Path) -> None:
    data = video(name).read_bytes()
    last = packets_of(video(name))[-1]
    cut = tmp_path / f"cut{video(name).suffix}"
    ends = [int(len(data) * part) for part in (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9)]
    for end in [*ends, last.pos + last.size // 2]:
        cut.write_bytes(data[:end])
        with pytest.raises(VideoError) as caught:
            read_video(cut)
        one_line(caught, cut.name)


def test_the_error_says_how_far_the_reading_came(video: Callable[[str], Path], tmp_path: Path) -> None:
    whole = video("h264_faststart.mp4")
    cut = tmp_path / "cup.mp4"
    twentieth = packets_of(whole)[20]
    for end in (twentieth.pos, twentieth.pos + 1):  # between two packets, inside one
        cut.write_bytes(whole.read_bytes()[:end])
        with pytest.raises(VideoError, match=r"cup\.mp4: corrupt or truncated: read 20 of 48 frames promised"):
            read_video(cut)


def test_an_edit_list_that_leaves_out_whole_groups_is_not_a_truncation(
    video: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "part.mp4"
    shutil.copy(video("h264_gop2.mp4"), path)
    set_edit_list(path, (500, 512 * 10))
    with av.open(str(path)) as container:
        assert len(packets_of(path)) < container.streams.video[0].frames
    clip = read_video(path)
    assert numbers_of(clip.frames(np.arange(clip.num_frames))) == list(range(10, 25))


@pytest.mark.parametrize("name", ["h264_bframes.mp4", "h264_bframes.ts", "av1_gop30.mp4", "hevc_hash.mp4"])
def test_damage_is_noticed_in_what_is_decoded_and_only_there(
    name: str, video: Callable[[str], Path], tmp_path: Path
) -> None:
    # x265's picture hash lets the decoder check every frame.
    KINDS["hevc_hash.mp4"] = {
        "codec": "libx265",
        "options": {"x265-params": OPEN_GOP_265["x265-params"].replace("open-gop=1", "open-gop=0:hash=1")},
    }
    truth, _ = _full(video(name))
    packets = packets_of(video(name))
    times = sorted(packet.pts for packet in packets)
    damaged = tmp_path / f"damaged{video(name).suffix}"
    victims = [packet for packet in packets[26:40] if not packet.is_keyframe and packet.size > 60]
    noticed = 0
    for victim in victims:
        data = bytearray(video(name).read_bytes())
        # In a transport stream a packet lies in pieces; its first 100 bytes are in one.
        start = data.find(bytes(victim)[:100]) + 20
        assert start > 20
        length = min(victim.size, 100) - 20
        data[start : start + length] = np.random.default_rng(0).bytes(length)
        damaged.write_bytes(data)
        clip = read_video(damaged)
        assert clip.num_frames == 48
        np.testing.assert_array_equal(clip.frames([0, 5]), truth[[0, 5]])
        try:
            clip.frames([0, times.index(victim.pts)])
        except VideoError as error:
            noticed += bool(re.search(r"damaged\.\w+: corrupt or truncated: read \d+ of 48 frames prom", str(error)))
    # A few changes give a stream that is valid, only another: without a checksum no decoder can tell.
    assert noticed >= len(victims) * (1 if name == "hevc_hash.mp4" else 0.6) > 3


@pytest.mark.parametrize("name", ["h264_faststart.mp4", "h264_bframes.mkv", "h264_bframes.ts", "av1_gop2.mp4"])
def test_flipped_bits_give_an_error_or_frames_but_nothing_else(
    name: str, video: Callable[[str], Path], tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    size = video(name).stat().st_size
    errors = 0
    for at in random.integers(0, size, 25):
        path = flip(video(name), tmp_path / f"flipped{video(name).suffix}", int(at), int(random.integers(8)))
        try:
            clip = read_video(path)
            clip.frames(np.arange(clip.num_frames))
        except VideoError as error:
            message = str(error)
            errors += "flipped" in message and "\n" not in message
    assert errors >= 8, "hardly any damage was noticed"


def test_a_hole_in_a_matroska_file_is_an_error(video: Callable[[str], Path], tmp_path: Path) -> None:
    packets = packets_of(video("vp9.webm"))
    data = bytearray(video("vp9.webm").read_bytes())
    hole = packets[20].pos - 2  # the head of a block; FFmpeg goes on at the next cluster
    data[hole : hole + 8] = bytes(8)
    path = tmp_path / "hole.webm"
    path.write_bytes(data)
    assert 0 < len(packets_of(path)) < 48
    with pytest.raises(VideoError, match="its structure breaks off at byte") as caught:
        read_video(path)
    one_line(caught, "hole.webm")


def test_frames_that_change_size_are_an_error(tmp_path: Path) -> None:
    both = tmp_path / "both.ts"
    with av.open(str(both), "w") as output:
        stream = None
        for first, size in ((0, (96, 128)), (30, (120, 160))):
            path = write_video(tmp_path / f"{first}.ts", frames=20, size=size, first_pts=first, bframes=0)
            with av.open(str(path)) as part:
                stream = stream or output.add_stream_from_template(part.streams.video[0], opaque=True)
                for packet in part.demux(video=0):
                    if packet.size:
                        packet.stream = stream
                        output.mux(packet)
    clip = read_video(both)
    assert numbers_of(clip.frames([0, 19])) == [0, 19]
    with pytest.raises(VideoError, match="change size from 96x128 px to 120x160 px") as caught:
        clip.frames([25])
    one_line(caught, "both.ts")


def test_a_file_replaced_after_opening_is_an_error(video: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "cup.mp4"
    shutil.copy(video("h264_gop2.mp4"), path)
    clip = read_video(path)
    shutil.copy(video("h264_gop250.mp4"), path)
    with pytest.raises(VideoError, match="changed since it was opened"):
        clip.frames([0])
    path.unlink()
    with pytest.raises(VideoError, match="gone"):
        clip.frames([0])


# --- not a video ----------------------------------------------------------------------------------------


def test_what_is_no_video_says_so_in_one_line(tmp_path: Path, video: Callable[[str], Path]) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("once upon a time " * 100)
    (tmp_path / "zeros.mp4").write_bytes(bytes(5000))
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (tmp_path / "folder").mkdir()
    (tmp_path / "still.png").write_bytes(b"x")
    write_sound(tmp_path / "sound.m4a")
    shutil.copy(video("h264_gop2.mp4"), tmp_path / "codec.mp4")
    stbl = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
    change_box(tmp_path / "codec.mp4", (*stbl, b"stsd"), lambda box: box.replace(b"avc1", b"zzzz"))
    shutil.copy(video("h264_gop2.mp4"), tmp_path / "unfinished.mp4")
    with (tmp_path / "unfinished.mp4").open("r+b") as file:
        file.truncate(3000)
    os.mkfifo(tmp_path / "pipe.mp4")
    causes = {
        "missing.mp4": "no such file",
        "empty.mp4": "empty file",
        "text.mp4": "not a video",
        "zeros.mp4": "not a video",
        "noise.mp4": "not a video",
        "sound.m4a": "holds no video",
        "codec.mp4": "codec",
        "unfinished.mp4": "an MP4 without its index",
        "still.png": "a single image",
        "pipe.mp4": "not a regular file",
    }
    for name, cause in causes.items():
        for backend in ("auto", "decord"):
            with pytest.raises(VideoError, match=cause) as caught:
                read_video(tmp_path / name, backend=backend)
            one_line(caught, name)
    with pytest.raises(VideoError, match="no images"):
        read_video(tmp_path / "folder", fps=10)


def test_too_large_frames_are_refused(tmp_path: Path) -> None:
    wide = write_video(tmp_path / "wide.avi", "mjpeg", frames=1, size=(16, 16400), gop=None, pix_fmt="yuvj420p")
    with pytest.raises(VideoError, match="frames are 16x16400 px, want 1x1 to 16384x16384") as caught:
        read_video(wide)
    one_line(caught, "wide.avi")


def test_a_playlist_is_not_followed(video: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copy(video("h264_bframes.ts"), tmp_path / "segment.ts")
    for name, text in {
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsegment.ts\n#EXT-X-ENDLIST\n",
        "list.ffconcat": "ffconcat version 1.0\nfile 'segment.ts'\n",
    }.items():
        (tmp_path / name).write_text(text)
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.video, "FFmpeg would follow it"
        with pytest.raises(VideoError, match="not a video"):
            read_video(tmp_path / name)


def test_times_that_are_missing_or_doubled_are_an_error(
    video: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_video(tmp_path / "raw.h264", frames=5)
    with pytest.raises(VideoError, match="no presentation time") as caught:
        read_video(raw)
    one_line(caught, "raw.h264")
    # Frame 3 is given frame 2's time.
    path = tmp_path / "twins.mp4"
    shutil.copy(video("h264_gop2.mp4"), path)
    times = bytes.fromhex("00000000 00000003 00000002 00000200 00000001 00000000 0000002d 00000200")
    change_box(path, (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"), lambda _: times)
    with pytest.raises(VideoError, match="one presentation time") as caught:
        read_video(path)
    one_line(caught, "twins.mp4")


@pytest.mark.parametrize("name", ["Tasse bleue – 蓝色杯子.mp4", "a:b?c*.mp4", "%41 'quoted'.mp4", "-i.mp4"])
def test_names_are_only_names(name: str, video: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copy(video("h264_gop2.mp4"), tmp_path / name)
    assert numbers_of(read_video(tmp_path / name).frames([9])) == [9]
    assert read_video(str(tmp_path / name)).source == str(tmp_path / name)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_a_name_that_is_no_text(video: Callable[[str], Path], tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.mp4"
    shutil.copy(video("h264_gop2.mp4"), path)
    assert numbers_of(read_video(os.fsdecode(path)).frames([9])) == [9]
    for name in ("nul\0.mp4", "x" * 5000):
        with pytest.raises(VideoError, match="cannot be opened"):
            read_video(tmp_path / name)


def test_a_relative_path_survives_a_change_of_folder(
    video: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(video("h264_gop2.mp4"), tmp_path / "cup.mp4")
    monkeypatch.chdir(tmp_path)
    clip = read_video("cup.mp4")
    monkeypatch.chdir("/")
    assert numbers_of(clip.frames([11])) == [11]
    assert clip.source == "cup.mp4"


def test_options_that_make_no_sense(video: Callable[[str], Path], tmp_path: Path) -> None:
    path = video("h264_gop2.mp4")
    with pytest.raises(VideoError, match=r"'decrod', want one of auto, pyav, decord \(did you mean 'decord'\?\)"):
        read_video(path, backend="decrod")
    with pytest.raises(VideoError, match="fps=10 given"):
        read_video(path, fps=10)
    with pytest.raises(VideoError, match="fps is required"):
        read_video(np.zeros((2, 4, 4, 3), np.uint8))
    for fps in (0, -1, float("nan"), float("inf"), "10"):
        with pytest.raises(VideoError, match="want a positive number"):
            read_video(np.zeros((2, 4, 4, 3), np.uint8), fps=fps)  # type: ignore[arg-type]
    with pytest.raises(VideoError, match="source is a int"):
        read_video(3)  # type: ignore[arg-type]


# --- arrays and images ----------------------------------------------------------------------------------


def test_an_array_is_a_clip() -> None:
    frames = np.stack([picture(number, 48, 64) for number in range(5)])
    clip = read_video(frames, fps=4)
    assert (clip.num_frames, clip.fps, clip.height, clip.width) == (5, 4, 48, 64)
    np.testing.assert_array_equal(clip.frames([4, 0, 4]), frames[[4, 0, 4]])
    with pytest.raises(VideoError, match="want uint8"):
        read_video(frames / 255, fps=4)


def write_images(folder: Path, names: list[str]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(picture(number, 48, 64)).save(folder / name)
    return [folder / name for name in names]


def test_image_files_are_a_clip(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "frames", [f"frame_{number}.png" for number in range(12)])
    (tmp_path / "frames" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "frames" / "notes.txt").write_text("x")
    for clip in (
        read_video(paths, fps=5),
        read_video(tuple(str(p) for p in paths), fps=5),
        read_video(tmp_path / "frames", fps=5),  # natural order: frame_2 before frame_10
        pickle.loads(pickle.dumps(read_video(paths, fps=5))),
    ):
        assert (clip.num_frames, clip.fps, clip.height, clip.width) == (12, 5, 48, 64)
        np.testing.assert_allclose(clip.pts_seconds, np.arange(12) / 5)
        np.testing.assert_array_equal(clip.frames([11, 2]), [picture(11, 48, 64), picture(2, 48, 64)])
    assert numbers_of(read_video(paths[::-1], fps=5).frames([0, 1])) == [11, 10]


def test_images_of_other_modes_become_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(picture(5, 48, 64))
    paths = []
    for mode in ("RGB", "RGBA", "L", "P", "CMYK"):
        paths.append(tmp_path / f"{mode}.tif")
        image.convert(mode).save(paths[-1])
    frames = read_video(paths, fps=1).frames(np.arange(5))
    np.testing.assert_array_equal(frames[1], frames[0])
    np.testing.assert_array_equal(frames[2], np.asarray(image.convert("L").convert("RGB")))
    np.testing.assert_array_equal(frames[4], frames[0])


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to see it upright
    Image.fromarray(picture(7, 48, 64)).save(tmp_path / "0.png", exif=exif)
    clip = read_video([tmp_path / "0.png"], fps=1)
    assert (clip.height, clip.width) == (64, 48)
    np.testing.assert_array_equal(clip.frames([0])[0], np.rot90(picture(7, 48, 64), -1))


def test_images_that_make_no_clip(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "frames", ["0.png", "1.png"])
    with pytest.raises(VideoError, match="fps is required"):
        read_video(paths)
    with pytest.raises(VideoError, match=r"frames: fps is required"):
        read_video(tmp_path / "frames")
    with pytest.raises(VideoError, match="empty, want at least one"):
        read_video([], fps=1)
    with pytest.raises(VideoError, match="holds a ndarray"):
        read_video([np.zeros((2, 2, 3), np.uint8)], fps=1)  # type: ignore[list-item]
    with pytest.raises(VideoError, match=r"2\.png: no such image"):
        read_video([*paths, tmp_path / "2.png"], fps=1)
    Image.fromarray(picture(0, 48, 60)).save(tmp_path / "narrow.png")
    with pytest.raises(VideoError, match=r"narrow\.png: is 48x60 px, but 0\.png is 48x64 px"):
        read_video([*paths, tmp_path / "narrow.png"], fps=1)
    Image.fromarray(np.full((48, 64), 30_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(VideoError, match="more than 8 bits"):
        read_video([tmp_path / "deep.png"], fps=1)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(VideoError, match=r"text\.png: not an image"):
        read_video([tmp_path / "text.png"], fps=1)
    (tmp_path / "void.png").touch()
    with pytest.raises(VideoError, match=r"void\.png: empty image file"):
        read_video([tmp_path / "void.png"], fps=1)
    Image.new("1", (16400, 2)).save(tmp_path / "wide.png")
    with pytest.raises(VideoError, match="16384"):
        read_video([tmp_path / "wide.png"], fps=1)
    Image.fromarray(picture(0, 48, 64)).save(tmp_path / "frames" / "0.jpg")
    with pytest.raises(VideoError, match=r"several kinds \(\.jpg, \.png\)"):
        read_video(tmp_path / "frames", fps=1)


def test_a_truncated_image_is_found_when_it_is_asked_for(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "frames", ["0.png", "1.png", "2.png"])
    paths[1].write_bytes(paths[1].read_bytes()[:-2000])
    clip = read_video(paths, fps=1)
    assert numbers_of(clip.frames([0, 2])) == [0, 2]
    with pytest.raises(VideoError, match=r"1\.png: corrupt or truncated image") as caught:
        clip.frames([0, 1])
    one_line(caught, "1.png")


# --- decord ---------------------------------------------------------------------------------------------

needs_decord = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="decord has wheels for Linux on x86-64 only"
)


@needs_decord
@pytest.mark.parametrize("name", ["h264_gop2.mp4", "h264_gop250.mp4", "h264_bframes.mkv", "vp9.webm"])
def test_decord_is_exact_where_it_is_allowed(name: str, video: Callable[[str], Path]) -> None:
    clip = read_video(video(name), backend="decord")
    assert numbers_of(clip.frames(np.arange(48))) == list(range(48))
    for some in np.random.default_rng(0).integers(0, 48, (8, 4)):
        assert numbers_of(clip.frames(some)) == some.tolist()
    assert numbers_of(pickle.loads(pickle.dumps(clip)).frames([33])) == [33]


@needs_decord
def test_decord_is_refused_where_it_would_be_wrong(video: Callable[[str], Path], tmp_path: Path) -> None:
    trimmed = copy_from(video("h264_bframes.mp4"), tmp_path / "trimmed.mp4", zero=5)
    mirrored = set_display_matrix(write_video(tmp_path / "mirrored.mp4", frames=5), -1, 0, 0, 1)
    causes = {
        video("av1_gop2.mp4"): "av1",
        video("hevc_open_gop.mp4"): "hevc in mov with open groups",
        video("h264_bframes.ts"): "mpegts",
        video("h264_open_gop.mp4"): "open groups",
        trimmed: "an edit list hides 5 frames",
        mirrored: "another first frame",
    }
    for path, cause in causes.items():
        with pytest.raises(VideoError, match=cause) as caught:
            read_video(path, backend="decord")
        assert "use backend='pyav'" in one_line(caught, path.name)


def test_without_decord_the_error_says_so(video: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(VideoError, match="decord cannot be imported"):
        read_video(video("h264_gop2.mp4"), backend="decord")
