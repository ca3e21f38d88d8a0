"""Folders that earlier versions wrote go on: tests/data/eval_format1 lies as `topreward eval` left it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from places import DATA
from topreward.cli import main
from topreward.evaluation import Folder, Plan
from topreward.evaluation.rows import episode_rows
from topreward.evaluation.versions import measured_with, version_notes
from topreward.jobs.identity import model_files

WRITTEN = DATA / "eval_format1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy, whose settings know the checkpoint's files as they lie here: a checkout gives them other times."""
    copy = Path(shutil.copytree(WRITTEN, tmp_path / "r"))
    settings = json.loads((copy / "settings.json").read_text())
    settings["model_files"] = model_files("demo")
    (copy / "settings.json").write_text(json.dumps(settings))
    return copy


def test_a_folder_of_format_1_goes_on_without_measuring_anything(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(*_: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("topreward.jobs.scorers.ModelSetup.__call__", nothing)
    arguments = ["--model", "demo", "--dataset", "demo:?count=3", "--estimators", "topreward", "--output", str(folder)]
    with pytest.raises(SystemExit) as caught:
        main(["eval", *arguments])
    assert caught.value.code == 0, capsys.readouterr().err
    for file in (WRITTEN / "curves").iterdir():
        assert (folder / "curves" / file.name).read_bytes() == file.read_bytes()
    before, after = (json.loads((path / "results.json").read_text()) for path in (WRITTEN, folder))
    assert after["estimators"] == before["estimators"]
    assert after["episodes"] == before["episodes"]
    assert (after["cost"]["episodes_resumed"], after["complete"]) == (3, True)
    [made] = after["provenance"]["measured_with"]
    assert made["episodes"] == 3
    assert made["software"]["transformers"] == before["provenance"]["software"]["transformers"]


def test_other_versions_than_todays_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topreward.evaluation.versions.software", lambda: {"transformers": "99.0", "torch": "2.0"})
    plan = Plan(("topreward",))
    with Folder(folder) as opened:
        opened.open(json.loads((folder / "settings.json").read_text()))
        ids = [e["id"] for e in json.loads((folder / "results.json").read_text())["episodes"]]
        kept = [opened.load(name) for name in ids]
    rows = [episode_rows(measured, plan) for measured in kept if measured is not None]
    assert len(rows) == 3
    [(versions, count)] = measured_with(rows)
    assert versions is not None
    [note] = version_notes(rows)
    assert note.startswith(f"{count} of 3 episodes were measured earlier, with ")
    assert f"transformers {versions['transformers']} (here 99.0)" in note
    assert f"torch {versions['torch']} (here 2.0)" in note
