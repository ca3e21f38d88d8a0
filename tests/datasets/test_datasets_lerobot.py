"""LeRobot datasets: frame for frame what LeRobot itself wrote and read back, and an error for every defect.

The datasets in data/lerobot/ were written by two releases of LeRobot (see data/README.md); the broken ones are
copies of them with one thing changed.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

import places
from topreward.datasets import clips, lerobot_frames, open_dataset
from topreward.errors import DatasetError, TopRewardError, VideoError
from topreward.types import Clip

DATA = places.DATA / "lerobot"
VIDEO = ("v30_av1", "v30_h264", "v21_av1", "v21_h264")
IMAGES = ("v30_images", "v21_images")
TOP, WRIST = "observation.images.top", "observation.images.wrist"
LENGTHS = (12, 7, 9, 5)


@pytest.fixture(autouse=True)
def _fresh_caches() -> None:
    clips._opened.cache_clear()
    lerobot_frames._cached_columns.cache_clear()


def expected(name: str) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    frames = json.loads((DATA / name / "expected.json").read_text())["frames"]
    with np.load(DATA / name / "expected.npz") as arrays:
        return frames, dict(arrays)


def blocks(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) → (T, H/16, W/16, 3): the mean of every 16x16 px block."""
    count, height, width, _ = frames.shape
    return frames.reshape(count, height // 16, 16, width // 16, 16, 3).mean(axis=(2, 4))


def identity(frame: np.ndarray) -> tuple[int, int, int]:
    """(episode, frame, camera) out of the black and white squares in the lowest 16 rows."""
    height, width, _ = frame.shape
    squares = frame[height - 16 :].reshape(2, 8, 8, width // 8, 3)[:, 2:6, :, 2:-2].mean(axis=(1, 3, 4)).ravel()
    bits = (squares > 127).astype(int)
    assert bits[11:].tolist() == [1, 0, 0, 1, 1], "the picture carries no mark"
    return int(bits[:4] @ (1 << np.arange(4))), int(bits[4:10] @ (1 << np.arange(6))), int(bits[10])


def broken(tmp_path: Path, name: str) -> Path:
    root = tmp_path / name
    shutil.copytree(DATA / name, root)
    return root


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps(change(data) or data))


def edit_lines(path: Path, change: Callable[[list[Any]], Any]) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in change(lines) or lines))


def edit_table(path: Path, change: Callable[[dict[str, list[Any]]], Any], drop: tuple[str, ...] = ()) -> None:
    table = pq.read_table(path).drop_columns(list(drop))
    columns = {name: table[name].to_pylist() for name in table.column_names}
    change(columns)
    changed = {}
    for column, values in columns.items():  # a change of type is written as a pa.array
        kept = isinstance(values, pa.Array)
        changed[column] = values if kept else pa.array(values, type=table.schema.field(column).type)
    pq.write_table(pa.table(changed), path)


def episodes_table(root: Path) -> Path:
    return root / "meta/episodes/chunk-000/file-000.parquet"


# -- what LeRobot wrote ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VIDEO + IMAGES)
def test_metadata_are_what_lerobot_says(name: str) -> None:
    frames, _ = expected(name)
    dataset = open_dataset(f"lerobot:{DATA / name}")
    assert len(dataset) == 4
    assert dataset.cameras == (TOP, WRIST)
    assert dataset.revision is None
    for index, episode in enumerate(dataset):
        rows = [row for row in frames if row["episode_index"] == index]
        assert episode.id == f"episode_{index:06d}"
        assert episode.instruction == "; ".join(dict.fromkeys(row["task"] for row in rows))
        assert episode.extra["episode_index"] == index
        assert episode.extra["dataset_from_index"] == rows[0]["index"]
        assert episode.extra["length"] == len(rows) == LENGTHS[index]
        assert episode.extra["fps"] == 10
        assert episode.extra["dataset_uri"] == f"lerobot:{DATA / name}"
        assert (episode.camera, episode.split, episode.success) == (TOP, "train", None)
        clip = episode.clip()
        assert clip.num_frames == len(rows)
        assert clip.fps == 10
        np.testing.assert_allclose(clip.pts_seconds, [row["timestamp"] for row in rows], atol=1e-6)


@pytest.mark.parametrize("camera", [TOP, WRIST])
@pytest.mark.parametrize("name", VIDEO + IMAGES)
def test_every_frame_is_the_one_that_was_written(name: str, camera: str) -> None:
    for index, episode in enumerate(open_dataset(f"lerobot:{DATA / name}", camera=camera)):
        clip = episode.clip()
        order = np.random.default_rng(index).permutation(clip.num_frames)
        for frame, pixels in zip(order, clip.frames(order), strict=True):
            assert identity(pixels) == (index, frame, int(camera == WRIST))


