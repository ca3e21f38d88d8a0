"""Suites: a row per dataset beside what was reported; what cannot be opened is a row too."""

from __future__ import annotations

from pathlib import Path

import pytest

from topreward.cli import main
from topreward.config import config_folder
from topreward.errors import ConfigError
from topreward.evaluation.suite import load_suite


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
