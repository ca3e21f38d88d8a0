"""A run's folder keeps its word: what counts as done lies there, and nothing of our own stands in a run's way."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scorers import Bright, Load, episodes
from topreward.errors import ConfigError, CurveError, TopRewardError
from topreward.evaluation import EvalRun, Folder, Plan, evaluate, summarise
from topreward.evaluation.results import plain, write_results, write_single_file
from topreward.evaluation.rows import episode_rows
from topreward.files import json_text

PLAN = Plan(("topreward", "log_odds"))


def go(path: Path | None, listed: Any = None, **options: Any) -> EvalRun:
    chosen = listed or episodes(6)
    with Folder(path) as folder:
        run = evaluate(Load({"topreward": Bright()}), lambda: chosen, PLAN, folder, **options)
        if path is not None:
            write_results(folder, run, summarise(run.episodes, PLAN))
        return run


def curve_files(folder: Path) -> list[Path]:
    return sorted((folder / "curves").glob("*.json"))


# -- what is taken away while a run goes on ------------------------------------------------------------


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def _remove_curves(folder: Path) -> None:
    shutil.rmtree(folder / "curves")


def _remake_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    (folder / "curves").mkdir(parents=True)


def _remake_curves(folder: Path) -> None:
    shutil.rmtree(folder / "curves")
    (folder / "curves").mkdir()


def _link_elsewhere(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    (folder.with_name("other") / "curves").mkdir(parents=True)
    folder.symlink_to(folder.with_name("other"))


def _link_curves(folder: Path) -> None:
    (folder / "curves").rename(folder.with_name("moved"))
    folder.with_name("other").mkdir()
    (folder / "curves").symlink_to(folder.with_name("other"))


def _file_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("something else")


def _remove_one(folder: Path) -> None:
    curve_files(folder)[0].unlink()


def _empty_one(folder: Path) -> None:
    curve_files(folder)[0].write_text("")


def _replace_one(folder: Path) -> None:
    data = json.loads(curve_files(folder)[0].read_text())
    data["readings"][0]["curve"]["values"][0] -= 1.0
    curve_files(folder)[0].write_text(json.dumps(data))


AWAY: list[Callable[[Path], None]] = [
    _remove_folder,
    _remove_curves,
    _remake_folder,
    _remake_curves,
    _link_elsewhere,
    _link_curves,
    _file_in_its_place,
    _remove_one,
    _empty_one,
    _replace_one,
]


@pytest.mark.parametrize("when", [2, 6], ids=["half-way", "after the last"])
@pytest.mark.parametrize("take", AWAY)
def test_what_is_taken_away_while_a_run_goes_on_does_not_count_as_done(
    tmp_path: Path, take: Callable[[Path], None], when: int
) -> None:
    done = []
    runs: list[EvalRun] = []

    def after(rows: Any) -> None:
        done.append(rows.id)
        if len(done) == when:
            take(tmp_path / "r")

    with pytest.raises(ConfigError, match=r"was removed or replaced while the run went on") as told:
        go(tmp_path / "r", on_start=runs.append, on_done=after)
    assert "\n" not in str(told.value)
    [run] = runs
    kept = {file.name for file in curve_files(tmp_path / "r")} if (tmp_path / "r").is_dir() else set()
    with Folder(tmp_path / "r") as folder:
        assert {folder.file(e.id).name for e in run.episodes} <= kept
    assert len(run.done) < 6


@pytest.mark.parametrize("take", [_remove_one, _remove_curves, _remake_folder])
def test_a_run_that_lost_something_is_repeated(tmp_path: Path, take: Callable[[Path], None]) -> None:
    def after(rows: Any) -> None:
        if rows.id == "e3":
            take(tmp_path / "r")

    with pytest.raises(ConfigError):
        go(tmp_path / "r", on_done=after)
    again = go(tmp_path / "r")
    assert len(again.done) == 6
    assert len(curve_files(tmp_path / "r")) == 6


def test_what_is_taken_away_from_a_run_that_measures_nothing(tmp_path: Path) -> None:
    go(tmp_path / "r")
    with pytest.raises(ConfigError, match="of 1 of 6 episodes"):
        go(tmp_path / "r", on_done=lambda rows: _remove_one(tmp_path / "r") if rows.id == "e5" else None)


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("{}")])
@pytest.mark.parametrize("when", ["e1", "e5"])
def test_settings_that_are_taken_away_are_written_again(
    tmp_path: Path, change: Callable[[Path], Any], when: str
) -> None:
    settings = tmp_path / "r" / "settings.json"
    run = go(tmp_path / "r", on_done=lambda rows: change(settings) if rows.id == when else None)
    assert json.loads(settings.read_text()) == run.settings
    assert go(tmp_path / "r").resumed == 6


def test_an_untouched_copy_of_a_file_is_still_there(tmp_path: Path) -> None:
    """Backups and restores change a file's number and times, not what was measured."""

    def after(rows: Any) -> None:
        if rows.id == "e2":
            for file in curve_files(tmp_path / "r"):
                raw = file.read_bytes()
                file.unlink()
                file.write_bytes(raw)

    assert len(go(tmp_path / "r", on_done=after).done) == 6