@pytest.mark.parametrize("camera", [TOP, WRIST])
@pytest.mark.parametrize("name", VIDEO + IMAGES)
def test_pixels_are_lerobots(name: str, camera: str) -> None:
    _, arrays = expected(name)
    episodes = open_dataset(f"lerobot:{DATA / name}", camera=camera)
    got = np.concatenate([(clip := episode.clip()).frames(np.arange(clip.num_frames)) for episode in episodes])
    # 1: swscale's quick paths are not the same on every processor
    tolerance = 1 if name in VIDEO else 0
    assert np.abs(got[arrays["kept"]].astype(int) - arrays[f"{camera}/pixels"]).max() <= tolerance
    assert np.abs(blocks(got) - arrays[f"{camera}/blocks"]).max() <= tolerance + 0.5


@pytest.mark.parametrize("name", ["v30_h264", "v21_images"])
def test_two_cameras_stand_side_by_side(name: str) -> None:
    uri = f"lerobot:{DATA / name}"
    top, both = open_dataset(uri, camera="top")[1], open_dataset(uri, camera=["top", "wrist"])[1]
    assert both.camera == f"{TOP}+{WRIST}"
    clip = both.clip()
    assert (clip.num_frames, clip.height, clip.width) == (7, 64, 96 + 85)  # 48x64 px grow to 64x85
    frames = clip.frames([0, 6])
    np.testing.assert_array_equal(frames[:, :, :96], top.clip().frames([0, 6]))
    swapped = open_dataset(uri, camera=["wrist", "top"])[1].clip().frames([0, 6])
    np.testing.assert_array_equal(swapped[:, :, 85:], frames[:, :, :96])
    np.testing.assert_array_equal(swapped[:, :, :85], frames[:, :, 96:])


def test_a_wrong_camera_is_answered_with_those_there_are() -> None:
    with pytest.raises(DatasetError, match=rf"'left' is not in this dataset; the cameras are {TOP}, {WRIST}"):
        open_dataset(f"lerobot:{DATA / 'v30_av1'}", camera="left")
    with pytest.raises(DatasetError, match="twice"):
        open_dataset(f"lerobot:{DATA / 'v30_av1'}", camera=["top", TOP])


@pytest.mark.parametrize("mark", ["video.is_depth_map", "is_depth_map"])
def test_a_depth_camera_is_never_the_first(tmp_path: Path, mark: str) -> None:
    root = broken(tmp_path, "v21_h264")
    edit_json(root / "meta/info.json", lambda info: info["features"][TOP]["info"].update({mark: True}))
    assert open_dataset(f"lerobot:{root}").cameras == (WRIST, TOP)
    assert open_dataset(f"lerobot:{root}")[0].camera == WRIST
    assert open_dataset(f"lerobot:{root}", camera="top")[0].camera == TOP


def test_a_shared_file_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = clips.read_video
    monkeypatch.setattr(clips, "read_video", lambda path: opened.append(path) or read(path))
    for episode in open_dataset(f"lerobot:{DATA / 'v30_av1'}"):
        episode.clip().frames([0])
    assert len(opened) == 1


def test_loaders_go_to_other_processes() -> None:
    for name in ("v30_h264", "v21_images"):
        episode = open_dataset(f"lerobot:{DATA / name}")[2]
        load = pickle.loads(pickle.dumps(episode.load))
        np.testing.assert_array_equal(load().frames([3]), episode.clip().frames([3]))
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(load())).frames([3]), episode.clip().frames([3]))


def test_opening_touches_neither_data_nor_videos(tmp_path: Path) -> None:
    root = broken(tmp_path, "v30_av1")
    shutil.rmtree(root / "videos")
    episode = open_dataset(f"lerobot:{root}")[3]
    with pytest.raises(VideoError, match=r"episode 3, observation.images.top.*file-000.mp4 is missing"):
        episode.clip()
    shutil.rmtree(root / "data")
    with pytest.raises(DatasetError, match=r"episode 3.*data/chunk-000/file-000.parquet is missing"):
        open_dataset(f"lerobot:{root}")[3].clip()


# -- instructions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
def test_several_tasks_stand_in_the_order_of_the_frames(name: str) -> None:
    episode = open_dataset(f"lerobot:{DATA / name}", episodes=[3])[0]
    assert episode.instruction == "lift the lid; put the lid on the pot"
    assert set(episode.extra["tasks"]) == {"lift the lid", "put the lid on the pot"}
    told = open_dataset(f"lerobot:{DATA / name}", instruction="tidy up")
    assert {one.instruction for one in told} == {"tidy up"}


