"""Choosing a dataset by its uri, and episodes within it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from places import ROOT
from topreward.datasets import Dataset, demo, open_dataset
from topreward.datasets.open import SCHEMES
from topreward.datasets.selection import parse_episodes, random_subset
from topreward.errors import DatasetError
from topreward.types import Episode


@pytest.fixture
def listing(tmp_path: Path) -> str:
    rows = "".join(f"{i}.mp4,do {i}\n" for i in range(20))
    (tmp_path / "episodes.csv").write_text("path,instruction\n" + rows)
    return f"folder:{tmp_path}"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("lerobt:x", "did you mean 'lerobot'"),
        ("hdf:x", "did you mean 'hdf5'"),
        ("rlds:x", "the scheme 'rlds'.*one of lerobot:, folder:, hdf5:, demo:"),
        ("some/folder", "has no scheme"),
        ("", "has no scheme"),
        ("demo:x", "want demo: or"),
        ("demo:?conut=3", "did you mean 'count'"),
        ("demo:?count=x", "count is 'x'"),
        ("demo:?count=-1", "count is '-1'"),
        ("demo:?count=0", "count is 0"),
        ("demo:?tasks=fly", "unknown task 'fly'"),
    ],
)
def test_what_is_no_uri(uri: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        open_dataset(uri)


@pytest.mark.parametrize(
    "options",
    [
        {"revision": "main"},
        {"fps": 3.0},
        {"flip_vertical": False},
        {"instruction_attribute": "x"},
        {"skip_unlabelled": True},
    ],
)
def test_an_option_that_means_nothing_is_an_error(listing: str, options: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=f"{next(iter(options))}= means nothing for folder: datasets"):
        open_dataset(listing, **options)


def test_an_empty_instruction_is_an_error(listing: str) -> None:
    with pytest.raises(DatasetError, match="instruction is empty"):
        open_dataset(listing, instruction=" ")


def test_a_dataset_is_a_sequence(listing: str) -> None:
    dataset = open_dataset(listing)
    assert len(dataset) == 20
    assert dataset[-1].id == "19.mp4"
    part = dataset[5:7]
    assert isinstance(part, Dataset)
    assert [episode.id for episode in part] == ["5.mp4", "6.mp4"]
    assert repr(part) == f"Dataset('{listing}', 2 episodes)"
    with pytest.raises(IndexError):
        dataset[20]
    twin = Episode(id="a", instruction="go", load=lambda: None)
    with pytest.raises(DatasetError, match="the episode id 'a' appears more than once"):
        Dataset("x:", [twin, twin])


def test_episodes_then_subset(listing: str) -> None:
    assert [e.id for e in open_dataset(listing, episodes="3,7,9")] == ["3.mp4", "7.mp4", "9.mp4"]
    assert [e.id for e in open_dataset(listing, episodes=[9, 3])] == ["9.mp4", "3.mp4"]
    drawn = [e.id for e in open_dataset(listing, episodes="10:", subset=4, seed=1)]
    assert len(drawn) == 4
    assert all(int(name.removesuffix(".mp4")) >= 10 for name in drawn)
    assert drawn == [e.id for e in open_dataset(listing, episodes="10:", subset=4, seed=1)]
    assert drawn != [e.id for e in open_dataset(listing, episodes="10:", subset=4, seed=2)]
    with pytest.raises(DatasetError, match="subset=21, but there are only 20"):
        open_dataset(listing, subset=21)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0:3", [0, 1, 2]),
        ("3,7,9", [3, 7, 9]),
        (" 8: , 1", [8, 9, 1]),
        (":2", [0, 1]),
        ("::3", [0, 3, 6, 9]),
        (":", list(range(10))),
        (range(2, 4), [2, 3]),
        (np.array([4, 1]), [4, 1]),
    ],
)
def test_episode_ranges(text: Any, numbers: list[int]) -> None:
    assert parse_episodes(text, 10) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0:50", "asks for episode 49, the dataset has 10 episodes"),
        ("10", r"asks for episode 10, the dataset has episodes 0\.\.9"),
        ("0:999999999999", "asks for episode 999999999998"),
        ("3:3", "the range '3:3' is empty"),
        ("1:5:0", "is empty"),
        ("-1", "cannot read '-1'"),
        ("a", "cannot read 'a'"),
        ("", "cannot read ''"),
        ("1,,2", "cannot read ''"),
        ("1" * 5000, "cannot read"),
        ("1,0:2", "asks for episode 1 more than once"),
        ([1.0], "holds 1.0, want integers"),
        ([True], "holds True, want integers"),
        ([-1], "asks for episode -1"),
        ([], "no episode at all"),
    ],
)
def test_what_is_no_range(text: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        parse_episodes(text, 10)


@given(count=st.integers(1, 60), seed=st.integers(0, 5), data=st.data())
def test_a_larger_subset_contains_the_smaller(count: int, seed: int, data: st.DataObject) -> None:
    ids = [f"episode_{index:06d}" for index in range(count)]
    size = data.draw(st.integers(1, count))
    drawn = random_subset(ids, size, seed)
    assert len(drawn) == size
    assert drawn == sorted(set(drawn))
    assert set(random_subset(ids, max(size - 1, 1), seed)) <= set(drawn)


def test_a_subset_is_the_same_everywhere_and_fair() -> None:
    ids = [f"episode_{index:06d}" for index in range(50)]
    assert random_subset(ids, 5, seed=0) == [19, 22, 25, 34, 43]
    counts = np.zeros(50)
    for seed in range(400):
        counts[random_subset(ids, 10, seed)] += 1
    assert counts.sum() == 4000
    assert counts.min() > 40
    assert counts.max() < 125
    for size in (0, -1, True, 2.0):
        with pytest.raises(DatasetError, match="want a positive number"):
            random_subset(ids, size, 0)  # type: ignore[arg-type]


def test_demo() -> None:
    dataset = open_dataset("demo:?count=6&seed=3", episodes="0:4", subset=2)
    assert len(dataset) == 2
    assert dataset.cameras == ("front",)
    episode = dataset[0]
    assert episode.extra["dataset_uri"] == "demo:?count=6&seed=3"
    assert episode.success is not None
    assert episode.progress is not None
    clip = episode.clip()
    assert clip.num_frames == episode.progress.size
    assert clip.frames([0]).shape == (1, clip.height, clip.width, 3)
    small = open_dataset("demo:?count=2&size=64&kinds=success,never_starts")
    assert small[0].clip().height == 64
    assert {one.extra["kind"] for one in small} <= {"success", "never_starts"}
    assert len(open_dataset("demo:")) == 20


@pytest.mark.parametrize("name", ["oxe", "manirewardbench"])
def test_suites_hold_what_open_dataset_takes(name: str) -> None:
    suite = yaml.safe_load((ROOT / "configs/datasets" / f"{name}.yaml").read_text())
    assert suite["suite"] == name
    entries = suite["datasets"] + suite.get("further", [])
    assert len({entry["name"] for entry in entries}) == len(entries)
    for entry in entries:
        scheme, _, location = entry.get("uri", "lerobot:owner/name").partition(":")
        assert scheme in SCHEMES
        assert location.count("/") == 1
        options = {**suite["options"], **entry.get("options", {})}
        assert set(options) <= {*SCHEMES[scheme], "episodes", "subset", "seed"}
        assert parse_episodes(options.get("episodes", ":"), entry.get("total_episodes", 1000))


def test_demo_videos_are_real_files(tmp_path: Path) -> None:
    uri = f"demo:?count=2&seed=3&videos={tmp_path / 'films'}"
    drawn, filmed = open_dataset("demo:?count=2&seed=3"), open_dataset(uri)
    assert not (tmp_path / "films").exists(), "nothing is written before an episode is opened"
    folder = tmp_path / "films"
    for a, b in zip(drawn, filmed, strict=True):
        clip = b.clip()
        assert clip.source == str(folder / f"{b.id}.mp4")
        assert (clip.num_frames, clip.fps) == (a.clip().num_frames, a.clip().fps)
        assert b.progress is not None
        assert np.abs(clip.frames([5]).astype(int) - a.clip().frames([5])).mean() < 4
        assert (a.success, a.instruction) == (b.success, b.instruction)
    written = (folder / f"{filmed[0].id}.mp4").stat().st_mtime_ns
    open_dataset(uri)[0].clip()
    assert (folder / f"{filmed[0].id}.mp4").stat().st_mtime_ns == written, "written once"


def test_demo_videos_of_another_size_or_world_are_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"demo:?count=1&videos={tmp_path}"
    first = open_dataset(f"{uri}&size=64")[0].clip()
    assert (first.height, open_dataset(f"{uri}&size=96")[0].clip().height) == (64, 96)
    film = Path(first.source)
    film.write_bytes(b"no video")
    monkeypatch.setattr(demo, "world_version", lambda: "another")
    again = open_dataset(f"{uri}&size=96")[0].clip()
    assert (again.height, again.source) == (96, first.source)
    assert film.stat().st_size > 1000


def test_the_world_version_holds_every_module_that_makes_a_video() -> None:
    package = Path(demo.__file__).parent.parent / "demo"
    reached, waiting = set[str](), ["episodes", "mp4"]
    while waiting:
        name = waiting.pop()
        if name in reached or not (package / f"{name}.py").is_file():
            continue
        reached.add(name)
        for node in ast.walk(ast.parse((package / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "topreward.demo":
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("topreward.demo."):
                waiting.append(str(node.module).split(".")[2])
    assert reached == set(demo.WORLD)
