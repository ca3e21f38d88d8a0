"""Suites: a row per dataset beside what was reported; what cannot be opened is a row too."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from rich.console import Console

from topreward.cli import main
from topreward.cli.eval import EvalOptions
from topreward.cli.suite import SuiteOptions
from topreward.config import config_folder
from topreward.demo.episodes import demo_episodes
from topreward.demo.write import write_video
from topreward.errors import ConfigError
from topreward.evaluation.suite import DatasetOptions, Suite, SuiteDataset, SuiteRow, load_suite, run_suite


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that do not fold in the middle of what a test looks for."""
    monkeypatch.setattr("topreward.cli.suite.out", Console(width=200, soft_wrap=True))


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    return int(caught.value.code or 0)


def test_the_papers_suites_load() -> None:
    names = sorted(p.stem for p in (config_folder() / "datasets").glob("*.yaml"))
    assert names == ["manirewardbench", "oxe"]
    oxe, bench = load_suite("oxe"), load_suite("manirewardbench")
    assert oxe.reported["qwen3-vl-8b"] == {"topreward": 0.857, "gvl": 0.194}
    assert all(d.uri and d.uri.startswith("lerobot:") for d in oxe.datasets)
    assert {d.name: d.reported["topreward"] for d in bench.datasets}["franka"] == 0.942
    with pytest.raises(ConfigError, match=r"no config named 'oxee' \(did you mean 'oxe'\?\)"):
        load_suite("oxee")


def test_a_suite_is_evaluated_row_by_row(
    tiny_dataset_suite: Path, dense_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    options = ["--model", dense_folder, "--device", "cpu", "--estimators", "topreward", "--output", output]
    protocol = ["--protocol", "demo", "--no-controls"]
    assert run("suite", tiny_dataset_suite, *options, *protocol) == 1, "two datasets cannot be evaluated"
    shown = capsys.readouterr().out
    assert "0.900" in shown, "the reported figure stands beside ours"
    assert "topreward: mean over 1 of 3 datasets: " in shown
    assert "unknown_place: its uri is not known" in shown
    assert "broken" in shown
    assert (output / "world" / "results.json").is_file()
    assert run("suite", tiny_dataset_suite, *options, *protocol, "--only", "world") == 0
    assert run("suite", tiny_dataset_suite, *options, *protocol, "--only", "wrld") == 2


@pytest.fixture
def tiny_dataset_suite(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        """
suite: mine
datasets:
  - name: world
    uri: demo:?count=2&seed=3
    reported: { topreward: 0.9 }
  - name: unknown_place
  - name: broken
    uri: lerobot:./nowhere/at/all
"""
    )
    return path


def asked_of(path: Path) -> dict[str, EvalOptions]:
    suite = load_suite(path)
    return {d.name: SuiteOptions(str(path)).of(d, d.options.over(suite.options)) for d in suite.datasets}


def test_options_are_what_open_dataset_takes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        """
suite: mine
options: { skip_unlabelled: true, episodes: "0:20", revision: main }
datasets:
  - { name: a, uri: "lerobot:a/a", options: { camera: top, subset: 3, seed: 7 } }
  - { name: b, uri: "lerobot:b/b", options: { camera: [top, wrist], revision: v1, split: t, skip_unlabelled: false } }
  - { name: c, uri: "hdf5:c", options: { flip_vertical: true, instruction: do it, instruction_attribute: x, fps: 5 } }
  - { name: d, uri: "folder:d", options: { root: / } }
"""
    )
    asked = asked_of(path)
    assert (asked["a"].camera, asked["a"].subset, asked["a"].seed, asked["a"].episodes) == (("top",), 3, 7, "0:20")
    assert (asked["a"].dataset_revision, asked["a"].skip_unlabelled) == ("main", True)
    assert (asked["b"].camera, asked["b"].dataset_revision, asked["b"].split) == (("top", "wrist"), "v1", "t")
    assert not asked["b"].skip_unlabelled
    assert (asked["c"].flip_vertical, asked["c"].instruction, asked["c"].fps) == (True, ("do it",), 5)
    assert asked["c"].instruction_attribute == "x"
    assert asked["d"].root == "/"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["../escaped"], r"datasets\.0\.name"),
        ([""], r"datasets\.0\.name"),
        ([".."], r"datasets\.0\.name"),
        (["a/curves"], r"datasets\.0\.name"),
        (["a", "b", "a"], "named twice: a"),
        ([], "datasets"),
    ],
)
def test_names_are_folders_in_the_output(tmp_path: Path, names: list[str], message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"suite": "mine", "datasets": [{"name": name, "uri": "demo:"} for name in names]}))
    with pytest.raises(ConfigError, match=message):
        load_suite(path)