def test_an_empty_instruction_is_an_error_of_its_episode(tmp_path: Path) -> None:
    root = broken(tmp_path, "v21_images")
    edit_lines(root / "meta/episodes.jsonl", lambda lines: lines[1].update(tasks=[" "]))
    with pytest.raises(DatasetError, match="episode 1: there is no instruction"):
        open_dataset(f"lerobot:{root}")
    assert len(open_dataset(f"lerobot:{root}", episodes="0,2:4")) == 3
    labelled = open_dataset(f"lerobot:{root}", skip_unlabelled=True)
    assert [episode.extra["episode_index"] for episode in labelled] == [0, 2, 3]
    assert labelled.skipped == labelled[1:].skipped == ("episode_000001",)
    assert "3 episodes" in repr(labelled)
    assert "1 without an instruction skipped" in repr(labelled)
    with pytest.raises(DatasetError, match="subset=4, but there are only 3"):
        open_dataset(f"lerobot:{root}", skip_unlabelled=True, subset=4)
    with pytest.raises(DatasetError, match="no episode is unlabelled"):
        open_dataset(f"lerobot:{root}", skip_unlabelled=True, instruction="go")
    assert open_dataset(f"lerobot:{root}", instruction="open the drawer")[1].instruction == "open the drawer"


def test_a_dataset_without_episodes_is_none(tmp_path: Path) -> None:
    root = broken(tmp_path, "v21_images")
    edit_lines(root / "meta/episodes.jsonl", lambda lines: [line.update(tasks=[]) for line in lines] and None)
    with pytest.raises(DatasetError, match="there are no episodes with an instruction"):
        open_dataset(f"lerobot:{root}", skip_unlabelled=True)
    (root / "meta/episodes.jsonl").write_text("")
    edit_json(root / "meta/info.json", lambda info: info.update(total_episodes=0, total_frames=0))
    with pytest.raises(DatasetError, match=r"there are no episodes$"):
        open_dataset(f"lerobot:{root}")


def test_task_indices_stand_for_texts(tmp_path: Path) -> None:
    root = broken(tmp_path, "v21_h264")
    edit_lines(root / "meta/episodes.jsonl", lambda lines: lines[1].update(tasks=[1]))
    assert open_dataset(f"lerobot:{root}")[1].instruction == "open the drawer"


def test_v20_differs_only_in_name(tmp_path: Path) -> None:
    root = broken(tmp_path, "v21_h264")

    def older(info: Any) -> None:
        info["codebase_version"] = "v2.0"
        del info["chunks_size"], info["data_path"]  # as LeRobot: 1000, and the usual place
        info["video_path"] = "videos/chunk-{chunk_index:03d}/{video_key}/episode_{episode_index:06d}.mp4"

    edit_json(root / "meta/info.json", older)
    assert identity(open_dataset(f"lerobot:{root}", camera="wrist")[1].clip().frames([2])[0]) == (1, 2, 1)


# -- the hub ---------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A hub with one dataset, somebody/pots; the list tells what was fetched, and by which revision."""
    fetched: list[tuple[str, str]] = []
    origin = DATA / "v30_h264"
    cache = tmp_path / "datasets--somebody--pots"
    snapshot = cache / "snapshots" / COMMIT

    def fetch(relative: str, revision: str | None) -> str:
        # as the real cache does it: content under blobs/, a link to it in the snapshot
        blob, link = cache / "blobs" / relative.replace("/", "_"), snapshot / relative
        if not link.exists():
            if not (origin / relative).is_file():
                raise LocalEntryNotFoundError(f"no {relative}\nsecond line")
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(origin / relative, blob)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
            fetched.append((relative, str(revision)))
        return str(link)

    def snapshot_download(
        repo_id: str, *, repo_type: str | None = None, revision: str | None = None, allow_patterns: list[str]
    ) -> str:
        assert (repo_type, allow_patterns) == ("dataset", ["meta/*"])
        if repo_id != "somebody/pots" or revision == "nowhere":
            raise LocalEntryNotFoundError("404 Client Error\nand more")
        for path in sorted(origin.rglob("meta/**/*")):
            if path.is_file():
                fetch(path.relative_to(origin).as_posix(), revision)
        return str(snapshot)

    def hf_hub_download(
        repo_id: str, filename: str, *, repo_type: str | None = None, revision: str | None = None
    ) -> str:
        assert (repo_id, repo_type) == ("somebody/pots", "dataset")
        return fetch(filename, revision)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return fetched


def test_the_hub_gives_meta_first_and_then_what_an_episode_needs(hub: list[tuple[str, str]], tmp_path: Path) -> None:
    dataset = open_dataset("lerobot:somebody/pots", episodes="2:4", camera="wrist", revision="v3.0")
    assert dataset.revision == COMMIT
    assert dataset[0].extra["revision"] == COMMIT
    assert hub
    assert all(path.startswith("meta/") for path, _ in hub)
    hub.clear()
    clip = dataset[0].clip()
    assert identity(clip.frames([4])[0]) == (2, 4, 1)
    # chosen by the metadata: the first data file of chunk 1, the second wrist video; pinned to the commit
    assert hub == [
        ("data/chunk-001/file-000.parquet", COMMIT),
        (f"videos/{WRIST}/chunk-000/file-001.mp4", COMMIT),
    ]
    hub.clear()
    assert identity(dataset[0].clip().frames([1])[0]) == (2, 1, 1)
    assert not hub

    # the folder of the cache is a dataset folder too, although its files are links
    folder = tmp_path / "datasets--somebody--pots" / "snapshots" / COMMIT
    assert open_dataset(f"lerobot:{folder}", episodes=[2], camera="wrist")[0].clip().num_frames == 9


