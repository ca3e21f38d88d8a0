"""Datasets of strangers: what they claim is held to the limits before it costs memory or time, each by name."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import places
from clips import rolled_clip
from lerobot_sets import in_a_row, numbers, write_set
from topreward.datasets import hdf5_layout, lerobot_frames, open_dataset, read_listing, tables
from topreward.errors import DatasetError, MemoryLimitError, PromptError, TopRewardError, VideoError
from topreward.estimators.gvl import GVL
from topreward.estimators.topreward import TOPReward

ROOM = 700 * 2**20
"""Bytes of address space that a case may add; what it claims is far beyond that."""


@pytest.fixture(autouse=True)
def _fresh_caches() -> None:
    lerobot_frames._cached_columns.cache_clear()
    hdf5_layout._kept.clear()


@pytest.fixture
def guarded() -> Any:
    """A process that cannot take the machine's memory, should a case be believed after all."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def lerobot(tmp_path: Path, **changes: Any) -> Path:
    return write_set(tmp_path / "set", (6, 5), {0: numbers(0, 6) + numbers(1, 5)}, in_a_row((6, 5)), **changes)


def opened_and_read(root: Path) -> None:
    for episode in open_dataset(f"lerobot:{root}"):
        clip = episode.clip()
        clip.frames(np.arange(clip.num_frames))


def refused(use: Callable[[], Any], *said: str) -> None:
    with pytest.raises(TopRewardError) as caught:
        use()
    message = str(caught.value)
    assert all(word in message for word in said), message
    assert "\n" not in message
    assert len(message) < 1500


# -- parquet ---------------------------------------------------------------------------------------------------