def test_one_file_with_all_curves_holds_those_of_all_that_counts(tmp_path: Path) -> None:
    runs: list[EvalRun] = []
    with Folder() as folder:
        with pytest.raises(ConfigError):
            evaluate(
                Load({"topreward": Bright()}),
                lambda: episodes(4),
                PLAN,
                folder,
                on_start=runs.append,
                on_done=lambda rows: folder.file("e1").unlink() if rows.id == "e3" else None,
            )
        write_single_file(tmp_path / "all.json", folder, runs[0], summarise(runs[0].episodes, PLAN))
    data = json.loads((tmp_path / "all.json").read_text())
    assert (data["complete"], data["episodes_done"]) == (False, 3)
    assert set(data["curves"]) == {e["id"] for e in data["episodes"]} == {"e0", "e2", "e3"}


# -- what a run leaves that is killed -------------------------------------------------------------------


def _leave(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("{half")
    (folder / name).chmod(0o600)


@pytest.mark.parametrize(
    "left",
    [
        [],
        [".lock"],
        [".settings.json.a1b2c3d4.tmp"],
        [".settings.json.a1b2c3d4"],
        ["curves/.e0-123456789abc.json.a1b2c3d4.tmp", ".lock"],
        [".results.json.a1b2c3d4.tmp", ".episodes.parquet.4711"],
    ],
)
@pytest.mark.parametrize("curves", [False, True])
def test_what_a_killed_run_leaves_is_no_obstacle_and_is_cleaned(tmp_path: Path, left: list[str], curves: bool) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    if curves:
        (folder / "curves").mkdir()
    for name in left:
        _leave(folder, name)
    assert len(go(folder).done) == 6
    there = {path.name for path in folder.rglob("*") if path.name.startswith(".")}
    assert there == {".lock"}


def test_what_a_kill_leaves_in_a_folder_that_has_settings_is_cleaned(tmp_path: Path) -> None:
    go(tmp_path / "r")
    for name in ("curves/.e0.json.a1b2c3d4.tmp", ".results.json.a1b2c3d4.tmp", ".episodes.parquet.12"):
        _leave(tmp_path / "r", name)
    assert go(tmp_path / "r").resumed == 6
    assert {p.name for p in (tmp_path / "r").rglob(".*")} == {".lock"}


@pytest.mark.parametrize("name", [".git", "notes.txt", ".results.json.original", "curves/mine.json", "results.json"])
def test_files_of_others_are_refused_and_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / "r" / name).parent.mkdir(parents=True)
    (tmp_path / "r" / name).write_text("mine")
    if name == ".results.json.original":  # called like one of ours, but open to others: it stays
        go(tmp_path / "r")
    else:
        with pytest.raises(ConfigError, match=r"no settings\.json"):
            go(tmp_path / "r")
    assert (tmp_path / "r" / name).read_text() == "mine"