def test_what_the_hub_lacks(hub: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DatasetError, match=r"somebody/else cannot be opened \(LocalEntryNotFoundError: 404 Client Error\)$"
    ):
        open_dataset("lerobot:somebody/else")
    with pytest.raises(DatasetError, match="somebody/pots@nowhere"):
        open_dataset("lerobot:somebody/pots", revision="nowhere")
    dataset = open_dataset("lerobot:somebody/pots")

    def offline(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(DatasetError, match=r"episode 0: somebody/pots@0123456789ab: cannot fetch data/.*offline"):
        dataset[0].clip()


def test_what_was_fetched_once_works_offline(tmp_path: Path) -> None:
    """huggingface_hub itself, over a cache as it leaves one; the data of chunk 0 were never fetched."""
    home = tmp_path / "datasets--somebody--pots"
    shutil.copytree(DATA / "v30_h264", home / "snapshots" / COMMIT, ignore=shutil.ignore_patterns("expected*"))
    shutil.rmtree(home / "snapshots" / COMMIT / "data/chunk-000")
    (home / "refs").mkdir()
    (home / "refs/main").write_text(COMMIT)
    code = (
        "from topreward.datasets import open_dataset\n"
        "dataset = open_dataset('lerobot:somebody/pots')\n"
        "print(dataset.revision, [dataset[i].clip().num_frames for i in (2, 3)])\n"
        "try: dataset[0].clip()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    settings = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True)
    first, second = ran.stdout.splitlines()
    assert first == f"{COMMIT} [9, 5]"
    assert second.startswith(
        "DatasetError lerobot:somebody/pots, episode 0: somebody/pots@0123456789ab: cannot fetch "
        "data/chunk-000/file-000.parquet (LocalEntryNotFoundError: "
    )


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "names no dataset"),
        ("/no/such/folder", "no folder"),
        ("nothing", "owner/name"),
        ("../up/there", "owner/name"),
        (__file__, "is a file"),
    ],
)
def test_what_is_no_dataset(location: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        open_dataset(f"lerobot:{location}")
    with pytest.raises(DatasetError, match="local folder"):
        open_dataset(f"lerobot:{DATA / 'v21_av1'}", revision="main")


# -- defects that the metadata tell, at opening -----------------------------------------------------------------

INFO_DEFECTS: list[tuple[dict[str, Any], str]] = [
    ({"codebase_version": "v1.6"}, "codebase_version is 'v1.6'"),
    ({"fps": 0}, "fps is 0"),
    ({"fps": float("nan")}, "fps is nan"),
    ({"fps": "10"}, "fps is '10'"),
    ({"chunks_size": 0}, "chunks_size is 0"),
    ({"total_episodes": 5}, r"episode 4 is missing \(4 listed, info.json counts 5\)"),
    ({"total_episodes": 3}, "4 episodes are listed, info.json counts 3"),
    ({"total_frames": 34}, "add up to 33 frames, info.json counts 34"),
    ({"data_path": 7}, "must be texts"),
    ({"video_path": None}, "no video_path"),
    ({"features": []}, "features must be"),
    ({"features": {}}, "no camera"),
    ({"data_path": "../../etc/{episode_index}"}, r"unknown|leaves the dataset|asks for 'episode_index'"),
    ({"data_path": "../secret.parquet"}, r"'\.\./secret.parquet' leaves the dataset"),
    ({"data_path": "data/../../secret"}, "leaves the dataset"),
    ({"data_path": "/etc/passwd"}, "leaves the dataset"),
    ({"data_path": "C:\\secret"}, "leaves the dataset"),
    ({"data_path": "data\\..\\..\\secret"}, "leaves the dataset"),
    ({"video_path": "../{video_key}.mp4"}, "leaves the dataset"),
    ({"video_path": "{video_key.__class__}.mp4"}, "asks for 'video_key.__class__'"),
    ({"video_path": "{video_key[0]}.mp4"}, "asks for"),
    ({"video_path": "{0}.mp4"}, "asks for '0'"),
    ({"video_path": "{vide_key}.mp4"}, r"did you mean 'video_key'"),
    ({"video_path": "{video_key!r}.mp4"}, "not allowed"),
    ({"video_path": "{chunk_index:999999999d}.mp4"}, "not allowed"),
    ({"video_path": "{chunk_index:{file_index}}.mp4"}, "not allowed"),
    ({"video_path": "{video_key"}, "malformed"),
]


@pytest.mark.parametrize(("change", "message"), INFO_DEFECTS, ids=lambda value: str(value)[:50])
@pytest.mark.parametrize("name", ["v30_h264", "v21_h264"])
def test_defects_of_info_json(tmp_path: Path, name: str, change: dict[str, Any], message: str) -> None:
    root = broken(tmp_path, name)
    edit_json(root / "meta/info.json", lambda info: info.update(change))
    if "episode_index" in str(change) and name == "v21_h264":
        message = "leaves the dataset"
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(f"lerobot:{root}")
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_info_json_that_is_none(tmp_path: Path) -> None:
    root = broken(tmp_path, "v21_images")
    for content, message in (("{", "not JSON"), ("[]", "want an object")):
        (root / "meta/info.json").write_text(content)
        with pytest.raises(DatasetError, match=message):
            open_dataset(f"lerobot:{root}")
    (root / "meta/info.json").unlink()
    with pytest.raises(DatasetError, match=r"meta/info\.json is missing"):
        open_dataset(f"lerobot:{root}")


def test_a_camera_key_cannot_leave_the_dataset_either(tmp_path: Path) -> None:
    root = broken(tmp_path, "v21_h264")

    def rename(info: Any) -> None:
        info["features"]["../../../elsewhere"] = info["features"].pop(TOP)

    edit_json(root / "meta/info.json", rename)
    with pytest.raises(DatasetError, match="leaves the dataset"):
        open_dataset(f"lerobot:{root}", camera="../../../elsewhere")


V21_DEFECTS: list[tuple[Callable[[list[Any]], Any], str]] = [
    (lambda lines: lines[2].update(length=0), r"episode 2: length is 0|episode 2 has length 0"),
    (lambda lines: lines[2].update(length=-9), "episode 2: length is -9"),
    (lambda lines: lines[2].update(length="9"), "episode 2: length is '9'"),
    (lambda lines: lines[2].update(length=9.5), "episode 2: length is 9.5"),
    (lambda lines: lines[2].update(length=None), "episode 2: length is None"),
    (lambda lines: lines[2].update(episode_index=1), "episode 1 appears more than once"),
    (lambda lines: lines.pop(2) and None, "episode 2 is missing"),
    (lambda lines: lines[2].update(episode_index=7), "episode 2 is missing"),
    (lambda lines: lines[2].update(tasks="open"), "episode 2: tasks is 'open'"),
    (lambda lines: lines[2].update(tasks=[99]), "episode 2: task index 99 is not among the 3 tasks"),
    (lambda lines: [[]], "line 1: holds a list"),
]


@pytest.mark.parametrize(("change", "message"), V21_DEFECTS)
def test_defects_of_the_v21_listing(tmp_path: Path, change: Callable[[list[Any]], Any], message: str) -> None:
    root = broken(tmp_path, "v21_h264")
    edit_lines(root / "meta/episodes.jsonl", change)
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(f"lerobot:{root}")
    assert "meta/episodes.jsonl" in str(caught.value)


def _set(column: str, value: Any) -> Callable[[dict[str, list[Any]]], None]:
    def change(columns: dict[str, list[Any]]) -> None:
        columns[column][2] = value

    return change


START, END = f"videos/{TOP}/from_timestamp", f"videos/{TOP}/to_timestamp"
V30_DEFECTS: list[tuple[Callable[[dict[str, list[Any]]], Any], str]] = [
    (_set("length", 0), r"episode 2 has length 0 and 9 rows"),
    (_set("length", -9), r"episode 2 has length -9"),
    (_set("length", 8), r"episode 2 has length 8 and 9 rows"),
    (_set("length", None), "episode 2"),
    (_set("dataset_to_index", 27), r"episode 2: length is 9, but its rows are 19..27 \(8 rows\)"),
    (_set("dataset_from_index", -1), "episode 2: dataset_from_index is -1"),
    (_set("episode_index", 1), "episode 1 appears more than once"),
    (_set("episode_index", 9), "episode 2 is missing"),
    (_set("data/chunk_index", None), "episode 2: data/chunk_index is None"),
    (_set(f"videos/{TOP}/file_index", -1), "episode 2: .*file_index is -1"),
    (_set(START, float("nan")), "episode 2: .*from_timestamp is nan"),
    (_set(START, float("inf")), "episode 2: .*from_timestamp is inf"),
    (_set(START, -1.0), "episode 2: .*from_timestamp is -1"),
    (_set(START, None), "episode 2: .*from_timestamp is None"),
    (_set(START, 0.4), r"episode 2: videos/.*top lasts from 0.4000 s to 0.9000 s, but 9 frames at 10 fps last 0.9000"),
    (_set(END, 0.74), r"episode 2: videos/.*top lasts from 0.0000 s to 0.7400 s"),
    (_set(END, float("nan")), "episode 2: .*to_timestamp is nan"),
    (lambda columns: columns.pop(END), r"the columns videos/.*to_timestamp are missing"),
    (
        lambda columns: columns.update(length=pa.array(list("abcd"))),
        "the column length is (large_)?string, want integers",
    ),
    (lambda columns: columns.update(tasks=pa.array(list("abcd"))), "the column tasks is .*, want lists of texts"),
    (lambda columns: columns.update({START: pa.array([0, 1, 2, 3])}), "from_timestamp is int64, want floating-point"),
    (
        lambda columns: columns.pop("dataset_from_index"),
        "the columns dataset_from_index are missing; it has episode_index",
    ),
]


@pytest.mark.parametrize(("change", "message"), V30_DEFECTS)
def test_defects_of_the_v30_listing(
    tmp_path: Path, change: Callable[[dict[str, list[Any]]], Any], message: str
) -> None:
    root = broken(tmp_path, "v30_h264")
    stats = [name for name in pq.read_schema(episodes_table(root)).names if name.startswith("stats/")]
    edit_table(episodes_table(root), change, drop=tuple(stats))
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(f"lerobot:{root}")
    assert "meta/episodes" in str(caught.value)


def test_an_episode_that_starts_elsewhere_does_not_show_another_ones_frames(tmp_path: Path) -> None:
    root = broken(tmp_path, "v30_av1")

    def change(columns: dict[str, list[Any]]) -> None:
        columns[START][1] = 0.0

    edit_table(episodes_table(root), change)
    dataset = open_dataset(f"lerobot:{root}")
    for one, other in ((0, 1), (1, 0)):
        with pytest.raises(DatasetError, match=rf"episode {one}, .*top: its place in videos/.* overlaps .* {other};"):
            dataset[one].clip()
    assert [identity(dataset[i].clip().frames([2])[0]) for i in (2, 3)] == [(2, 2, 0), (3, 2, 0)]
    assert identity(open_dataset(f"lerobot:{root}", camera="wrist")[1].clip().frames([2])[0]) == (1, 2, 1)


def test_half_a_frame_more_or_less_is_no_contradiction(tmp_path: Path) -> None:
    root = broken(tmp_path, "v30_av1")

    def change(columns: dict[str, list[Any]]) -> None:
        columns[END] = [value + 0.05 * (-1) ** row for row, value in enumerate(columns[END])]

    edit_table(episodes_table(root), change)
    assert identity(open_dataset(f"lerobot:{root}")[1].clip().frames([2])[0]) == (1, 2, 0)


@pytest.mark.parametrize("value", ["[" * 100_000 + "]" * 100_000, "9" * 5000], ids=["nested", "digits"])
@pytest.mark.parametrize("file", ["meta/episodes.jsonl", "meta/tasks.jsonl"])
def test_lines_that_no_parser_takes(tmp_path: Path, file: str, value: str) -> None:
    root = broken(tmp_path, "v21_h264")
    first, *others = (root / file).read_text().splitlines()
    (root / file).write_text("\n".join([first, f'{{"length": {value}}}', *others]))
    with pytest.raises(DatasetError, match=rf"{file}, line 2: not JSON"):
        open_dataset(f"lerobot:{root}")


def test_files_that_are_no_parquet(tmp_path: Path) -> None:
    root = broken(tmp_path, "v30_images")
    table = episodes_table(root)
    table.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DatasetError, match="not a readable parquet file"):
        open_dataset(f"lerobot:{root}")
    table.unlink()
    with pytest.raises(DatasetError, match="there are no files"):
        open_dataset(f"lerobot:{root}")


