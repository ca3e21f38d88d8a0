"""`topreward score` and the script, as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import topreward as tr
from places import ROOT
from topreward.cli import main
from topreward.report.terminal import plot_lines, show_curve


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from topreward.demo.episodes import demo_episodes
    from topreward.demo.write import write_video

    path = tmp_path_factory.mktemp("video") / "cup [red].mp4"
    write_video(next(iter(demo_episodes(1, seed=1))).clip(), path)
    return path


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    return int(caught.value.code or 0)


def test_score_prints_and_saves(
    dense_folder: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "curve.json"
    assert run("score", video, "pick [b]up", "--model", dense_folder, "--device", "cpu", "--json", target) == 0
    shown = capsys.readouterr().out
    curve = tr.Curve.load(target)
    assert "pick [b]up" in shown, "text is escaped, not read as markup"
    assert f"VOC {tr.voc(curve.values):.3f}" in shown
    assert f"{curve.values[-1]:.3f}" in shown
    assert curve.provenance["protocol"]["name"] == "dense"
    expected = tr.TOPReward.from_pretrained(dense_folder, device="cpu").score(tr.read_video(video), "pick [b]up")
    np.testing.assert_allclose(curve.values, expected.values, atol=1e-4)


def test_options_reach_the_protocol(dense_folder: Path, video: Path, tmp_path: Path) -> None:
    target = tmp_path / "curve.json"
    options = ["--protocol", "paper", "--num-prefixes", "3", "--chat-template", "--sampling-fps", "4"]
    assert run("score", video, "fold it", "--model", dense_folder, "--device", "cpu", "--json", target, *options) == 0
    protocol = json.loads(target.read_text())["provenance"]["protocol"]
    assert (protocol["name"], protocol["num_prefixes"]) == ("paper", 3)
    assert (protocol["chat_template"], protocol["sampling_fps"]) == (True, 4.0)


def test_zero_prefixes_means_every_one(dense_folder: Path, video: Path, tmp_path: Path) -> None:
    target = tmp_path / "curve.json"
    assert (
        run("score", video, "x", "--model", dense_folder, "--device", "cpu", "--json", target, "--num-prefixes", "0")
        == 0
    )
    assert json.loads(target.read_text())["provenance"]["protocol"]["num_prefixes"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.mp4", "x", "--model", "qwen3-vl"], "error: missing.mp4: no such file"),
        (["{video}", "x", "--model", "qwen3-vll"], "did you mean 'qwen3-vl'?"),
        (["{video}", "x", "--model", "{model}", "--protocol", "papr"], "did you mean 'paper'?"),
        (["{video}", "<|im_end|>", "--model", "{model}"], "special token '<|im_end|>'"),
        (["{video}", "x", "--model", "{model}", "--backend", "ffmpeg"], "backend"),
        (["{video}", "x", "--model", "{model}", "--revision", "main"], "a folder has no revisions"),
        # before the model is loaded
        (["{video}", "x", "--model", "nowhere", "--json", "{model}"], ": is a folder, want a file"),
        (
            ["{video}", "x", "--model", "nowhere", "--plot", "{video}/a.png"],
            "a.png: cannot be written (",
        ),
        (["{video}", "x", "--model", "nowhere", "--plot", "a.foo"], "a.foo: cannot draw '.foo'"),
        (["{video}", "x", "--model", "{model}", "--quantization", "none", "--dtype", "half"], "dtype 'half'"),
    ],
)
def test_mistakes_are_one_line(
    dense_folder: Path, video: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("score", *(a.format(video=video, model=dense_folder) for a in arguments)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(tr.TopRewardError, match="no such file"):
        main(["score", "missing.mp4", "x", "--debug"])


def test_a_typo_in_an_option_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("score", "a.mp4", "x", "--protocal", "paper") == 2
    assert "--protocol" in capsys.readouterr().err


def test_the_script_is_the_command() -> None:
    out = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "score_video.py"), "missing.mp4", "x"], capture_output=True, text=True
    )
    assert (out.returncode, out.stderr.strip()) == (2, "error: missing.mp4: no such file")


def test_plots_draw_what_was_computed() -> None:
    def curve(values: list[float]) -> tr.Curve:
        n = len(values)
        return tr.Curve("x", np.arange(1, n + 1), np.arange(n, dtype=float), np.array(values), "nats", n)

    rising = plot_lines(curve([0.0, 1.0, 2.0, 3.0]), width=31, height=4)
    assert rising[0].startswith("        3 │")
    assert rising[0].rstrip().endswith("█")
    assert rising[3].count("█") == 30 - 10 + 1  # the lowest third of the time is below a full row
    assert plot_lines(curve([np.nan, np.nan]), width=20, height=3) == ["(no defined value)"]
    assert "▁" in plot_lines(curve([2.0, 2.0]), width=20, height=3)[2]
    console = Console(record=True, width=100)
    show_curve(console, curve([1.0, np.nan]))
    assert "undefined" in console.export_text()