def write_bomb(path: Path, count: int, columns: dict[str, tuple[pa.DataType, Any]]) -> None:
    """A file whose columns each hold one value `count` times: some kilobytes a row group of a million rows."""
    schema = pa.schema([(name, kind) for name, (kind, _) in columns.items()])
    step = 1_000_000
    arrays = [pa.array([value] * 1000, kind) for kind, value in columns.values()]
    block = pa.table([pa.chunked_array([array] * (step // 1000)) for array in arrays], schema=schema)
    with pq.ParquetWriter(path, schema, use_dictionary=True, compression="zstd") as writer:
        for _ in range(count // step):
            writer.write_table(block, row_group_size=step)


def test_rows_that_take_a_few_bytes_each_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = lerobot(tmp_path, tasks=["wave", "wave"])
    data = root / "data/chunk-000/file-000.parquet"
    integers = dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), (pa.int64(), 7))
    write_bomb(data, 4_000_000, {"timestamp": (pa.float32(), 0.5), **integers})
    assert data.stat().st_size < 200_000
    monkeypatch.setenv("TOPREWARD_MAX_ARRAY_BYTES", str(4_000_000 * 5 * 8 - 1))
    read: list[str] = []
    plain = tables._read
    monkeypatch.setattr(tables, "_read", lambda *given: read.append(given[-1]) or plain(*given))
    refused(lambda: opened_and_read(root), "episode 0", "data/chunk-000/file-000.parquet", "TOPREWARD_MAX_ARRAY_BYTES")
    assert read  # the episodes' table
    assert not any("data/" in where or where == "file-000.parquet" for where in read)  # nothing decoded to find out


def test_the_footer_tells_how_many_values_there_are(tmp_path: Path) -> None:
    """What the limits are held to, before a row is decoded: the test above reaches one that was lowered."""
    path = tmp_path / "a.parquet"
    write_bomb(path, 1_000_000, {"index": (pa.int64(), 7)})
    file = pq.ParquetFile(path)
    assert tables.values_of(file, "index")[0] == 1_000_000


def test_one_long_text_said_a_million_times(tmp_path: Path, guarded: None) -> None:
    root = lerobot(tmp_path, tasks=["wave", "wave"])
    write_bomb(
        root / "meta/tasks.parquet", 1_000_000, {"task_index": (pa.int64(), 0), "task": (pa.string(), "w" * 5000)}
    )
    refused(lambda: open_dataset(f"lerobot:{root}"), "meta/tasks.parquet", "TOPREWARD_MAX_TEXT_BYTES")


def test_an_episode_table_of_too_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = lerobot(tmp_path, tasks=["wave", "wave"])
    monkeypatch.setenv("TOPREWARD_MAX_EPISODES", "1")
    refused(lambda: open_dataset(f"lerobot:{root}"), "meta/episodes", "TOPREWARD_MAX_EPISODES")


def test_only_the_columns_that_are_needed_are_read(tmp_path: Path, guarded: None) -> None:
    root = lerobot(tmp_path, tasks=["wave", "wave"])
    for path in (root / "meta/tasks.parquet", root / "meta/episodes/chunk-000/file-000.parquet"):
        table = pq.read_table(path)
        big = pa.array(["w" * 100_000_000]).take(pa.array([0] * table.num_rows))
        pq.write_table(table.append_column("another", pa.array(big)), path)
    opened_and_read(root)


def test_columns_of_another_kind(tmp_path: Path) -> None:
    root = lerobot(tmp_path, tasks=["wave", "wave"])
    path = root / "data/chunk-000/file-000.parquet"
    whole = pq.read_table(path)
    for name in whole.column_names:
        for wrong in (pa.array([[1]] * 11), pa.array([b"x"] * 11), pa.array([None] * 11), pa.array([{"a": 1}] * 11)):
            at = whole.column_names.index(name)
            pq.write_table(whole.set_column(at, name, wrong), path)
            lerobot_frames._cached_columns.cache_clear()
            refused(lambda: opened_and_read(root), f"the column {name} is")


def test_pictures_in_a_part_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "images"
    shutil.copytree(places.DATA / "lerobot/v30_images", root)
    episode = open_dataset(f"lerobot:{root}")[0]
    clip = episode.clip()
    monkeypatch.setenv("TOPREWARD_MAX_ARRAY_BYTES", "3000")
    refused(lambda: episode.load.__class__.__call__(episode.load), "TOPREWARD_MAX_ARRAY_BYTES")
    monkeypatch.delenv("TOPREWARD_MAX_ARRAY_BYTES")
    assert clip.frames([1]).shape[0] == 1


def test_picture_times_that_nobody_could_sample(tmp_path: Path) -> None:
    root = tmp_path / "images"
    shutil.copytree(places.DATA / "lerobot/v30_images", root)
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    times = table["timestamp"].to_numpy().copy()
    times[11] = 1e12  # the last frame of the first episode
    at = table.column_names.index("timestamp")
    pq.write_table(table.set_column(at, "timestamp", pa.array(times, pa.float32())), path)
    refused(lambda: open_dataset(f"lerobot:{root}")[0].clip(), "episode 0", "TOPREWARD_MIN_FPS")


# -- info.json and JSON lines ------------------------------------------------------------------------------------

NONSENSE: list[Any] = [None, True, [], ["v3.0"], {}, {"a": 1}, "", "x", -1, 0.5, 10**400, float("nan"), float("inf")]
"""Every kind of value JSON has; none of them is right anywhere below."""


@pytest.mark.parametrize("key", ["codebase_version", "fps", "features", "data_path", "video_path"])
@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: repr(value)[:20])
def test_info_json_with_a_wrong_kind_of_value(tmp_path: Path, key: str, value: Any) -> None:
    if (key, value) in (("fps", 0.5), ("data_path", "x"), ("video_path", "x")):
        value = "../x" if key != "fps" else "0.5"
    if key == "data_path" and value is None:
        return  # LeRobot's own place, as where it is left out
    root = lerobot(tmp_path, tasks=["wave", "wave"])
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {key: value}))
    refused(lambda: open_dataset(f"lerobot:{root}"), str(root))


@pytest.mark.parametrize("key", ["chunks_size", "total_episodes", "total_frames", "splits"])
@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: repr(value)[:20])
def test_info_json_with_a_wrong_kind_of_count(tmp_path: Path, key: str, value: Any) -> None:
    root = lerobot(tmp_path, tasks=["wave", "wave"], **{key: value})
    if key == "splits" or (value is None and key != "chunks_size") or (key == "chunks_size" and value == 10**400):
        opened_and_read(root)  # nothing hangs on it
    else:
        refused(lambda: open_dataset(f"lerobot:{root}"), str(root), "info.json")


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("key", ["length", "episode_index", "tasks"])
def test_lines_with_a_wrong_kind_of_value(tmp_path: Path, key: str, value: Any) -> None:
    root = tmp_path / "v2"
    shutil.copytree(places.DATA / "lerobot/v21_h264", root)
    path = root / "meta/episodes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2][key] = value
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if (key, value) == ("tasks", ["v3.0"]):  # which may be a task, but not that of its rows
        refused(open_dataset(f"lerobot:{root}")[2].clip, "episode 2", "v3.0")
        return
    refused(lambda: open_dataset(f"lerobot:{root}"), "episode 2" if key == "tasks" else "meta/episodes.jsonl")