def test_defects_of_the_tasks(tmp_path: Path) -> None:
    root = broken(tmp_path, "v21_images")
    edit_lines(root / "meta/tasks.jsonl", lambda lines: lines[1].update(task_index=0))
    with pytest.raises(DatasetError, match=r"tasks.jsonl, line 2: task_index 0 appears more than once"):
        open_dataset(f"lerobot:{root}")
    root = broken(tmp_path, "v30_images")
    edit_table(root / "meta/tasks.parquet", lambda columns: columns.pop("__index_level_0__"))
    with pytest.raises(DatasetError, match=r"tasks.parquet has the columns task_index, want"):
        open_dataset(f"lerobot:{root}")


@pytest.mark.parametrize("text", ["task", "__index_level_0__"])
def test_both_spellings_of_the_task_table(tmp_path: Path, text: str) -> None:
    root = broken(tmp_path, "v30_images")
    table = pq.read_table(root / "meta/tasks.parquet")
    columns = {"task_index": table["task_index"], text: table["__index_level_0__"]}
    pq.write_table(pa.table(columns), root / "meta/tasks.parquet")
    assert open_dataset(f"lerobot:{root}")[3].instruction == "lift the lid; put the lid on the pot"


def test_a_defect_in_an_episode_that_nobody_chose_stops_nobody(tmp_path: Path) -> None:
    root = broken(tmp_path, "v30_h264")
    edit_table(episodes_table(root), _set(START, float("nan")))
    dataset = open_dataset(f"lerobot:{root}", episodes="0,1,3")
    assert [identity(episode.clip().frames([1])[0])[0] for episode in dataset] == [0, 1, 3]


