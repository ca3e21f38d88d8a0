"""The demo world: what is true of every rollout, its pictures, and the files that are made of them."""

from __future__ import annotations

import hashlib
import itertools
import json
import pickle
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topreward.demo import scene as places
from topreward.demo.draw import Painter, render, tip_pixel
from topreward.demo.episodes import demo_clip, demo_episodes, demo_rollouts, rollout_of
from topreward.demo.world import FPS, KINDS, LONGEST, MOST_A_FAILURE_REACHES, SHORTEST, TASKS, Rollout, make_rollout
from topreward.demo.write import CAMERA_KEY, write_lerobot_dataset, write_video
from topreward.errors import ConfigError, DatasetError, VideoError
from topreward.types import Clip, Episode

PAIRS = list(itertools.product(TASKS, KINDS))
SEEDS = st.integers(0, 2**53 - 1)


def decoded(path: Path) -> tuple[np.ndarray, list[float], float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
        return pixels, [frame.time for frame in frames], float(stream.average_rate)


# -- the world in time


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
@pytest.mark.parametrize(("task", "kind"), PAIRS)
def test_every_rollout_keeps_what_its_kind_promises(task: str, kind: str, seed: int) -> None:
    rollout = make_rollout(seed, task=task, kind=kind)
    told = rollout.progress[task]
    assert (rollout.task, rollout.kind, rollout.fps) == (task, kind, FPS)
    assert SHORTEST * FPS - 1 <= rollout.num_frames <= LONGEST * FPS + 1
    assert rollout.gripper.shape == (rollout.num_frames, 4)
    assert np.isfinite(rollout.gripper).all()
    assert set(rollout.progress) == set(TASKS)
    for name, progress in rollout.progress.items():
        assert progress.shape == (rollout.num_frames,)
        assert progress.dtype == np.float64
        assert ((progress >= 0) & (progress <= 1)).all()
        assert name == rollout.acted or (progress == progress[0]).all()
    assert rollout.success == (kind == "success") == (told[-1] == 1.0)
    if kind == "success":
        assert told[0] == 0
        assert (np.diff(told) >= 0).all()
    else:
        assert told[-1] <= MOST_A_FAILURE_REACHES
    if kind == "stops_halfway":
        assert told[0] == 0
        assert (np.diff(told) >= 0).all()
        assert 0.25 <= told[-1] <= 0.65
    if kind == "hesitates":
        assert (np.diff(told) > 0).any()
        assert (np.diff(told) < 0).any()
        assert told[-1] >= 0.05
    if kind == "undoes_itself":
        assert told.max() > 0.55
        assert told[-1] <= 0.2
    if kind == "never_starts":
        assert rollout.acted is None
        assert (told == 0).all()
        assert np.ptp(rollout.gripper[:, :3], axis=0).max() > 0.01
    if kind == "other_task":
        assert rollout.acted not in (None, task)
        other = rollout.progress[str(rollout.acted)]
        assert (told == told[0]).all()
        assert (other[0], other[-1]) == (0, 1)


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_the_same_seed_gives_the_same_rollout(seed: int) -> None:
    one, two = make_rollout(seed), make_rollout(seed)
    assert (one.task, one.kind, one.acted) == (two.task, two.kind, two.acted)
    assert np.array_equal(one.gripper, two.gripper)
    assert all(np.array_equal(one.progress[name], two.progress[name]) for name in TASKS)


def test_one_seed_plays_every_task_and_kind_on_the_same_table() -> None:
    tables = [make_rollout(7, task=task, kind=kind) for task, kind in PAIRS]
    assert len({r.scene.texture for r in tables}) == 1
    assert len({str(r.scene.places) for r in tables}) == 1
    assert len({r.num_frames for r in tables}) == 1


def test_length_tells_nothing_about_the_kind() -> None:
    mean = {kind: np.mean([make_rollout(seed, kind=kind).num_frames for seed in range(60)]) for kind in KINDS}
    assert len(set(mean.values())) == 1  # the same seeds: the same lengths, whatever happens in them


def test_things_stand_apart_and_in_sight() -> None:
    for seed in range(60):
        rollout = make_rollout(seed)
        view = Painter(rollout, 100, 1).view
        for row in (places.BACK_ROW, places.FRONT_ROW):
            spans = sorted((rollout.scene.places[n][0] - w / 2, rollout.scene.places[n][0] + w / 2) for n, w in row)
            assert all(right <= left for (_, right), (left, _) in itertools.pairwise(spans))
        for thing in places.THINGS:
            for stage in (0.0, 1.0):
                u, v = view(places.contact(rollout.scene, thing, stage))
                assert -2 < u < 102, (seed, thing, stage)
                assert -2 < v < 102, (seed, thing, stage)


def test_the_spill_shrinks_by_the_progress() -> None:
    scene = make_rollout(3).scene
    outline = scene.stain * (scene.sides["table"], 1.0)
    dense = np.concatenate([np.linspace(a, b, 400) for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True)])
    total, covered = 0.0, dict.fromkeys((0.2, 0.5, 0.8), 0.0)
    for low, high in itertools.pairwise(np.linspace(dense[:, 0].min(), dense[:, 0].max(), 300)):
        inside = dense[(dense[:, 0] >= low) & (dense[:, 0] < high), 1]
        area = np.ptp(inside) * (high - low) if inside.size else 0.0
        total += area
        for stage in covered:
            covered[stage] += area * (high <= places.wipe_front(scene, stage))
    for stage, area in covered.items():
        assert area / total == pytest.approx(stage, abs=0.02)