def test_settings_that_were_cut_off_before_anything_was_measured(tmp_path: Path) -> None:
    (tmp_path / "r" / "curves").mkdir(parents=True)
    (tmp_path / "r" / "settings.json").write_text('{"mo')
    assert len(go(tmp_path / "r").done) == 6


# -- numbers that JSON does not have --------------------------------------------------------------------


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["length", "fps", "weight"])
def test_an_extra_number_that_json_does_not_have_stops_no_run(tmp_path: Path, name: str, number: float) -> None:
    listed = [replace(e, extra={name: number}) for e in episodes(3)]
    settings = {"dataset": {"weight": number, number: [number]}}
    first = go(tmp_path / "r", listed, settings=settings)
    assert first.failed == 0
    again = go(tmp_path / "r", listed, settings=settings)
    assert (again.resumed, again.changed) == (3, 0)
    for file in (tmp_path / "r").rglob("*.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)


# -- curve files that are broken -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"3",
        b"\xff\xfe",
        b'{"format": 2}',
        b'{"format": 1}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format": 1, "id": "e0", "readings": 3}',
    ],
)
def test_a_broken_curve_file_is_named(tmp_path: Path, text: bytes) -> None:
    go(tmp_path / "r")
    [file] = [f for f in curve_files(tmp_path / "r") if f.name.startswith("e0-")]
    file.write_bytes(text)
    with pytest.raises(CurveError, match=r"not a measured episode .* delete it") as told:
        go(tmp_path / "r")
    assert "\n" not in str(told.value)
    assert str(file) in str(told.value)


def places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    if at:
        yield at
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*at, key))


def test_any_value_of_a_wrong_kind_is_a_named_error_or_does_no_harm(tmp_path: Path) -> None:
    go(tmp_path / "r", episodes(1))
    [file] = curve_files(tmp_path / "r")
    whole = json.loads(file.read_text())
    whole["readings"] = whole["readings"][:1]
    whole["readings"][0]["curve"]["provenance"] = {"tokens": {"trunk": 3, "branch": 4}, "protocol": {"name": "x"}}
    refused = []
    for place in places(whole):
        for wrong in (None, "1", {}, [[]], 10**400, -1, "gone"):
            data = copy.deepcopy(whole)
            inner = data
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = wrong
            if wrong == "gone":
                del inner[place[-1]]
            file.write_text(json.dumps(data))
            with Folder(tmp_path / "r") as folder:
                try:
                    measured = folder.load("e0")
                except TopRewardError as error:
                    refused.append(str(error))
                    continue
                assert measured is not None
                json_text(plain(summarise([episode_rows(measured, PLAN)], PLAN)))
    assert len(refused) > 100
    assert not any("\n" in line for line in refused)


def test_names_that_no_folder_can_have(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 300), tmp_path / "a\0b", "~nobody-of-this-name/r", tmp_path / "f" / "r"):
        (tmp_path / "f").write_text("a file")
        with pytest.raises(ConfigError) as told, Folder(path) as folder:
            folder.open({})
        assert "\n" not in str(told.value)


def test_two_runs_do_not_share_a_folder_and_let_go_of_it(tmp_path: Path) -> None:
    with Folder(tmp_path / "r") as one:
        one.open({})
        with Folder(tmp_path / "r") as two, pytest.raises(ConfigError, match="another run is writing"):
            two.open({})
    go(tmp_path / "s")
    handles = Path("/proc/self/fd")
    before = len(list(handles.iterdir())) if handles.exists() else 0
    for _ in range(5):
        go(tmp_path / "s")
    assert not before or len(list(handles.iterdir())) <= before