def test_files_larger_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "v2"
    shutil.copytree(places.DATA / "lerobot/v21_h264", root)
    listing = tmp_path / "episodes.csv"
    listing.write_text("path,instruction\n" + "a.mp4,pick up the cup\n" * 100)
    monkeypatch.setenv("TOPREWARD_MAX_TEXT_BYTES", "200")
    refused(lambda: open_dataset(f"lerobot:{root}"), "meta/info.json", "TOPREWARD_MAX_TEXT_BYTES")
    refused(lambda: read_listing(listing), str(listing), "TOPREWARD_MAX_TEXT_BYTES")


# -- names, pipes, permissions -----------------------------------------------------------------------------------


def test_schemes_alone_read_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "episodes.csv").write_text("path,instruction\na.mp4,pick\n")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_group("data/demo_0/obs")
    monkeypatch.chdir(tmp_path)
    for scheme in ("hdf5", "folder", "lerobot"):
        refused(
            lambda scheme=scheme: open_dataset(f"{scheme}:"),
            f"{scheme}: names no",
            f"want {scheme}:<folder>" if scheme != "hdf5" else "want hdf5:<file>",
        )


ODD = ["x" * 5000, "a\0b", "\ud800", "~nobody-of-this-name/x", "x" * 300, "a/" * 3000]


@pytest.mark.parametrize("scheme", ["hdf5", "folder", "lerobot"])
@pytest.mark.parametrize("name", ODD, ids=lambda name: repr(name)[:12])
def test_names_that_no_file_has(scheme: str, name: str) -> None:
    with pytest.raises(DatasetError) as caught:
        open_dataset(f"{scheme}:{name}")
    str(caught.value).encode()


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for name in ("pipe", "episodes.csv", "a.hdf5", "a.mp4"):
        os.mkfifo(folder / name)
    for uri in ("hdf5:{}/pipe", "hdf5:{}", "folder:{}/pipe", "folder:{}", "folder:{}/episodes.csv", "lerobot:{}/pipe"):
        refused(lambda uri=uri: open_dataset(uri.format(folder)), str(folder))
    refused(lambda: read_listing(folder / "episodes.csv"), "not a regular file")
    listing = tmp_path / "l.csv"
    listing.write_text("path,instruction\nf/a.mp4,pick\n")
    refused(read_listing(listing)[0].clip, "not a regular file")
    root = lerobot(tmp_path, tasks=["wave", "wave"])
    for name in ("meta/info.json", "meta/tasks.parquet", "data/chunk-000/file-000.parquet"):
        (root / name).rename(root / "kept")
        os.mkfifo(root / name)
        refused(lambda: opened_and_read(root), name, "not a regular file")
        (root / name).unlink()
        (root / "kept").rename(root / name)


def test_what_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Who runs the tests may be allowed everything, so the system's answer is put in its mouth.
    root = lerobot(tmp_path, tasks=["wave", "wave"])
    listing = tmp_path / "l.csv"
    listing.write_text("path,instruction\na.mp4,pick\n")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_group("data/demo_0/obs")

    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", denied)
        for uri in (f"hdf5:{tmp_path}/a.hdf5", f"folder:{listing}", f"lerobot:{root}"):
            refused(lambda uri=uri: open_dataset(uri), "Permission denied")
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        for uri in (f"hdf5:{tmp_path}/a.hdf5", f"hdf5:{tmp_path}", f"lerobot:{root}"):
            refused(lambda uri=uri: open_dataset(uri), "no permission to read")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", denied)
        refused(lambda: open_dataset(f"folder:{listing}"), "Permission denied")
        refused(lambda: open_dataset(f"lerobot:{root}"), "Permission denied")


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *[("lerobot", {name: 5}) for name in ("instruction", "camera", "episodes", "skip_unlabelled")],
    *[("lerobot", {"seed": value}) for value in ("x", 1.5, True, None)],
    *[("folder", {name: 5}) for name in ("instruction", "camera", "root")],
    *[("hdf5", {name: 5}) for name in ("instruction", "camera", "instruction_attribute", "flip_vertical")],
    *[("hdf5", {"fps": value}) for value in ("20", [20], True)],
    ("lerobot", {"camera": ["top", 5]}),
]


@pytest.mark.parametrize(("scheme", "option"), OPTIONS, ids=str)
def test_options_of_a_wrong_kind(tmp_path: Path, scheme: str, option: dict[str, Any]) -> None:
    (tmp_path / "l.csv").write_text("path,instruction\na.mp4,pick\n")
    where = {
        "lerobot": lerobot(tmp_path, tasks=["wave", "wave"]),
        "folder": tmp_path / "l.csv",
        "hdf5": hdf5(tmp_path / "a.hdf5", None),
    }
    refused(lambda: open_dataset(f"{scheme}:{where[scheme]}", **option), *option)