# -- defects that only the data tell, when the episode is opened -------------------------------------------------


def _data_defect(column: str, row: int, value: Any) -> Callable[[dict[str, list[Any]]], None]:
    def change(columns: dict[str, list[Any]]) -> None:
        columns[column][row] = value

    return change


DATA_DEFECTS: list[tuple[Callable[[dict[str, list[Any]]], Any], str]] = [
    (_data_defect("task_index", 4, 99), "task index 99 is not among the 3 tasks"),
    (_data_defect("task_index", 4, 2), "the frames' tasks are"),
    (_data_defect("timestamp", 4, float("nan")), "the timestamp of frame 4 is nan"),
    (_data_defect("timestamp", 4, float("inf")), "the timestamp of frame 4 is inf"),
    (_data_defect("timestamp", 4, 0.1), "timestamps do not increase"),
    (_data_defect("timestamp", 6, 60.0), r"frame 6 should be at 6[01].\d000 s"),
    (_data_defect("index", 4, 5), "index of frame 4 is 5, want 16"),
    (_data_defect("frame_index", 4, 5), "frame_index of frame 4 is 5, want 4"),
    (_data_defect("episode_index", 6, 2), "6 rows belong to the episode, its length is 7"),
    (_data_defect("timestamp", 4, None), "the column timestamp is .* with 1 nulls"),
    (lambda columns: columns.pop("timestamp"), "the columns timestamp are missing"),
    (lambda columns: columns.update(index=pa.array(["a"] * 7)), "the column index is (large_)?string"),
]