@pytest.mark.parametrize(
    "wrong", [{"task": "close_drawers"}, {"kind": "succes"}, {"seed": -1}], ids=["task", "kind", "seed"]
)
def test_unknown_names_are_refused_with_the_nearest(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"did you mean|want 0 or more"):
        make_rollout(**{"seed": 0, **wrong})  # type: ignore[arg-type]


# -- pictures


def test_the_same_seed_gives_the_same_bytes() -> None:
    digests = [hashlib.sha256(render(make_rollout(11), [0, 20, 37], size=64).tobytes()).digest() for _ in range(2)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("pair", PAIRS[::5], ids="-".join)
def test_lazy_frames_equal_eager_ones(pair: tuple[str, str]) -> None:
    rollout = make_rollout(5, task=pair[0], kind=pair[1])
    eager = render(rollout, size=64)
    clip = demo_clip(rollout, 64)
    assert eager.shape == (rollout.num_frames, 64, 64, 3)
    assert clip.num_frames == rollout.num_frames
    wanted = [rollout.num_frames - 1, 3, 3, 17]
    assert np.array_equal(clip.frames(wanted), eager[wanted])
    again: Clip = pickle.loads(pickle.dumps(clip))
    assert np.array_equal(again.frames(wanted), eager[wanted])
    assert len(pickle.dumps(clip)) < 60_000  # what was drawn does not travel


def test_only_the_frames_asked_for_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    picture = Painter.picture
    monkeypatch.setattr(Painter, "picture", lambda self, index: drawn.append(index) or picture(self, index))
    demo_episodes(1, size=32)[0].clip().frames([4, 2, 4])
    assert drawn == [2, 4]


@pytest.mark.parametrize("task", TASKS)
def test_progress_shows_at_low_resolution(task: str) -> None:
    """Away from the arm, the first and last frame of a success differ where the thing is, at 96 px."""
    changes = []
    for seed in range(4):
        rollout = make_rollout(seed, task=task, kind="success")
        still = make_rollout(seed, task=task, kind="never_starts")
        first, last = (Painter(r, 96) for r in (rollout, still))
        away = np.array([9.0, 9.0, 1.0, 0.0])  # the arm out of the picture
        rollout.gripper[:], still.gripper[:] = away, away
        done, begun = first.frames([rollout.num_frames - 1]), last.frames([0])
        for other in TASKS:
            if other != task:
                assert rollout.progress[other][0] == still.progress[other][0]
        changes.append((np.abs(done.astype(int) - begun).max(axis=-1) > 24).sum())
    assert min(changes) >= 60, changes  # px of 9216; a visual token covers 1024


def test_the_size_is_free_and_odd_requests_are_refused() -> None:
    rollout = make_rollout(2)
    assert render(rollout, [0], size=(48, 80), supersample=1).shape == (1, 48, 80, 3)
    assert render(rollout, []).shape == (0, 192, 192, 3)
    for size, supersample in ((8, 2), (64, 0), (4000, 2)):
        with pytest.raises(ConfigError):
            render(rollout, [0], size=size, supersample=supersample)
    x, y = tip_pixel(make_rollout(2, task="lift_block", kind="success"), -1, 96)
    assert 0 < x < 96
    assert 0 < y < 96


# -- episodes


def test_episodes_are_balanced_seeded_and_lazy() -> None:
    episodes = demo_episodes(36, seed=4, size=32)
    assert sorted((e.extra["task"], e.extra["kind"]) for e in episodes) == sorted(PAIRS)
    assert len({e.id for e in episodes}) == 36
    assert [e.id[:4] for e in demo_episodes(0)] == []
    fewer = demo_episodes(5, seed=4, size=32)
    assert [e.extra for e in fewer] == [e.extra for e in episodes[:5]]
    assert {e.extra["seed"] for e in demo_episodes(36, seed=5)}.isdisjoint(e.extra["seed"] for e in episodes)
    for episode in episodes[:6]:
        clip = episode.clip()
        assert episode.progress is not None
        assert episode.progress.shape == (clip.num_frames,)
        assert episode.success == (episode.extra["kind"] == "success")
        assert episode.instruction == TASKS[episode.extra["task"]].instruction
        assert np.array_equal(rollout_of(episode).progress[episode.extra["task"]], episode.progress)


def test_kinds_tasks_and_wordings_can_be_chosen() -> None:
    episodes = demo_episodes(24, kinds=["success", "never_starts"], tasks=["pour_jug"], paraphrase=True)
    assert sum(bool(e.success) for e in episodes) == 12
    assert len({e.instruction for e in episodes}) > 1
    jug = TASKS["pour_jug"]
    assert all(e.instruction in (jug.instruction, *jug.paraphrases) for e in episodes)
    for wrong in ({"kinds": ["sucess"]}, {"tasks": []}, {"count": -1}):
        with pytest.raises(ConfigError):
            demo_rollouts(**{"count": 1, **wrong})  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="lacks seed, task, kind"):
        rollout_of(Episode("x", "lift the block", demo_episodes(1)[0].load))