@pytest.mark.parametrize("uri", [5, b"folder:x", Path("x"), None, "", "demo:?videos=", "demo:?videos=a%00b"])
def test_uris_that_are_none(uri: Any) -> None:
    refused(lambda: open_dataset(uri))


def test_a_folder_for_demo_videos_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    refused(lambda: open_dataset(f"demo:?videos={tmp_path}/f"), "want a folder")
    refused(lambda: open_dataset(f"demo:?videos={'x' * 400}"), "cannot be looked at")


def test_ten_digits_of_demo_episodes() -> None:
    refused(lambda: open_dataset("demo:?count=999999999"), "count", "TOPREWARD_MAX_EPISODES")
    refused(lambda: open_dataset("demo:?count=2&size=999999998"), "TOPREWARD_MAX_PICTURE_PIXELS")


def test_ranges_said_again_and_again(tmp_path: Path, guarded: None) -> None:
    listing = tmp_path / "l.csv"
    listing.write_text("path,instruction\n" + "".join(f"{i}.mp4,pick\n" for i in range(2000)))
    refused(
        lambda: open_dataset(f"folder:{listing}", episodes=",".join(["0:2000"] * 100_000)), "episode 0 more than once"
    )


# -- listings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 10**400, [float("nan")], {"a": float("nan")}]
)
def test_numbers_that_are_none_are_kept_as_they_are(tmp_path: Path, value: Any) -> None:
    listing = tmp_path / "l.jsonl"
    listing.write_text(json.dumps({"path": "a.mp4", "instruction": "pick", "reward": value}) + "\n")
    (episode,) = read_listing(listing)
    assert repr(episode.extra["reward"]) == repr(value)


@pytest.mark.parametrize("column", ["path", "instruction", "success", "fps", "id", "split", "camera"])
@pytest.mark.parametrize(
    "value", [True, [], {}, ["a"], -1.5, 10**400, float("nan"), "\ud800", "a\0" * 9000, {"a": [1] * 10**5}]
)
def test_columns_of_a_wrong_kind(tmp_path: Path, column: str, value: Any) -> None:
    if (column, value) == ("success", True) or (column == "id" and value == 10**400):
        return
    if column in ("split", "camera") and value == "a\0" * 9000:
        return
    listing = tmp_path / "l.jsonl"
    listing.write_text(json.dumps({"path": "a.mp4", "instruction": "pick"} | {column: value}) + "\n")
    refused(lambda: read_listing(listing), f"{listing}, line 1")


def test_more_columns_than_a_table_has(tmp_path: Path) -> None:
    names = ",".join(f"c{i}" for i in range(20_000))
    (tmp_path / "l.csv").write_text(f"path,instruction,{names}\n")
    refused(lambda: read_listing(tmp_path / "l.csv"), "20002 columns")


# -- HDF5 --------------------------------------------------------------------------------------------------------


def hdf5(path: Path, chunks: tuple[int, ...] | None, shape: tuple[int, ...] = (60, 16, 12, 3), **options: Any) -> Path:
    """One demonstration of noise; an array that is only claimed where the shape is large."""
    with h5py.File(path, "w") as file:
        group = file.create_group("data/demo_0")
        file["data"].attrs["problem_info"] = json.dumps({"language_instruction": "pick"})
        given: dict[str, Any] = (
            {"data": frames_of(shape)} if np.prod(shape) < 10**7 else {"shape": shape, "dtype": "u1"}
        )
        group.create_dataset("obs/view", chunks=chunks, **given, **options)
    return path


def frames_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("band", [hdf5_layout._BAND, 4000, 700])
@pytest.mark.parametrize(
    "chunks", [(60, 16, 12, 3), (7, 16, 12, 3), (60, 5, 5, 1), (16, 16, 12, 3), (1, 16, 12, 3), (1, 4, 4, 3), None]
)
def test_each_chunk_is_unfolded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: tuple[int, ...] | None, band: int
) -> None:
    monkeypatch.setattr(hdf5_layout, "_BAND", band)
    path = hdf5(tmp_path / "a.hdf5", chunks, compression=None if chunks is None else "gzip")
    whole, clip = frames_of((60, 16, 12, 3)), open_dataset(f"hdf5:{path}")[0].clip()
    for wanted in ([0], [59], [3, 4, 58], list(range(60)), [41, 3, 3], list(range(0, 60, 7))):
        np.testing.assert_array_equal(clip.frames(wanted), whole[wanted])


