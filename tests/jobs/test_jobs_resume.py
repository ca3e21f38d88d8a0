"""A run that goes on notices what was replaced since; what each curve cost, and what it is to be doubted for."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from places import DATA
from scorers import Answers, Bright, Load, bright_clip, episodes
from topreward.datasets import open_dataset
from topreward.demo.episodes import demo_episodes
from topreward.demo.write import write_video
from topreward.evaluation import EvalRun, Folder, Plan, evaluate, summarise
from topreward.evaluation.results import results_dict
from topreward.jobs.identity import stamp, state
from topreward.jobs.inputs import Inputs
from topreward.report.tables import note_lines
from topreward.types import Clip, Curve, Episode

PLAN = Plan(("topreward",), controls=False)


def go(path: Path | None, listed: Any, scorers: dict[str, Any] | None = None, plan: Plan = PLAN) -> EvalRun:
    with Folder(path) as folder:
        return evaluate(Load(scorers or {"topreward": Bright()}), lambda: listed, plan, folder)


@pytest.fixture
def videos(tmp_path: Path) -> tuple[Path, ...]:
    out = []
    for index, episode in enumerate(demo_episodes(2, seed=1, size=96)):
        write_video(episode.clip(), tmp_path / f"v{index}.mp4")
        out.append(tmp_path / f"v{index}.mp4")
    return tuple(out)


def test_a_replaced_video_is_measured_again_and_the_others_are_not(tmp_path: Path, videos: tuple[Path, ...]) -> None:
    inputs = Inputs(videos, ("do it",))
    first = go(tmp_path / "r", inputs())
    assert go(tmp_path / "r", inputs()).resumed == 2
    write_video(demo_episodes(3, seed=7, size=96)[2].clip(), videos[1])
    again = go(tmp_path / "r", inputs())
    assert (again.resumed, again.changed) == (1, 1)
    assert again.episodes[0].rows[0].voc == first.episodes[0].rows[0].voc
    assert again.episodes[1].rows[0].last != first.episodes[1].rows[0].last
    assert go(tmp_path / "r", inputs()).resumed == 2


def test_a_video_that_is_touched_counts_as_replaced(tmp_path: Path, videos: tuple[Path, ...]) -> None:
    inputs = Inputs(videos, ("do it",))
    go(tmp_path / "r", inputs())
    os.utime(videos[0], ns=(1, 1))
    assert go(tmp_path / "r", inputs()).changed == 1


def test_a_dataset_that_now_has_other_frames_is_measured_again(tmp_path: Path) -> None:
    listed = [replace(e, extra={"length": 12}) for e in episodes(3)]
    go(tmp_path / "r", listed)
    listed[1] = replace(listed[1], load=partial(bright_clip, range(9)), progress=None, extra={"length": 9})
    run = go(tmp_path / "r", listed)
    assert (run.resumed, run.changed) == (2, 1)
    assert run.episodes[1].num_frames == 9


def test_frames_at_another_rate_or_place_are_measured_again(tmp_path: Path) -> None:
    listing = tmp_path / "list.csv"
    for number in range(6):
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "imgs").mkdir()
    for number in range(6):
        (tmp_path / f"{number}.png").rename(tmp_path / "imgs" / f"{number}.png")
    for rate in (5, 10):
        listing.write_text(f"path,instruction,fps\nimgs,do it,{rate}\n")
        run = go(tmp_path / "r", open_dataset(f"folder:{listing}"))
        assert (run.resumed, run.changed) == (0, int(rate == 10))
    fixture = next(DATA.glob("**/v30_h264/meta/info.json")).parents[1]
    episode = open_dataset(f"lerobot:{fixture}")[1]
    load: Any = episode.load
    [(key, part)] = load.record.videos.items()
    moved = replace(load.record, videos={key: replace(part, from_seconds=part.from_seconds + 0.1)})
    assert stamp(replace(episode, load=replace(load, record=moved))) != stamp(episode) == stamp(replace(episode))


def test_a_corrected_label_costs_no_curve(tmp_path: Path) -> None:
    listed = episodes(4)
    go(tmp_path / "r", listed)
    listed[0] = replace(listed[0], success=True, split="new")
    run = go(tmp_path / "r", listed)
    assert (run.resumed, run.changed) == (4, 0)
    assert (run.episodes[0].success, run.episodes[0].split) == (True, "new")
    with Folder(tmp_path / "r") as folder:
        kept = folder.load("e0")
    assert kept is not None
    assert (kept.success, kept.split) == (True, "new")


def test_other_examples_are_other_settings(tmp_path: Path, videos: tuple[Path, ...]) -> None:
    inputs = Inputs(videos, ("do it",), examples="1")
    before = inputs.describe_examples()
    assert before == inputs.describe_examples()
    assert [part[0] for part in before] == ["v1.mp4"]
    write_video(demo_episodes(3, seed=7, size=96)[2].clip(), videos[1])
    assert inputs.describe_examples() != before


def test_every_kind_of_dataset_says_what_it_is_read_from(tmp_path: Path, videos: tuple[Path, ...]) -> None:
    listing = tmp_path / "list.csv"
    listing.write_text("path,instruction\nv0.mp4,do it\n")
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["data/demo_0/obs/front"] = np.zeros((3, 4, 6, 3), np.uint8)
    written = tmp_path / "drawn"
    fixtures = sorted(p.parents[1] for p in DATA.rglob("meta/info.json"))
    assert fixtures
    uris: dict[str, list[str]] = {
        f"folder:{listing}": [str(videos[0])],
        f"hdf5:{tmp_path / 'd.hdf5'}": [str(tmp_path / "d.hdf5")],
        f"demo:?count=1&videos={written}": [str(next(iter(open_dataset("demo:?count=1"))).id)],
    }
    for uri, names in uris.items():
        options = {"instruction": "do it"} if uri.startswith("hdf5") else {}
        files = stamp(open_dataset(uri, **options)[0])["files"]
        assert len(files) == 1
        assert names[0] in next(iter(files))
    for fixture in fixtures:
        told = stamp(open_dataset(f"lerobot:{fixture}", subset=1)[0])
        assert told["length"] > 0
        assert told["files"]
        assert all(value is not None and value[0] > 0 for value in told["files"].values())
    assert stamp(demo_episodes(1)[0])["files"] == {}


def test_the_state_of_a_folder_of_frames(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"abc")
    (tmp_path / "1.png").write_bytes(b"de")
    first = state(tmp_path)
    assert first is not None
    assert (first[0], first[2]) == (5, 2)
    (tmp_path / "1.png").unlink()
    assert state(tmp_path) != first
    assert state(tmp_path / "nowhere") is None


# -- what curves say of themselves ---------------------------------------------------------------------


class Shares(Bright):
    """As TOPReward: one trunk of 100 tokens, and 10 of a branch for each instruction."""

    def score(self, clip: Clip, instructions: Any, *, episode_id: str) -> list[Curve]:
        curves = super().score(clip, instructions, episode_id=episode_id)
        made = {"tokens": {"trunk": 100, "branch": 10 * len(curves)}}
        return [c.with_values(c.values, "nats", provenance=made, notes=("read with care",)) for c in curves]


def test_tokens_are_of_the_same_part_as_seconds(tmp_path: Path) -> None:
    plan = Plan(("topreward", "debiased"))
    run = go(None, episodes(4), {"topreward": Shares()}, plan)
    tokens = {(r.estimator, r.control): r.tokens for r in run.episodes[0].rows}
    assert tokens["topreward", "real"] == 110
    assert tokens["topreward", "other_instruction"] == 10
    assert tokens["topreward", "frozen"] == 110
    assert tokens["topreward", "reversed"] == 110
    assert tokens["debiased", "real"] == 0
    cost = summarise(run.episodes, plan)[0].cost
    assert cost is not None
    assert cost.tokens == 4 * 110


def test_notes_of_curves_reach_the_episode_once_and_failed_answers_do_not(tmp_path: Path) -> None:
    class Refuses(Answers):
        def score(self, clip: Clip, instructions: Any, *, episode_id: str) -> list[Curve]:
            curves = super().score(clip, instructions, episode_id=episode_id)
            notes = ("no percentages, refusal: no", "a slow kernel")
            return [c.with_values(c.values, "percent", notes=notes) for c in curves]

    scorers = {"topreward": Shares(), "gvl": Refuses(fails=("e0", "e1"))}
    for _ in range(2):  # also where the curves are read back
        run = go(tmp_path / "r", episodes(2), scorers, Plan(("topreward", "gvl")))
        assert [e.notes for e in run.episodes] == [("read with care", "a slow kernel")] * 2
    with Folder(tmp_path / "r") as folder:
        found = results_dict(folder, run, [])["episodes"]
    assert found[0]["notes"] == ["read with care", "a slow kernel"]
    assert note_lines(run) == ["note: read with care", "note: a slow kernel"]


def test_an_episode_that_was_never_opened_says_nothing() -> None:
    assert stamp(Episode("a", "do it", lambda: bright_clip(range(3)))) == {"files": {}}
