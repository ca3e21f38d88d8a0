"""A run's folder as others read it: whole, stopped half-way, damaged, of another version, or none at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scorers import Bright, Load, episodes
from topreward.demo.episodes import demo_episodes
from topreward.errors import ConfigError, CurveError
from topreward.evaluation import Folder, Plan, evaluate
from topreward.jobs.plan import FROZEN, REAL
from topreward.jobs.stored import open_stored, stored_curve

PLAN = Plan(("topreward", "debiased"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    with Folder(path) as folder:
        evaluate(Load({"topreward": Bright()}), lambda: episodes(5), PLAN, folder)
    return path


def files(run: Path) -> list[Path]:
    return sorted((run / "curves").iterdir())


def test_a_whole_run_is_read_as_it_was_measured(run: Path) -> None:
    stored = open_stored(run)
    assert (stored.plan, stored.planned, stored.notes, stored.complete) == (PLAN, 5, (), True)
    found = list(stored.measured())
    assert [m.id for m in found] == [f"e{i}" for i in range(5)]
    with Folder(run) as folder:
        for one in found:
            again = folder.load(one.id)
            assert again is not None
            assert again.to_dict() == one.to_dict()


def test_results_say_the_dataset_order(run: Path) -> None:
    names = [f.name for f in files(run)][::-1]
    (run / "results.json").write_text(json.dumps({"episodes": [{"curves": f"curves/{name}"} for name in names[:2]]}))
    assert [f.name for f in open_stored(run).files] == [*names[:2], *sorted(names[2:])]


def test_what_is_missing_is_said(run: Path) -> None:
    files(run)[0].unlink()
    stored = open_stored(run)
    assert not stored.complete
    assert stored.notes == ("1 of 5 episodes are not measured yet: the run was stopped",)
    (run / "settings.json").unlink()
    stored = open_stored(run)
    assert "settings.json cannot be read (No such file or directory)" in stored.notes
    assert stored.plan.estimators == ("topreward", "log_odds", "debiased")  # what its curves can tell
    assert stored.plan.controls
    with pytest.raises(ConfigError, match="name no dataset"):
        stored.episodes()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 9}', '{"format": 1}', "[" * 100_000, '{"format": 1, "readings": 3}']
)
def test_a_file_that_is_none_is_an_episode_with_that_error(run: Path, text: str) -> None:
    files(run)[1].write_text(text)
    found = list(open_stored(run).measured())
    assert [m.error is not None for m in found] == [False, True, False, False, False]
    assert "not a measured episode" in str(found[1].error)
    assert "\n" not in str(found[1].error)


def test_a_plan_of_another_version_is_named(run: Path) -> None:
    settings = json.loads((run / "settings.json").read_text())
    settings["plan"]["colour"] = "red"
    (run / "settings.json").write_text(json.dumps(settings))
    stored = open_stored(run)
    assert stored.plan == PLAN
    assert "its plan has colour" in stored.notes[0]


def test_the_episodes_open_as_the_run_did(tmp_path: Path) -> None:
    asked = {"dataset": "demo:?count=3&seed=5", "instruction": [], "camera": [], "videos": [], "gone": 1}
    with Folder(tmp_path / "run") as folder:
        listed = demo_episodes(3, seed=5)
        evaluate(Load({"topreward": Bright()}), lambda: listed, PLAN, folder, settings={"dataset": asked})
    opened = open_stored(tmp_path / "run").episodes()
    assert list(opened) == [e.id for e in listed]


def test_what_is_no_run_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, said in [("nowhere", "there is no such folder"), ("file", "is no folder"), (".", "holds no curves/")]:
        with pytest.raises(ConfigError, match=said) as error:
            open_stored(tmp_path / path)
        assert "\n" not in str(error.value)


def test_one_curve_is_a_run_of_one_episode(run: Path, tmp_path: Path) -> None:
    first = next(open_stored(run).measured())
    reading = first.reading("topreward", REAL)
    assert reading is not None
    assert reading.curve is not None
    reading.curve.save(tmp_path / "one.json")
    one = stored_curve(tmp_path / "one.json")
    assert (one.id, one.instruction, len(one.readings)) == ("e0", "task 0", 1)
    assert one.reading("topreward", FROZEN) is None
    with pytest.raises(CurveError):
        stored_curve(tmp_path / "none.json")