def test_a_chunk_of_many_frames_is_read_once_for_many_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hdf5(tmp_path / "a.hdf5", (30, 16, 12, 3), compression="gzip")
    reads: list[Any] = []
    plain = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, at, **kw: reads.append(at) or plain(self, at, **kw))
    clip = open_dataset(f"hdf5:{path}")[0].clip()
    for index in range(60):
        clip.frames([index])
    assert len(reads) == 2


def test_a_chunk_that_unfolds_to_more_than_the_limit(tmp_path: Path, guarded: None) -> None:
    path = hdf5(tmp_path / "a.hdf5", (3000, 512, 512, 3), (3000, 512, 512, 3), compression="gzip")
    refused(open_dataset(f"hdf5:{path}")[0].clip, "data/demo_0/obs/view", "a chunk", "TOPREWARD_MAX_ARRAY_BYTES")


def test_rates_that_no_robot_has(tmp_path: Path) -> None:
    for rate in (1e-9, 1e9, 10**400, float("nan"), [20], True, "20"):
        path = hdf5(tmp_path / "a.hdf5", None)
        with h5py.File(path, "a") as file:
            file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": rate}})
        refused(lambda path=path: open_dataset(f"hdf5:{path}"), str(path), "control_freq")
    for rate in (1e-9, 1e9, float("nan")):
        refused(lambda path=path, rate=rate: open_dataset(f"hdf5:{path}", fps=rate), "fps")


ATTRIBUTES: list[Any] = [
    np.zeros(100_000, "u1"),
    "[" * 100_000,
    "x" * 60_000,
    json.dumps({"language_instruction": "x" * 50_000}),
    json.dumps({"language_instruction": ["x"] * 50_000}),
    json.dumps({"language_instruction": {"a": 1}}),
    h5py.Empty("S1"),
    np.array([1, 2, 3]),
    b"\xff\xfe",
    3.5,
]


@pytest.mark.parametrize("value", ATTRIBUTES, ids=lambda value: repr(value)[:15])
def test_attributes_that_are_no_instruction(tmp_path: Path, value: Any) -> None:
    path = hdf5(tmp_path / "a.hdf5", None)
    with h5py.File(path, "a") as file:
        del file["data"].attrs["problem_info"]
        try:
            file["data"].attrs["problem_info"] = value
        except OSError:  # beyond 64 kB attributes are kept elsewhere
            pytest.skip("this HDF5 does not write it")
    refused(lambda: open_dataset(f"hdf5:{path}"), "data/demo_0")


def test_damage_anywhere_in_the_file_is_a_named_error(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.hdf5", (7, 16, 12, 3), compression="gzip")
    raw = path.read_bytes()
    random = np.random.default_rng(1)
    for case in range(150):
        data = bytearray(raw[: random.integers(1, len(raw))] if case % 3 == 0 else raw)
        for at in random.integers(0, min(len(data), 6000), 3):
            data[at] = random.integers(0, 256)
        broken = tmp_path / f"b{case}.hdf5"
        broken.write_bytes(data)
        with contextlib.suppress(DatasetError, VideoError, MemoryLimitError):  # some bytes are of no consequence
            clip = open_dataset(f"hdf5:{broken}")[0].clip()
            clip.frames([0, clip.num_frames - 1])
        broken.unlink()


def test_damage_anywhere_in_a_parquet_file_is_a_named_error(tmp_path: Path) -> None:
    root = lerobot(tmp_path, tasks=["wave", "wave"])
    random = np.random.default_rng(1)
    for name in ("meta/tasks.parquet", "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"):
        raw = (root / name).read_bytes()
        for case in range(40):
            data = bytearray(raw[: random.integers(0, len(raw))] if case % 4 == 0 else raw)
            for at in random.integers(0, max(len(data), 1), 3) if data else ():
                data[at] = random.integers(0, 256)
            (root / name).write_bytes(data)
            lerobot_frames._cached_columns.cache_clear()
            with contextlib.suppress(DatasetError, VideoError):
                open_dataset(f"lerobot:{root}")[1].clip()
        (root / name).write_bytes(raw)


# -- instructions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["x" * 60_000, "\ud800", 5, None, "", " "])
def test_instructions_that_no_estimator_takes(tiny: TOPReward, text: Any) -> None:
    clip = rolled_clip(count=4)
    for estimator in (tiny, GVL.sharing(tiny)):
        with pytest.raises((PromptError, TopRewardError)) as caught:
            estimator.score(clip, [text] if text is None and estimator is tiny else text)
        str(caught.value).encode()
        assert len(str(caught.value)) < 500