def test_what_nobody_foresaw_ends_no_suite() -> None:
    suite = Suite.model_validate({"suite": "s", "datasets": [{"name": n, "uri": "demo:"} for n in ("a", "b.c")]})

    def one(dataset: SuiteDataset, asked: DatasetOptions) -> SuiteRow:
        if dataset.name == "a":
            raise ZeroDivisionError("a bug")
        return SuiteRow(dataset)

    assert [row.error for row in run_suite(suite, one)] == ["unexpected ZeroDivisionError: a bug", None]
    with pytest.raises(ZeroDivisionError):
        list(run_suite(suite, one, fail_fast=True))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("optons: { camera: top }", r"unknown key 'datasets\.0\.optons'"),
        ("options: { camra: top }", r"unknown key 'datasets\.0\.options\.camra'"),
        ("options: { subset: some }", r"datasets\.0\.options\.subset is 'some'"),
        ("reportd: { gvl: 0.1 }", r"unknown key 'datasets\.0\.reportd'"),
    ],
)
def test_a_slip_of_the_pen_is_an_error(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"suite: mine\ndatasets:\n  - name: a\n    uri: 'demo:'\n    {line}\n")
    with pytest.raises(ConfigError, match=message):
        load_suite(path)


def test_a_dataset_is_opened_with_its_options_and_the_next_one_goes_on(
    dense_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        for name in ("front", "wrist"):
            file[f"data/demo_0/obs/{name}"] = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8)
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"""
suite: mine
datasets:
  - name: wrong
    uri: demo:?count=1
    options: {{ flip_vertical: true }}
  - name: right
    uri: hdf5:{tmp_path}/d.hdf5
    options: {{ camera: wrist, flip_vertical: true, instruction: do it, fps: 5 }}
"""
    )
    options = ["--model", dense_folder, "--device", "cpu", "--estimators", "topreward", "--protocol", "demo"]
    assert run("suite", path, *options, "--no-controls", "--output", tmp_path / "out") == 1
    shown = capsys.readouterr().out
    assert "wrong: demo:?count=1: flip_vertical= means nothing for demo: datasets" in shown
    assert "1/1" in shown
    assert "right:" not in shown


def test_failures_are_told_and_end_with_status_1(
    dense_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, episode in enumerate(demo_episodes(2, seed=1, size=64)):
        write_video(episode.clip(), tmp_path / f"v{index}.mp4")
    rows = ["v0.mp4,pick it up", "v1.mp4,pick it up", "gone.mp4,pick it up"]
    (tmp_path / "episodes.csv").write_text("\n".join(["path,instruction", *rows]))
    path = tmp_path / "mine.yaml"
    path.write_text(f"suite: mine\ndatasets:\n  - name: part\n    uri: folder:{tmp_path}\n  - name: unknown\n")
    options = ["--model", dense_folder, "--device", "cpu", "--protocol", "demo", "--gvl-protocol", "gvl-demo"]
    assert run("suite", path, *options, "--output", tmp_path / "out") == 1
    shown = capsys.readouterr().out
    assert "2/3" in shown, "VOCs of topreward, of all episodes"
    assert "0/3" in shown, "and of gvl"
    assert "100 %" in shown, "random weights write no percentages"
    assert "gvl: mean over 0 of 2 datasets: undef.; with failed answers as 0, over 1 of 2: 0.000" in shown
    assert "(?) part: gvl: 0 of 3 VOCs are defined, too few" in shown
    assert "part: 1 of 3 episodes failed; the first: gone.mp4: " in shown
    assert run("suite", path, *options, "--output", tmp_path / "out", "--only", "part") == 1, "no dataset is missing"