@pytest.mark.parametrize(("change", "message"), DATA_DEFECTS)
@pytest.mark.parametrize("name", ["v30_h264", "v21_h264"])
def test_defects_of_the_rows(
    tmp_path: Path, name: str, change: Callable[[dict[str, list[Any]]], Any], message: str
) -> None:
    root = broken(tmp_path, name)
    data = "data/chunk-000/file-001.parquet" if name == "v30_h264" else "data/chunk-000/episode_000001.parquet"
    edit_table(root / data, change)
    dataset = open_dataset(f"lerobot:{root}")
    with pytest.raises(TopRewardError, match=message) as caught:
        dataset[1].clip()
    assert "episode 1" in str(caught.value)
    assert isinstance(caught.value, VideoError if "should be at" in message else DatasetError)
    # the others go on
    assert [identity(dataset[i].clip().frames([2])[0]) for i in (0, 2, 3)] == [(0, 2, 0), (2, 2, 0), (3, 2, 0)]


def test_a_video_that_is_too_short(tmp_path: Path) -> None:
    root = broken(tmp_path, "v21_h264")
    videos = root / f"videos/chunk-000/{TOP}"
    shutil.copy(videos / "episode_000003.mp4", videos / "episode_000000.mp4")
    with pytest.raises(VideoError, match=r"episode 0, .*frame 5 should be at 0.5000 s of .*episode_000000.mp4"):
        open_dataset(f"lerobot:{root}")[0].clip()


def test_a_video_that_is_none(tmp_path: Path) -> None:
    root = broken(tmp_path, "v21_h264")
    (root / f"videos/chunk-000/{TOP}/episode_000000.mp4").write_bytes(b"not a video")
    with pytest.raises(VideoError, match=r"episode 0, .*episode_000000.mp4"):
        open_dataset(f"lerobot:{root}")[0].clip()


def test_a_start_between_two_frames_takes_the_nearer_one(tmp_path: Path) -> None:
    root = broken(tmp_path, "v30_h264")
    edit_table(episodes_table(root), lambda c: c[START].__setitem__(1, c[START][1] + 0.04))
    clip = open_dataset(f"lerobot:{root}", episodes=[1])[0].clip()
    assert [identity(frame) for frame in clip.frames(np.arange(7))] == [(1, frame, 0) for frame in range(7)]


@pytest.mark.parametrize("linked", ["videos", "data/chunk-000/episode_000000.parquet", "meta/info.json"])
def test_a_link_out_of_the_dataset_is_not_followed(tmp_path: Path, linked: str) -> None:
    root = broken(tmp_path, "v21_h264")
    elsewhere = tmp_path / "elsewhere"
    shutil.move(root / linked, elsewhere)
    (root / linked).symlink_to(elsewhere)
    with pytest.raises(TopRewardError, match="outside the dataset's folder"):
        open_dataset(f"lerobot:{root}")[0].clip()


