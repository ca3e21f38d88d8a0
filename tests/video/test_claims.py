"""What a file or a caller claims is held to the limits before memory or time is spent on it."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from topreward.config import load_protocol
from topreward.datasets.clips import open_video
from topreward.errors import ConfigError, MemoryLimitError, VideoError
from topreward.sampling import make_schedule, time_grid
from topreward.types import Clip
from topreward.video import read_video
from topreward.video.pixels import empty_frames
from videos import change_box, write_video

TABLE = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
PICTURES = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize("fps", [1e-8, 0.009, 1001, 1e9])
def test_a_frame_rate_that_no_camera_has(fps: float, tmp_path: Path) -> None:
    Image.fromarray(PICTURES[0]).save(tmp_path / "0.png")
    for make in (
        lambda: read_video(PICTURES, fps=fps),
        lambda: Clip.from_array(PICTURES, fps),
        lambda: read_video([tmp_path / "0.png"], fps=fps),
        lambda: read_video(tmp_path, fps=fps),
    ):
        with pytest.raises(VideoError, match=r"fps.*TOPREWARD_M(IN|AX)_FPS"):
            make()


def test_times_that_no_recording_has() -> None:
    for pts in ([0, 1e9], [0, 1 / 30, 1e7]):
        with pytest.raises(VideoError, match=r"^it: .*TOPREWARD_MIN_FPS"):
            Clip(np.array(pts), 30, 4, 4, lambda _: PICTURES, "it")


def test_more_frames_than_a_clip_may_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    video = write_video(tmp_path / "cup.mp4", frames=12)
    still = write_video(tmp_path / "cup.mkv", frames=12)
    monkeypatch.setenv("TOPREWARD_MAX_FRAMES", "11")
    for make in (
        lambda: read_video(np.zeros((12, 4, 4, 3), np.uint8), fps=1),
        lambda: read_video([tmp_path / "none.png"] * 12, fps=1),
        lambda: read_video(video),
        lambda: read_video(still),
    ):
        with pytest.raises(VideoError, match=r"12 frames, allowed are at most 11 .*TOPREWARD_MAX_FRAMES"):
            make()


@pytest.mark.parametrize("rate", [0.001, 2000, 1e300])
def test_a_sampling_rate_that_makes_no_sense(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"sampling_fps.*TOPREWARD_M(IN|AX)_FPS"):
        load_protocol("dense", sampling_fps=rate)


def test_moments_and_prefixes_beyond_all_measure() -> None:
    with pytest.raises(ConfigError, match=r"num_prefixes.*TOPREWARD_MAX_FRAMES"):
        load_protocol("paper", num_prefixes=10**12)
    with pytest.raises(ConfigError, match="moments"):
        time_grid(np.array([0.0, 1e9]), 1000)
    long = np.arange(1000) * 90.0
    assert make_schedule(long, 1 / 90, load_protocol("dense")).indices.size == 1000


def test_an_array_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryLimitError, match="TOPREWARD_MAX_ARRAY_BYTES"):
        empty_frames(10**6, 1000, 1000)
    monkeypatch.setenv("TOPREWARD_MAX_ARRAY_BYTES", "100")
    with pytest.raises(MemoryLimitError, match=r"3 frames of 4x4 px: 144 bytes, allowed are at most 100"):
        empty_frames(3, 4, 4)


def claims_samples(path: Path, count: int) -> None:
    change_box(path, (*TABLE, b"stsz"), lambda _: struct.pack(">III", 0, 10, count))
    change_box(path, (*TABLE, b"stsc"), lambda _: struct.pack(">IIIII", 0, 1, 1, count, 1))
    change_box(path, (*TABLE, b"stts"), lambda _: struct.pack(">IIII", 0, 1, count, 512))


def claims_fragment(path: Path, count: int) -> None:
    data = path.read_bytes()
    run = struct.pack(">I4sIII", 20, b"trun", 1, count, 0)
    track = (
        struct.pack(">I4s", 8 + 24 + len(run), b"traf") + struct.pack(">I4sIIII", 24, b"tfhd", 0x18, 1, 512, 10) + run
    )
    path.write_bytes(
        data + struct.pack(">I4s", 8 + 16 + len(track), b"moof") + struct.pack(">I4sII", 16, b"mfhd", 0, 1) + track
    )


BOMBS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "samples.mp4": ("sample table: 50000000 frames", lambda path: claims_samples(path, 50_000_000)),
    "fragment.mp4": ("fragments: 50000000 frames", lambda path: claims_fragment(path, 50_000_000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_claims_millions_of_frames_costs_nothing(name: str, tmp_path: Path) -> None:
    message, change = BOMBS[name]
    path = write_video(tmp_path / name, frames=5)
    change(path)
    assert refused_within(path, megabytes=60, seconds=10).count(message)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_a_frame_at_the_end_of_time(suffix: str, tmp_path: Path) -> None:
    times = [*range(0, 36_000, 3_600), 90_000 * 20_000]
    path = write_video(tmp_path / f"far.{suffix}", frames=11, pts=times, time_base=Fraction(1, 90_000), bframes=0)
    assert "frame rate" in refused_within(path, megabytes=60, seconds=10)


def test_a_gif_whose_pictures_stay_for_minutes(tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.full((8, 8, 3), 40 * k, np.uint8)) for k in range(3)]
    pictures[0].save(tmp_path / "slow.gif", save_all=True, append_images=pictures[1:], duration=600_000)
    with pytest.raises(VideoError, match=r"slow\.gif: its frame rate.*TOPREWARD_MIN_FPS"):
        read_video(tmp_path / "slow.gif")


@pytest.mark.parametrize(("name", "codec"), [("huge.avi", "mjpeg"), ("huge.mkv", "ffv1"), ("huge.mp4", "libx264")])
def test_a_huge_frame_is_not_decoded(name: str, codec: str, tmp_path: Path) -> None:
    path = write_video(
        tmp_path / name,
        codec,
        frames=1,
        size=(1200, 1600),
        gop=None,
        pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
    )
    said = refused_within(path, megabytes=60, seconds=20, setting=("TOPREWARD_MAX_PICTURE_PIXELS", "1000000"))
    assert "TOPREWARD_MAX_PICTURE_PIXELS" in said


def refused_within(path: Path, *, megabytes: int, seconds: int, setting: tuple[str, str] = ("X", "")) -> str:
    """What a process of its own says to a file, having spent no more than that beyond what it began with."""
    code = f"""
        import os, resource, sys, time
        os.environ[{setting[0]!r}] = {setting[1]!r}
        from topreward.errors import TopRewardError
        from topreward.video import pyav, read_video
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read_video({str(path)!r})
        except TopRewardError as error:
            print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, error)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=seconds,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),
    )
    grown, _, said = run.stdout.partition(" ")
    assert said, run.stderr
    assert int(grown) < megabytes, f"{grown} MB for {said}"
    return said


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    cup = write_video(tmp_path / "cup.mp4", frames=2)
    for name in (
        "x" * 5000,
        "nul\0.mp4",
        "a/" * 3000 + "cup.mp4",
        f"{cup}/cup.mp4",
        "\ud800.mp4",
        "/dev/zero",
        "missing",
    ):
        for make in (
            lambda name=name: read_video(name),
            lambda name=name: read_video([name], fps=1),
            lambda name=name: read_video(name, backend="decord"),
            lambda name=name: open_video(Path(name)),
        ):
            with pytest.raises(VideoError, match=r"cannot be opened|regular file|no such|is gone") as caught:
                make()
            assert len(str(caught.value)) < 500
            assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="becomes another user")
def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    cup = write_video(tmp_path / "cup.mp4", frames=2)
    (tmp_path / "frames").mkdir()
    Image.fromarray(PICTURES[0]).save(tmp_path / "frames/0.png")
    locked = tmp_path / "locked"
    locked.mkdir()
    code = f"""
        import os
        from pathlib import Path
        from topreward.errors import VideoError
        from topreward.video import read_video
        import topreward.video.pyav
        folder = Path({str(tmp_path)!r})
        if os.getuid() == 0:
            os.setuid(65534)
        pictures, frames, locked = [folder / "frames/0.png"], folder / "frames", folder / "locked"
        for source, fps in ((folder / "cup.mp4", None), (pictures, 1), (frames, 1), (locked, 1)):
            try:
                read_video(source, fps=fps)
            except VideoError as error:
                assert "Permission denied" in str(error), error
            else:
                raise AssertionError(source)
    """
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):  # pytest's own, closed to others
        folder.chmod(folder.stat().st_mode | 0o055)
    for path in (cup, tmp_path / "frames/0.png", locked):
        path.chmod(0)
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    locked.chmod(0o700)
    assert run.returncode == 0, run.stderr
