"""Long runs as a user meets them: a file that is damaged, a disk that is full, a folder that cannot be written."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from topreward.cli import main
from topreward.cli.bar import Bar, pace
from topreward.jobs.engine import Engine, Pace
from topreward.jobs.run import Run
from videos import write_video

MODEL = ["--model", "demo", "--device", "cpu", "--estimators", "topreward", "--no-controls"]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["eval", *MODEL, *(str(a) for a in arguments)])
    return int(caught.value.code or 0)


def test_one_corrupt_video_among_fifty_is_one_row(tmp_path: Path) -> None:
    videos = [tmp_path / f"{i:02}.mp4" for i in range(50)]
    write_video(videos[0], frames=6)
    for video in videos[1:]:
        video.write_bytes(videos[0].read_bytes())
    data = videos[0].read_bytes()
    videos[31].write_bytes(data[: len(data) // 2])
    output = tmp_path / "r"
    options = ["--output", output, "--decode-workers", "2"]
    assert run("--videos", *videos, "--instruction", "pick it up", *options) == 1
    found = json.loads((output / "results.json").read_text())
    assert (found["episodes_planned"], found["episodes_done"], found["episodes_failed"]) == (50, 50, 1)
    assert [e["id"] for e in found["episodes"]] == [video.name for video in videos]
    assert [e["id"] for e in found["episodes"] if e["error"]] == ["31.mp4"]
    assert "31.mp4" in found["episodes"][31]["error"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_one_line_and_what_is_done_stays(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, dataset = small_disk / "r", "demo:?count=40&size=64"
    assert run("--dataset", dataset, "--output", output, "--decode-workers", "1", "--batch-size", "2") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "No space left on device" in lines[0]
    kept = sorted(output.glob("curves/[!.]*.json"))
    assert 0 < len(kept) < 40
    assert all(json.loads(file.read_text())["error"] is None for file in kept)
    assert not list(output.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    before = {file: file.stat().st_mtime_ns for file in kept}
    assert run("--dataset", dataset, "--output", output, "--decode-workers", "0") == 0
    assert {file: file.stat().st_mtime_ns for file in kept} == before
    assert json.loads((output / "results.json").read_text())["cost"]["episodes_resumed"] == len(kept)


def test_a_folder_that_cannot_be_written_is_one_line(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for shard in ([], ["--shard", "1/2"]):
        assert run("--dataset", "demo:?count=2&size=64", "--output", small_disk / "r", *shard) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line]
        assert line.startswith("error:")
        assert "Read-only file system" in line


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--shard", "3/2"], "shard 3/2: want i/n"),
        (["--shard", "half"], "want i/n, as in 2/8"),
        (["--shard", "1/2"], "name it with --output"),
        (["--shard", "1/2", "--lease-seconds", "0"], "lease_seconds is 0"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--decode-workers", "-1"], "decode_workers is -1"),
        (["--shard", "1/2", "--engine", "ray"], "leave out the shard"),
    ],
)
def test_wishes_that_cannot_be_are_one_line(options: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--dataset", "demo:?count=2&size=64", *options) == 2
    assert error in " ".join(capsys.readouterr().err.split())


def test_the_pace_is_told_in_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    path = tmp_path / "said"
    grown: Run[str] = Run(("a", "b", "c"), Engine(workers=2), {})
    with path.open("w") as file, Bar(Console(file=file, width=20), every=0) as bar:
        bar.started(grown)
        assert pace(grown) == ""
        grown.pace.add(Pace(frames=30, waited=1.0, elapsed=4.0))
        grown.done[0] = "row"
        bar.done()
    first, last = path.read_text().splitlines()
    assert first.startswith("1 of 3 episodes, 15.0 frames/s, model waited 25 %, about ")
    assert last == "1 of 3 episodes, 15.0 frames/s, model waited 25 %"