# -- files


@pytest.fixture(scope="module")
def rollout() -> Rollout:
    return min(
        (make_rollout(seed, task="close_drawer", kind="success") for seed in range(30)), key=lambda r: r.num_frames
    )


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_mp4_round_trip(rollout: Rollout, codec: str, tmp_path: Path) -> None:
    clip = demo_clip(rollout, 96)
    path = write_video(clip, tmp_path / "deep" / "clip.mp4", codec=codec)
    pixels, times, fps = decoded(path)
    assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]
    assert fps == clip.fps
    assert np.allclose(times, clip.pts_seconds, atol=1e-4)
    error = np.abs(pixels.astype(int) - clip.frames(np.arange(clip.num_frames)))
    assert pixels.shape[0] == clip.num_frames
    assert error.mean() < 3.5


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_a_film_is_the_same_file_from_write_to_write(codec: str, tmp_path: Path) -> None:
    # Seeds whose films x264 wrote now in one length, now in another; in two processes, of one and of many threads.
    code = """
import hashlib, sys
from pathlib import Path
from topreward.demo.episodes import demo_episodes
from topreward.demo.write import write_video
for episode in demo_episodes(3, seed=5):
    path = write_video(episode.clip(), Path(sys.argv[1]), codec=sys.argv[2])
    print(hashlib.sha256(path.read_bytes()).hexdigest())
"""
    written = []
    for number in range(2):
        arguments = [sys.executable, "-c", code, str(tmp_path / f"{number}.mp4"), codec]
        written += [subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()]
    written.append(
        [
            hashlib.sha256(write_video(e.clip(), tmp_path / "here.mp4", codec=codec).read_bytes()).hexdigest()
            for e in demo_episodes(3, seed=5)
        ]
    )
    assert written[0] == written[1] == written[2]
    assert len(set(written[0])) == 3


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads threads from /proc")
def test_an_encoder_changes_no_threads_priority(tmp_path: Path) -> None:
    # in a process of its own, as SVT-AV1 looks for its rights once a process
    code = f"""
import os
from pathlib import Path
from topreward.demo.episodes import demo_clip, demo_rollouts
from topreward.demo.write import write_video
def policies():
    return {{os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}}
before = policies()
clip = demo_clip(next(iter(demo_rollouts(1, seed=0))), 64)
write_video(clip, Path({str(tmp_path)!r}) / "clip.mp4", codec="av1")
assert policies() == before, policies()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_videos_that_cannot_be_written_leave_no_file(rollout: Rollout, tmp_path: Path) -> None:
    clip = demo_clip(rollout, 32)
    late = Clip(clip.pts_seconds**1.5, clip.fps, 32, 32, clip.decode)
    broken = Clip(clip.pts_seconds, clip.fps, 32, 32, lambda _: (_ for _ in ()).throw(VideoError("torn")))
    for bad, codec in ((clip, "h265"), (demo_clip(rollout, (33, 32)), "h264"), (late, "h264"), (broken, "h264")):
        with pytest.raises((ConfigError, VideoError)):
            write_video(bad, tmp_path / "clip.mp4", codec=codec)
    assert list(tmp_path.iterdir()) == []


def test_lerobot_dataset(tmp_path: Path) -> None:
    episodes = demo_episodes(5, seed=9, size=64, kinds=["success", "undoes_itself"])
    root = write_lerobot_dataset(episodes, tmp_path / "set", episodes_per_file=3)
    info = json.loads((root / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"]) == ("v3.0", 15, 5)
    assert info["features"][CAMERA_KEY]["dtype"] == "video"
    assert info["features"][CAMERA_KEY]["shape"] == [64, 64, 3]

    tasks = pq.read_table(root / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    text = dict(zip(tasks["task_index"].to_pylist(), tasks["task"].to_pylist(), strict=True))

    rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["data/file_index"] for row in rows] == [0, 0, 0, 1, 1]
    total = 0
    for row, episode in zip(rows, episodes, strict=True):
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        clip, truth = episode.clip(), rollout_of(episode)
        assert row["tasks"] == [episode.instruction]
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (total, total + clip.num_frames)
        data = pq.read_table(root / info["data_path"].format(**place))
        data = data.slice(total - data["index"][0].as_py(), clip.num_frames)
        assert data["index"].to_pylist() == list(range(total, total + clip.num_frames))
        assert data["frame_index"].to_pylist() == list(range(clip.num_frames))
        assert set(data["episode_index"].to_pylist()) == {row["episode_index"]}
        assert {text[i] for i in data["task_index"].to_pylist()} == {episode.instruction}
        assert np.allclose(data["timestamp"].to_numpy(), clip.pts_seconds, atol=1e-5)
        assert np.allclose(np.stack(data["observation.state"].to_numpy()), truth.gripper, atol=1e-6)
        assert np.allclose(data["next.reward"].to_numpy(), episode.progress, atol=1e-6)
        assert data["next.success"].to_pylist()[-1] == episode.success
        pixels, times, _ = decoded(root / info["video_path"].format(video_key=CAMERA_KEY, **place))
        begin, end = (row[f"videos/{CAMERA_KEY}/{edge}_timestamp"] for edge in ("from", "to"))
        inside = [i for i, t in enumerate(times) if begin - 0.5 / FPS <= t < end - 0.5 / FPS]
        assert len(inside) == row["length"] == clip.num_frames
        drawn = clip.frames(np.arange(clip.num_frames))
        assert np.abs(pixels[inside].astype(int) - drawn).mean() < 4
        total += clip.num_frames
    assert info["total_frames"] == total

    types = {f.name: str(f.type) for f in data.schema}
    assert types["index"] == types["episode_index"] == types["frame_index"] == types["task_index"] == "int64"
    assert types["timestamp"] == "float"
    assert set(types) | {CAMERA_KEY} == set(info["features"])
    stats = json.loads((root / "meta/stats.json").read_text())
    assert set(stats) == set(info["features"])
    assert np.array(stats[CAMERA_KEY]["mean"]).shape == (3, 1, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]


def test_a_dataset_is_whole_or_absent(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    small, large = demo_episodes(1, size=32), demo_episodes(1, seed=1, size=64)
    with pytest.raises(DatasetError, match="already there"):
        write_lerobot_dataset(small, tmp_path / "full")
    for episodes in ([], small + large):
        with pytest.raises(DatasetError):
            write_lerobot_dataset(episodes, tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["full"]