def test_a_link_within_the_dataset_is(tmp_path: Path) -> None:
    root = broken(tmp_path, "v21_h264")
    (root / "videos").rename(root / "films")
    (root / "videos").symlink_to(root / "films")
    assert open_dataset(f"lerobot:{root}")[0].clip().num_frames == 12


def test_defects_of_images(tmp_path: Path) -> None:
    root = broken(tmp_path, "v21_images")
    data = root / "data/chunk-000/episode_000000.parquet"
    whole = data.read_bytes()

    def fails(change: Callable[[dict[str, list[Any]]], Any], message: str, frame: int) -> None:
        data.write_bytes(whole)
        edit_table(data, change)
        with pytest.raises(TopRewardError, match=message) as caught:
            open_dataset(f"lerobot:{root}")[0].clip().frames([frame])
        assert "episode 0" in str(caught.value)

    png = pq.read_table(data)[TOP][3].as_py()["bytes"]
    small = pq.read_table(data)[WRIST][3].as_py()["bytes"]
    fails(
        lambda c: c[TOP].__setitem__(3, {"bytes": b"no image", "path": None}),
        "frame 3: not an image that can be read",
        3,
    )
    fails(lambda c: c[TOP].__setitem__(3, {"bytes": png[:200], "path": None}), "frame 3: corrupt or truncated image", 3)
    fails(lambda c: c[TOP].__setitem__(3, {"bytes": small, "path": None}), "frame 3 is 48x64 px, frame 0 64x96", 3)
    fails(lambda c: c[TOP].__setitem__(3, None), "frame 3 has neither image bytes nor a path", 3)
    fails(lambda c: c[TOP].__setitem__(3, {"bytes": None, "path": "../x.png"}), "leaves the dataset", 3)
    fails(lambda c: c[TOP].__setitem__(3, {"bytes": None, "path": "x.png"}), "frame 3: .*x.png is missing", 3)
    fails(lambda c: c.update({TOP: pa.array(["a"] * 12)}), "want struct<bytes, path>", 0)
    fails(lambda c: c.pop(TOP), "the column is None", 0)

    # a path within the dataset is followed
    (root / "images").mkdir()
    (root / "images/x.png").write_bytes(png)
    data.write_bytes(whole)
    edit_table(data, lambda c: c[TOP].__setitem__(5, {"bytes": None, "path": "images/x.png"}))
    assert identity(open_dataset(f"lerobot:{root}")[0].clip().frames([5])[0]) == (0, 3, 0)


def test_images_are_found_in_any_row_group(tmp_path: Path) -> None:
    root = broken(tmp_path, "v30_images")
    data = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(data), data, row_group_size=5)
    for index, episode in enumerate(open_dataset(f"lerobot:{root}", camera="wrist")):
        clip = episode.clip()
        marks = [identity(frame) for frame in clip.frames(np.arange(clip.num_frames))]
        assert marks == [(index, frame, 1) for frame in range(LENGTHS[index])]


# -- cutting and joining clips -----------------------------------------------------------------------------------


def _counter(count: int, fps: float = 10.0, size: tuple[int, int] = (4, 6)) -> Clip:
    frames = np.zeros((count, *size, 3), dtype=np.uint8) + np.arange(count, dtype=np.uint8)[:, None, None, None]
    return Clip.from_array(frames, fps=fps, source="counter")


def test_frames_at_takes_the_nearest_within_half_a_frame() -> None:
    clip = clips.frames_at(_counter(20), np.array([0.51, 0.58, 0.7]), fps=10.0, source="cut")
    assert clip.frames([0, 1, 2])[:, 0, 0, 0].tolist() == [5, 6, 7]
    np.testing.assert_allclose(clip.pts_seconds, [0, 0.1, 0.2])
    with pytest.raises(VideoError, match=r"frame 1 should be at 1.9600 s .* 0..1.9000 s; the nearest is at 1.9000"):
        clips.frames_at(_counter(20), np.array([1.8, 1.96]), fps=10.0, source="cut")
    with pytest.raises(VideoError, match="one and the same picture"):
        clips.frames_at(_counter(20), np.array([0.98, 1.02]), fps=10.0, source="cut")
    assert clips.frames_at(_counter(1), np.array([0.0]), fps=10.0, source="cut").num_frames == 1
    with pytest.raises(VideoError, match="frame 0"):
        clips.frames_at(_counter(1), np.array([np.nan]), fps=10.0, source="cut")


def test_views_side_by_side_must_show_the_same_moments() -> None:
    with pytest.raises(VideoError, match="number of frames"):
        clips.side_by_side([_counter(3), _counter(4)], source="both")
    with pytest.raises(VideoError, match="different moments"):
        clips.side_by_side([_counter(9), _counter(9, fps=8.0)], source="both")
    same = clips.side_by_side([_counter(3), _counter(3, size=(4, 8))], source="both")
    assert same.frames([2]).shape == (1, 4, 14, 3)
