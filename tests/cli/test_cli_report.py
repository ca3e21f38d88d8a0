"""`topreward report` and `render`, and --report, as a user meets them."""

from __future__ import annotations

from pathlib import Path

import pytest

from topreward.cli import main
from topreward.demo.episodes import demo_episodes
from topreward.demo.write import write_video
from topreward.types import Curve
from topreward.video import read_video

DEMO = ["--model", "demo", "--device", "cpu", "--estimators", "topreward"]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two demo episodes, evaluated into a folder."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert run("eval", *DEMO, "--dataset", "demo:?count=2&seed=3", "--output", folder) == 0
    return folder


def words(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_a_page_of_a_folder_and_of_two(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", measured) == 0
    shown = words(capsys)
    assert "page.html" in shown
    assert "2 episodes" in shown
    assert "one file" in shown
    assert 'id="film-1"' in (measured / "page.html").read_text()
    assert run("report", measured, measured, "--no-films") == 0
    assert (measured / "page-beside-run.html").is_file()
    assert run("report", measured, "--max-inline-mb", "0") == 0
    assert "send all of it" in words(capsys)
    assert (measured / "page" / "index.html").is_file()
    # A page in the run's folder is no obstacle to the run.
    assert run("eval", *DEMO, "--dataset", "demo:?count=2&seed=3", "--output", measured) == 0


def test_a_film_and_a_sheet(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = demo_episodes(2, seed=3)[1]
    assert run("render", measured, tmp_path / "film.mp4", "--episode", one.id, "--width", "200") == 0
    film = read_video(tmp_path / "film.mp4")
    clip = one.clip()
    assert (film.width, film.height) == (200, 200 + 150)
    assert film.pts_seconds == pytest.approx(clip.pts_seconds, abs=1e-3)
    # The curve draws itself: more of its blue at the end than at the start.
    blue = [
        int(((f[200:] - [29, 95, 209]) ** 2).sum(-1).__lt__(3000).sum())
        for f in film.frames([5, film.num_frames - 1]).astype(int)
    ]
    assert blue[1] > blue[0] + 50
    for ending in ("png", "svg"):
        assert run("render", measured, tmp_path / f"sheet.{ending}", "--episode", one.id) == 0
        assert (tmp_path / f"sheet.{ending}").stat().st_size > 5000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film.mp4", "sheet.png", "sheet.svg"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "nowhere"], "there is no such folder"),
        (["report", "."], "holds no curves/"),
        (["report", "{run}", "--output", "page.pdf"], "named *.html"),
        (["report", "{run}", "--max-inline-mb", "nan"], "--max-inline-mb is nan"),
        (["report", "{run}", "{run}", "{run}"], "3 results are given"),
        (["report", "{run}", "--video", "x.mp4"], "--video is for one curve"),
        (["render", "{run}", "film.mp4"], "choose one with --episode"),
        (["render", "{run}", "film.mp4", "--episode", "demo-3-000"], "no episode 'demo-3-000'"),
        (["render", "{run}", "film.xyz"], "cannot draw '.xyz'"),
        (["render", "{run}", "film.mp4", "--episode", "{id}", "--estimator", "gvl"], "there is no curve of 'gvl'"),
        (["render", "{run}", "film.mp4", "--episode", "{id}", "--width", "1"], "--width is 1"),
        (["score", "{run}/none.mp4", "x", "--model", "demo", "--report", "page.txt"], "named *.html"),
        (["eval", *DEMO, "--dataset", "demo:?count=1", "--report", "page"], "named *.html"),
        (["label", *DEMO, "--dataset", "demo:?count=1", "--report", "page"], "named *.html"),
        (["eval", *DEMO, "--dataset", "demo:", "--report", "p.html", "--max-inline-mb", "-1"], "inline-mb is -1"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(
    arguments: list[str],
    said: str,
    measured: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    name = demo_episodes(2, seed=3)[0].id
    assert run(*(a.replace("{run}", str(measured)).replace("{id}", name) for a in arguments)) == 2
    shown = words(capsys)
    assert "error: " in shown
    assert said in shown
    assert "unexpected" not in shown
    assert not list(tmp_path.iterdir())


def test_pages_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = demo_episodes(1, seed=3)[0]
    video = write_video(one.clip(), tmp_path / "a.mp4")
    page, curve = tmp_path / "a.html", tmp_path / "a.json"
    assert run("score", video, one.instruction, "--model", "demo", "--report", page, "--json", curve) == 0
    assert f"page: {page}" in capsys.readouterr().out
    assert run("report", curve, "--output", tmp_path / "b.html") == 0  # finds the video where the curve says it was
    assert (tmp_path / "b.html").read_bytes() == page.read_bytes()
    assert Curve.load(curve).instruction == one.instruction
    for command in ("eval", "label"):
        page = tmp_path / f"{command}.html"
        asked = [command, *DEMO, "--dataset", "demo:?count=1&seed=3", "--report", page]
        if command == "label":
            asked += ["--output", tmp_path / "labels", "--audit", "0"]
        run(*asked)
        assert f"page: {page}" in capsys.readouterr().out
        assert 'id="film-0"' in page.read_text()


def test_a_page_named_like_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The work is done and kept, whatever the page's size; also when the run goes on."""
    asked = ["eval", *DEMO, "--dataset", "demo:?count=1&seed=3", "--no-controls"]
    asked += ["--output", str(tmp_path / "o"), "--report", str(tmp_path / "o.html"), "--max-inline-mb", "0"]
    for _ in range(2):
        assert run(*asked) == 0
        assert f"page: {tmp_path / 'o-page' / 'index.html'}" in capsys.readouterr().out
    assert (tmp_path / "o" / "results.json").is_file()
