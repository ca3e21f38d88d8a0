"""LeRobot datasets that editing tools damaged: no episode shows another one's frames, and the whole ones go on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import places
from clips import rolled_clip
from lerobot_sets import KEY, in_a_row, numbers, shown, write_film, write_set
from topreward.datasets import clips, lerobot_frames, open_dataset
from topreward.datasets.lerobot_places import find_places
from topreward.errors import DatasetError
from topreward.estimators.gvl import GVL
from topreward.estimators.topreward import TOPReward
from topreward.report.terminal import show_curve

LENGTHS = (10, 8, 12, 9, 11)
WAVE = ["wave"] * 5


@pytest.fixture(autouse=True)
def _fresh_caches() -> None:
    clips._opened.cache_clear()
    lerobot_frames._cached_columns.cache_clear()


def all_of(*episodes: int, lengths: tuple[int, ...] = LENGTHS) -> list[int]:
    return [number for episode in episodes for number in numbers(episode, lengths[episode])]


def look(root: Path, lengths: tuple[int, ...] = LENGTHS) -> tuple[list[int], list[int], dict[int, str]]:
    """Episodes that show what they should, those that show others, and the errors, of a dataset opened whole."""
    right, wrong, errors = [], [], {}
    for index, episode in enumerate(open_dataset(f"lerobot:{root}")):
        try:
            seen = shown(episode.clip())
        except ValueError as error:
            errors[index] = str(error)
            continue
        (right if seen == numbers(index, lengths[index]) else wrong).append(index)
    return right, wrong, errors


TWO_FILES = {0: all_of(0, 1, 2), 1: all_of(3, 4)}
RIGHT = [(0, 0, 1.0), (0, 1.0, 1.8), (0, 1.8, 3.0), (1, 0, 0.9), (1, 0.9, 2.0)]
STALE = [120] * 25

# name → (what the files hold, what the metadata say, the episodes that can still be read)
DAMAGE: dict[str, tuple[dict[int, list[int]], list[tuple[int, float, float]], list[int]]] = {
    "nothing": (TWO_FILES, RIGHT, [0, 1, 2, 3, 4]),
    "wrong file, in another's place": (TWO_FILES, [*RIGHT[:2], (1, 0.7, 1.9), *RIGHT[3:]], [0, 1]),
    "wrong file, the others moved behind its end": (
        TWO_FILES,
        [*RIGHT[:2], (1, 0.5, 1.7), (1, 5.0, 5.9), (1, 5.9, 7.0)],
        [0, 1],
    ),
    "two in one place": (TWO_FILES, [RIGHT[0], (0, 0, 0.8), *RIGHT[2:]], [2, 3, 4]),
    "one of them too early by a frame": (TWO_FILES, [RIGHT[0], (0, 0.9, 1.7), *RIGHT[2:]], [2, 3, 4]),
    "one of them too late by a frame": (TWO_FILES, [RIGHT[0], (0, 1.1, 1.9), *RIGHT[2:]], [0, 3, 4]),
    "one place holds several": (TWO_FILES, [(0, 0, 3.0), *RIGHT[1:2], (0, 0.3, 1.5), *RIGHT[3:]], [3, 4]),
    "past the end": (TWO_FILES, [*RIGHT[:4], (1, 7.0, 8.1)], [0, 1, 2, 3]),
    "over the end by a frame": (TWO_FILES, [*RIGHT[:4], (1, 1.0, 2.1)], [0, 1, 2, 3]),
    "a frame lost at one cut": ({**TWO_FILES, 0: all_of(0) + all_of(1)[1:] + all_of(2)}, RIGHT, [3, 4]),
    "a frame lost at every cut": (
        {0: all_of(0)[1:] + all_of(1)[1:] + all_of(2)[1:], 1: all_of(3)[:-1] + all_of(4)},
        RIGHT,
        [],
    ),
    "two frames lost at the last cut": ({**TWO_FILES, 1: all_of(3) + all_of(4)[2:]}, RIGHT, [0, 1, 2]),
    "stale frames behind each file": ({0: TWO_FILES[0] + STALE, 1: TWO_FILES[1] + STALE}, RIGHT, [0, 1, 2, 3, 4]),
    "stale frames between": (
        {0: all_of(0) + STALE + all_of(1, 2), 1: TWO_FILES[1]},
        [RIGHT[0], (0, 3.5, 4.3), (0, 4.3, 5.5), *RIGHT[3:]],
        [0, 1, 2, 3, 4],
    ),
    "stale frames within its place": (
        {0: all_of(0) + STALE + all_of(1, 2), 1: TWO_FILES[1]},
        [(0, 0, 3.5), (0, 3.5, 4.3), (0, 4.3, 5.5), *RIGHT[3:]],
        [0, 1, 2, 3, 4],
    ),
    "the time of the last frame for the end": (
        TWO_FILES,
        [(file, start, end - 0.1) for file, start, end in RIGHT],
        [0, 1, 2, 3, 4],
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_no_episode_shows_another_ones_frames_and_the_others_go_on(tmp_path: Path, name: str) -> None:
    films, said, readable = DAMAGE[name]
    root = write_set(tmp_path / "set", LENGTHS, films, said, tasks=WAVE)
    right, wrong, errors = look(root)
    assert (right, wrong) == (readable, [])
    for index, message in errors.items():
        assert f"episode {index}, {KEY}" in message
        assert ".mp4" in message
        assert "\n" not in message
    notes = [note for index in right for note in open_dataset(f"lerobot:{root}")[index].clip().notes]
    assert not notes or errors  # whole runs that belong to nobody are nothing to speak of


def test_rows_that_run_into_the_next_episode(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", LENGTHS, TWO_FILES, RIGHT, tasks=WAVE)
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    times = np.array(table["timestamp"].to_pylist())
    times[np.array(table["episode_index"]) == 1] += 0.3  # as if its clock had not begun anew
    pq.write_table(table.set_column(0, "timestamp", pa.array(times, pa.float32())), path)
    right, wrong, errors = look(root)
    assert (right, wrong) == ([0, 2, 3, 4], [])
    assert "where the next episode begins" in errors[1]


def test_a_template_that_gives_all_files_one_name(tmp_path: Path) -> None:
    path = "videos/{video_key}/chunk-{chunk_index:03d}/file-000.mp4"
    root = write_set(tmp_path / "v3", LENGTHS, TWO_FILES, RIGHT, tasks=WAVE, video_path=path)
    right, wrong, errors = look(root)
    assert (right, wrong, len(errors)) == ([], [], 5)

    root = tmp_path / "v2"
    shutil.copytree(places.DATA / "lerobot/v21_h264", root)
    info = json.loads((root / "meta/info.json").read_text())
    path = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_000000.mp4"
    (root / "meta/info.json").write_text(json.dumps(info | {"video_path": path}))
    for episode in open_dataset(f"lerobot:{root}"):
        with pytest.raises(DatasetError, match="overlaps that of episode"):
            episode.clip()
    path = "videos/chunk-{episode_chunk:03d}/observation.images.top/episode_{episode_index:06d}.mp4"
    (root / "meta/info.json").write_text(json.dumps(info | {"video_path": path}))
    with pytest.raises(DatasetError, match="names one file for the cameras"):
        open_dataset(f"lerobot:{root}", camera="wrist")


@pytest.mark.parametrize("fps", [10.0, 15.0, 24.0, 29.97, 30.0, 50.0, 60.0])
@pytest.mark.parametrize("longer", [1, 2])
def test_a_surplus_at_every_cut_is_a_note_at_any_rate(tmp_path: Path, fps: float, longer: int) -> None:
    # 30 equal episodes: a limit of exactly a frame would refuse some of them, by the rounding of their times alone
    lengths = (7,) * 30
    film = [number for episode in range(30) for number in [*numbers(episode, 7), *[127] * longer]]
    root = write_set(
        tmp_path / "set", lengths, {0: film}, in_a_row(lengths, fps, longer=longer), fps=fps, tasks=["wave"] * 30
    )
    assert look(root, lengths) == (list(range(30)), [], {})
    (note,) = {note for e in open_dataset(f"lerobot:{root}") for note in e.clip().notes}
    assert f"file-000.mp4 holds {30 * longer} frames more than its 30 episodes have" in note


def test_a_surplus_that_no_place_shows_is_a_note_on_every_curve(
    tmp_path: Path, tiny: TOPReward, capsys: pytest.CaptureFixture[str]
) -> None:
    # The cut kept a frame of the neighbour: every later episode is a frame off, and no metadata tell.
    film = [*all_of(0), 1023, *all_of(1)]
    root = write_set(tmp_path / "set", LENGTHS[:2], {0: film}, RIGHT[:2], tasks=["wave"] * 2)
    told = "file-000.mp4 holds 1 frame more than its 2 episodes have"
    for episode in open_dataset(f"lerobot:{root}"):
        clip = episode.clip()
        for estimator in (tiny, GVL.sharing(tiny)):
            curve = estimator.score(clip, "wave")
            assert any(told in note for note in curve.notes)
            show_curve(Console(width=400), curve)
            assert told in capsys.readouterr().out


def test_views_side_by_side_keep_the_notes_of_each() -> None:
    views = [replace(rolled_clip(count=4), notes=notes) for notes in (("a", "b"), ("b", "c"))]
    assert clips.side_by_side(views, source="both").notes == ("a", "b", "c")


def test_a_file_of_ones_own_may_be_longer_with_a_note(tmp_path: Path) -> None:
    root = tmp_path / "v2"
    shutil.copytree(places.DATA / "lerobot/v21_h264", root)
    video = root / "videos/chunk-000/observation.images.top/episode_000001.mp4"
    write_film(video, numbers(0, 8), 10.0)
    note, size = open_dataset(f"lerobot:{root}")[1].clip().notes
    assert note.startswith("videos/chunk-000/observation.images.top/episode_000001.mp4 holds 1 frame more")
    assert "48x64 px, info.json says 64 by 96" in size  # the film is a test's own
    assert not open_dataset(f"lerobot:{root}")[0].clip().notes


@pytest.mark.parametrize("version", ["v21_h264", "v30_h264"])
def test_films_that_changed_their_places_are_told_by_length_or_size(version: str, tmp_path: Path) -> None:
    root = tmp_path / version
    shutil.copytree(places.DATA / "lerobot" / version, root)
    assert not any(e.clip().notes for e in open_dataset(f"lerobot:{root}", camera=[KEY, "observation.images.wrist"]))
    wrist = KEY.replace("top", "wrist")
    if version == "v21_h264":
        films = [root / f"videos/chunk-000/{KEY}/episode_{episode:06d}.mp4" for episode in (0, 3)]
        swap(*films)  # 12 and 5 frames
        (note,) = open_dataset(f"lerobot:{root}")[3].clip().notes
        assert "episode_000003.mp4 holds 7 frames more than its one episode has" in note
        swap(*films)
        swap(films[0], root / f"videos/chunk-000/{wrist}/episode_000000.mp4")
    else:
        swap(root / f"videos/{KEY}/chunk-000/file-000.mp4", root / f"videos/{wrist}/chunk-000/file-000.mp4")
    for camera, told in ((KEY, "48x64 px, info.json says 64 by 96"), (wrist, "64x96 px, info.json says 48 by 64")):
        (note,) = open_dataset(f"lerobot:{root}", camera=camera)[0].clip().notes
        assert told in note


def swap(one: Path, other: Path) -> None:
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)


def test_a_hundred_thousand_times_in_float_do_not_add_up_to_a_frame() -> None:
    lengths = np.full(100_000, 7.0)
    starts = np.concatenate([[0.0], np.cumsum(lengths / 29.97)[:-1]])
    found = find_places(["a"] * lengths.size, starts, lengths, 29.97)
    assert (found.overlaps < 0).all()
    assert found.shared["a"].frames == 700_000
    assert found.shared["a"].leftover == 0


def test_tasks_come_from_the_rows_where_the_metadata_leave_them_out(tmp_path: Path) -> None:
    said = [[0] * 10, [1] * 8]
    root = write_set(tmp_path / "set", LENGTHS[:2], {0: all_of(0, 1)}, RIGHT[:2], task_rows=said)
    dataset = open_dataset(f"lerobot:{root}")
    assert [(e.instruction, e.extra["tasks"]) for e in dataset] == [("wave", ("wave",)), ("stop", ("stop",))]
    assert look(root) == ([0, 1], [], {})
    assert len(open_dataset(f"lerobot:{root}", skip_unlabelled=True)) == 2
    assert open_dataset(f"lerobot:{root}", instruction="go")[1].instruction == "go"
    turning = write_set(tmp_path / "b", (10,), {0: all_of(0)}, RIGHT[:1], task_rows=[[1] * 4 + [0] * 6])
    assert open_dataset(f"lerobot:{turning}")[0].instruction == "stop; wave"
    unknown = write_set(tmp_path / "c", (10,), {0: all_of(0)}, RIGHT[:1], task_rows=[[7] * 10])
    with pytest.raises(DatasetError, match=r"episode 0, data/.*parquet: task index 7 is not among the 2"):
        open_dataset(f"lerobot:{unknown}")


def test_tasks_come_from_the_rows_in_v2_too(tmp_path: Path) -> None:
    root = tmp_path / "v2"
    shutil.copytree(places.DATA / "lerobot/v21_h264", root)
    wanted = [episode.instruction for episode in open_dataset(f"lerobot:{root}")]
    lines = [json.loads(line) for line in (root / "meta/episodes.jsonl").read_text().splitlines()]
    for line in lines:
        del line["tasks"]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [episode.instruction for episode in open_dataset(f"lerobot:{root}")] == wanted
