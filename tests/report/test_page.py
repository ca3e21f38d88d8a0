"""The page in a real browser: it opens from disk, plays, seeks, sorts, and treats all text from outside as text."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from browser import Seen, browsers, opened
from places import ROOT
from scorers import Answers, Bright, Load, make_curve, missing, prefix_lengths
from topreward.errors import ConfigError
from topreward.evaluation import Folder, Plan, evaluate
from topreward.jobs.controls import frozen
from topreward.jobs.episode import Measured, Reading
from topreward.jobs.plan import REAL
from topreward.report.page import of_curve, open_source, write_page
from topreward.report.page.source import Source
from topreward.types import Clip, Episode

PLAN = Plan(("topreward", "log_odds", "gvl"))
FRAMES, FPS = 60, 10.0
RUN = "JSON.parse(document.getElementById('run').textContent)"


def bright(levels: Sequence[int]) -> Clip:
    """Frames of 48x64 px whose brightness is their progress."""
    one = np.asarray(levels, dtype=np.uint8)
    return Clip.from_array(np.broadcast_to(one[:, None, None, None], (one.size, 48, 64, 3)).copy(), FPS)


def levels(index: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(index)
    top = 90 + 20 * (index % 8)
    return np.clip(np.linspace(10, top, FRAMES) + rng.integers(-8, 9, FRAMES), 0, 250).astype(int)


def listed(count: int = 6) -> list[Episode]:
    truth = np.linspace(0, 1, FRAMES)
    return [
        Episode(f"e{i}", f"task {i % 3}", partial(bright, levels(i)), success=bool(i % 2), progress=truth)
        for i in range(count)
    ]


def make_run(path: Path, episodes: list[Episode], plan: Plan = PLAN, scorers: Any = None) -> Source:
    """A run on disk, and where its videos are."""
    scorers = scorers or {"topreward": Bright(), "gvl": Answers(("e2",))}
    with Folder(path) as folder:
        evaluate(Load(scorers), lambda: episodes, plan, folder)
    source = open_source(path)
    source.open_clips = lambda: {episode.id: episode.clip for episode in episodes}
    return source


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsers() as running:
        yield running


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    written = write_page([make_run(folder / "run", listed())], folder / "page.html")
    assert written.inline
    assert (written.episodes, written.films) == (6, 6)
    return written.path


def time_of(seen: Seen) -> float:
    return float(seen.page.evaluate("topreward.state.time"))


def film_time(seen: Seen) -> float:
    return float(seen.page.evaluate("document.getElementById('film').currentTime"))


def settled(seen: Seen, time: float) -> None:
    """The film shows the frame of a time."""
    seen.until(
        "t => { const f = document.getElementById('film'); return !f.seeking && Math.abs(f.currentTime - t) < 0.02; }",
        time,
    )


def test_it_opens_from_disk_without_a_word_and_without_a_network(browser: Any, page: Path) -> None:
    with opened(browser, page) as seen:
        seen.until("document.getElementById('film').readyState >= 2")
        assert seen.page.inner_text("#instructed") == "task 0"
        assert seen.page.evaluate("document.getElementById('film').videoWidth") == 64
        assert seen.page.locator("#chart path.curve").count() >= 2  # the curve and its frozen control
        assert "success" not in seen.page.inner_text("#about .badge")
    seen.quiet()


def test_it_plays(browser: Any, page: Path) -> None:
    with opened(browser, page) as seen:
        seen.page.click("#play")
        seen.until("topreward.state.time > 0.5")
        assert film_time(seen) == pytest.approx(time_of(seen), abs=0.3)
        x = float(seen.page.get_attribute(".playhead", "x1"))
        seen.page.click("#play")
        assert seen.page.evaluate("document.getElementById('film').paused")
        assert float(seen.page.get_attribute(".playhead", "x1")) >= x > 46
        assert seen.page.get_attribute("#play", "aria-label") == "Play"
    seen.quiet()


def test_a_click_on_the_curve_seeks_and_a_drag_follows(browser: Any, page: Path) -> None:
    with opened(browser, page) as seen:
        box = seen.page.locator("#chart").bounding_box()
        seen.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 90)
        middle = time_of(seen)
        assert 2.5 < middle < 3.5
        settled(seen, middle)
        seen.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 90)
        seen.page.mouse.down()
        seen.page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 90)
        seen.page.mouse.up()
        assert time_of(seen) > middle + 1
        settled(seen, time_of(seen))
        assert seen.page.is_visible("#tip")
        assert "topreward" in seen.page.inner_text("#tip")
    seen.quiet()


def test_the_film_shows_the_frame_of_the_time(browser: Any, page: Path) -> None:
    """The brightness on the screen is that of the raw frame whose time it is."""
    with opened(browser, page) as seen:
        for index in (0, 17, 41, 59):
            seen.page.evaluate(f"location.hash = 'episode=e0&t={index / FPS + 0.01}'")
            settled(seen, index / FPS + 0.01)
            level = seen.page.evaluate(
                """() => { const f = document.getElementById('film'), c = document.createElement('canvas');
                c.width = f.videoWidth; c.height = f.videoHeight; const g = c.getContext('2d');
                g.drawImage(f, 0, 0); return g.getImageData(30, 20, 1, 1).data[1]; }"""
            )
            assert level == pytest.approx(int(levels(0)[index]), abs=6), index


def test_views_estimators_and_controls_are_switched(browser: Any, page: Path) -> None:
    with opened(browser, page) as seen:
        names = seen.page.locator("#views label").all_inner_texts()
        assert names[:4] == ["log p", "log-odds", "probability", "progress"]
        assert names[4] == "dense reward"
        assert names[-1] == "advantage, 4 s"
        seen.page.locator("#views label", has_text="progress").click()
        assert seen.page.locator("path.truth").count() == 1  # true progress has the same scale
        assert seen.page.locator("path.curve.real").count() == 3
        seen.page.locator("#curves label", has_text="gvl").locator("input").uncheck()
        assert seen.page.locator("path.curve.real").count() == 2
        assert seen.page.locator("path.curve.reversed").count() == 0
        seen.page.locator("#controls label", has_text="reversed").locator("input").check()
        assert seen.page.locator("path.curve.reversed").count() == 2
        seen.page.locator("#controls label", has_text="frozen").locator("input").uncheck()
        assert seen.page.locator("path.curve.frozen").count() == 0
    seen.quiet()


def shown_ids(seen: Seen) -> list[str]:
    return list(seen.page.locator("#rows .name").all_inner_texts())


def test_the_list_sorts_and_filters(browser: Any, page: Path) -> None:
    with opened(browser, page) as seen:
        assert shown_ids(seen) == [f"e{i}" for i in range(6)]
        seen.page.select_option("#sort", "worst")
        told = seen.page.evaluate("topreward.state.order")
        vocs = seen.page.evaluate(f"{RUN}.episodes.map(e => e.voc.topreward)")
        assert [vocs[i] for i in told] == sorted(vocs)
        seen.page.select_option("#outcome", "yes")
        assert set(shown_ids(seen)) == {"e1", "e3", "e5"}
        seen.page.select_option("#outcome", "answer")
        assert shown_ids(seen) == ["e2"]
        seen.page.select_option("#outcome", "all")
        seen.page.select_option("#instruction", label="task 2")
        assert set(shown_ids(seen)) == {"e2", "e5"}
        seen.page.select_option("#instruction", "")
        seen.page.fill("#search", "E4")
        assert shown_ids(seen) == ["e4"]
        assert seen.page.inner_text("#found") == "1 of 6 episodes"
        seen.page.click("#rows button")
        seen.until("topreward.state.place === 4")
    seen.quiet()


def test_keys(browser: Any, page: Path) -> None:
    with opened(browser, page) as seen:
        press = seen.page.keyboard.press
        press("ArrowDown")
        seen.until("topreward.state.episode.id === 'e1'")
        press("ArrowUp")
        seen.until("topreward.state.episode.id === 'e0'")
        press("ArrowRight")
        press("ArrowRight")
        assert time_of(seen) == pytest.approx(prefix_lengths(FRAMES)[2] / FPS - 1 / FPS, abs=1e-6)
        press("Shift+ArrowRight")
        assert time_of(seen) == pytest.approx(prefix_lengths(FRAMES)[2] / FPS, abs=1e-6)
        press("End")
        assert time_of(seen) == pytest.approx(FRAMES / FPS)
        press("Home")
        assert time_of(seen) == 0
        before = seen.page.evaluate("topreward.state.view")
        press("v")
        assert seen.page.evaluate("topreward.state.view") != before
        press(" ")
        seen.until("topreward.state.time > 0.1")
        press(" ")
        assert seen.page.evaluate("document.getElementById('film').paused")
        press("?")
        assert seen.page.is_visible("#keys")
        press("Escape")
        assert not seen.page.is_visible("#keys")
        press("/")
        seen.page.keyboard.type("task 1 v?")  # typing is not steering
        assert seen.page.input_value("#search") == "task 1 v?"
    seen.quiet()


def test_the_address_names_episode_and_time(browser: Any, page: Path) -> None:
    with opened(browser, page, "#episode=e3&t=2.5") as seen:
        seen.until("topreward.state.episode.id === 'e3'")
        assert time_of(seen) == 2.5
        settled(seen, 2.5)
        seen.page.keyboard.press("ArrowDown")
        seen.until("topreward.state.episode.id === 'e4'")
        seen.page.keyboard.press("End")
        assert seen.page.url.endswith("#episode=e4&t=6.00")
    with opened(browser, page, "#episode=nobody&t=x") as seen:
        assert seen.page.evaluate("topreward.state.episode.id") == "e0"
    seen.quiet()


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    '"><svg onload=alert(3)>',
    "<!--<script>",
    "]]>{{alert(4)}}${alert(5)}%%run%%",
    "javascript:alert(6)",
    "\u202eevil\u2028\u2029\x00\x1b[31m",
    "عربي ‏ עברית",
    "🤖" * 300,
    "long " * 200_000,
)


def test_text_from_outside_is_text(browser: Any, tmp_path: Path) -> None:
    with Folder(tmp_path / "run") as folder:
        plan = Plan(("topreward",), controls=False)
        folder.open({"plan": plan.settings(), "dataset": {"dataset": HOSTILE[1]}, "model": {"name": HOSTILE[0]}})
        for i, text in enumerate(HOSTILE):
            clip = bright(levels(i))
            curve = make_curve(clip, text, np.linspace(-3, -1, 6), notes=(text,))
            one = Measured(f"{i} {text[:300]}", text, split=text, num_frames=FRAMES, error=None,
                           readings=(Reading("topreward", REAL, curve, None, 0.0),), notes=(text,))  # fmt: skip
            folder.write(one)
        folder.write(Measured("error", "task", error=HOSTILE[0]))
    written = write_page([open_source(tmp_path / "run")], tmp_path / "page.html")
    with opened(browser, written.path) as seen:
        for place in range(len(HOSTILE) + 1):
            seen.page.evaluate(f"i => location.hash = new URLSearchParams({{episode: {RUN}.episodes[i].id}})", place)
            seen.until("i => topreward.state.place === i && topreward.state.episode", place)
            text = seen.page.evaluate("topreward.state.episode.instruction")
            assert seen.page.evaluate("document.getElementById('instructed').textContent") == text
            assert seen.page.evaluate("document.querySelectorAll('#instructed *').length") == 0
        texts = seen.page.evaluate(f"{RUN}.episodes.map(e => e.instruction)")
        assert sorted(texts) == sorted([*HOSTILE, "task"])
        assert seen.page.locator("img").count() == 0
        assert seen.page.locator("svg[onload]").count() == 0
        width = seen.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1]  # a megabyte of words does not push the page apart
    seen.quiet()


def test_nothing_but_the_pages_own_script_runs(browser: Any, page: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside, opened(browser, page) as seen:
        outside.settimeout(0.5)
        seen.page.evaluate(
            """port => {
            const make = (tag) => document.body.appendChild(document.createElement(tag));
            const inline = document.createElement('script');
            inline.textContent = 'window.ran = 1';
            document.body.append(inline);
            make('img').src = `http://127.0.0.1:${port}/x.png`;
            const old = make('div');
            old.setAttribute('onclick', 'window.ran = 2');
            old.click(); }""",
            outside.getsockname()[1],
        )
        with pytest.raises(TimeoutError):
            outside.accept()
        assert seen.page.evaluate("window.ran") is None
        assert sum("Content Security Policy" in text for text in seen.console) >= 3


def test_what_is_undefined_failed_or_in_error_is_shown_as_such(browser: Any, tmp_path: Path) -> None:
    clip = bright(levels(0))
    nan = make_curve(clip, "t", np.full(6, np.nan), provenance={"failure": {"kind": "refusal", "reason": "cannot see"}})
    one = make_curve(clip, "t", np.linspace(-3, -1, 6))
    single = one.__class__("t", [FRAMES], [5.9], [-1.0], "nats", FRAMES)
    with Folder(tmp_path / "run") as folder:
        folder.open({"plan": Plan(("topreward",), controls=False).settings()})
        for name, curve in (("nan", nan), ("single", single)):
            folder.write(
                Measured(name, "t", num_frames=FRAMES, readings=(Reading("topreward", REAL, curve, None, 0.0),))
            )
        folder.write(Measured("broken", "t", error="gone.mp4: no such file"))
        folder.write(Measured("half", "t", readings=(Reading("topreward", REAL, None, "no memory", 0.0),)))
    written = write_page([open_source(tmp_path / "run")], tmp_path / "page.html")

    def said(fragment: str) -> tuple[str, str, str]:
        with opened(browser, written.path, fragment) as seen:
            chart = seen.page.evaluate("document.getElementById('chart').textContent")
            out = seen.page.inner_text("#said"), chart, seen.page.inner_text("#rows")
        seen.quiet()
        return out

    notes, chart, rows = said("#episode=nan")
    assert "the answer failed: refusal: cannot see" in notes
    assert "no defined value" in chart
    assert "no answer" in rows
    notes, chart, rows = said("#episode=broken")
    assert "error: gone.mp4: no such file" in notes
    assert "this episode is in error" in chart
    assert rows.count("error") >= 2
    assert "no memory" in said("#episode=half")[0]
    with opened(browser, written.path, "#episode=single") as seen:
        assert seen.page.locator("#chart circle").count() == 1
        assert "VOC undef." in seen.page.inner_text("#curves")
        assert "1 prefix" in seen.page.inner_text("#about")


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_axe_finds_no_serious_violation(browser: Any, page: Path, colours: str, width: int) -> None:
    from browser import need

    axe = ROOT / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
    need(axe.exists(), "axe-core is not installed")
    with opened(browser, page, color_scheme=colours, viewport={"width": width, "height": 850}, bypass_csp=True) as seen:
        seen.page.evaluate(axe.read_text())
        found = seen.page.evaluate("axe.run()")
        serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
        told = [(v["id"], [n["html"][:120] for n in v["nodes"]][:3]) for v in serious]
        assert not told
        seen.page.click("#help")
        found = seen.page.evaluate("axe.run()")
        assert not [v["id"] for v in found["violations"] if v["impact"] in ("serious", "critical")]


def test_less_motion_and_no_sideways_scrolling_on_a_phone(browser: Any, page: Path) -> None:
    with opened(browser, page, viewport={"width": 360, "height": 700}, reduced_motion="reduce", has_touch=True) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360
        order = seen.page.evaluate(
            "['viewer', 'episodes'].map(i => document.getElementById(i).getBoundingClientRect().top)"
        )
        assert order[0] < order[1]
    seen.quiet()


def many(path: Path, count: int) -> Source:
    """A run of many short episodes; only the first ones have a video."""
    plan = Plan(("topreward",), controls=False)
    with Folder(path) as folder:
        folder.open({"plan": plan.settings(), "episodes": {"count": count}})
        for i in range(count):
            curve = make_curve(bright(levels(i)), f"task {i % 7}", np.linspace(-3, -1 - i / count, 6))
            folder.write(Measured(f"e{i:04d}", f"task {i % 7}", num_frames=FRAMES, success=i % 2 == 0,
                                  readings=(Reading("topreward", REAL, curve, None, 0.0),)))  # fmt: skip
    source = open_source(path)
    source.open_clips = lambda: {f"e{i:04d}": partial(bright, levels(i)) for i in range(4)}
    return source


def test_a_large_run_is_a_folder_whose_videos_load_when_they_are_shown(browser: Any, tmp_path: Path) -> None:
    source = many(tmp_path / "run", 500)
    written = write_page([source], tmp_path / "page.html")
    assert (written.inline, written.path, written.films) == (False, tmp_path / "page" / "index.html", 4)
    with opened(browser, written.path) as seen:
        asked = [url.rsplit("/", 1)[-1] for url in seen.requests]
        assert set(asked) == {"index.html", "episode-00000.js", "episode-00000.mp4"}
        assert seen.page.locator("#rows li").count() <= 60
        for share in (0.3, 0.7, 1.0):
            seen.page.evaluate(
                f"(() => {{ const s = document.getElementById('scroll'); s.scrollTop = s.scrollHeight * {share}; }})()"
            )
            seen.page.wait_for_timeout(60)
            assert 0 < seen.page.locator("#rows li").count() <= 60
        assert "e0499" in seen.page.inner_text("#rows")
        assert len(seen.requests) == len(asked)
        seen.page.locator("#rows button").last.click()
        seen.until("topreward.state.episode.id === 'e0499'")
        assert "no such episode" in seen.page.inner_text("#nofilm")
        seen.page.keyboard.press("ArrowUp")
        seen.until("topreward.state.episode.id === 'e0498'")
        seen.page.fill("#search", "task 3")
        assert seen.page.locator("#rows li").count() <= 60
        assert "71 of 500" in seen.page.inner_text("#found")
    seen.quiet()
    again = write_page([source], tmp_path / "page.html")  # a page of ours is replaced
    assert again.path == written.path
    (written.path.parent / "side" / "episode-00001.js").unlink()
    with opened(browser, written.path, "#episode=e0001") as seen:
        assert "missing beside the page" in seen.page.inner_text("#said")


def test_a_small_limit_makes_a_folder(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", listed(2), Plan(("topreward",), controls=False), {"topreward": Bright()})
    assert write_page([source], tmp_path / "a.html", max_inline_mb=5).inline
    assert not write_page([source], tmp_path / "b.html", max_inline_mb=0.001).inline
    assert not any(p.name.startswith(".") for p in tmp_path.iterdir())


def test_another_folder_is_never_replaced(tmp_path: Path) -> None:
    """Not a stranger's, not a link, and not the run's own, even where a page of ours lies in it."""
    source = make_run(tmp_path / "run", listed(1), Plan(("topreward",), controls=False), {"topreward": Bright()})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my own page")
    assert write_page([source], tmp_path / "mine.html", max_inline_mb=0).path == tmp_path / "mine-page" / "index.html"
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["index.html"]
    assert (tmp_path / "mine" / "index.html").read_text() == "my own page"
    write_page([source], tmp_path / "run" / "index.html")
    before = {p: p.read_bytes() for p in sorted((tmp_path / "run").rglob("*")) if p.is_file()}
    for size, place in ((0, tmp_path / "run-page" / "index.html"), (25, tmp_path / "run.html")):
        for _ in range(2):  # and again: a page of ours is replaced
            assert write_page([source], tmp_path / "run.html", max_inline_mb=size).path == place
    assert {p: p.read_bytes() for p in sorted((tmp_path / "run").rglob("*")) if p.is_file()} == before
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    assert write_page([source], tmp_path / "link.html", max_inline_mb=0).path.parent.name == "link-page"


def test_a_page_has_one_form(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", listed(1), Plan(("topreward",), controls=False), {"topreward": Bright()})
    for size, names in ((25, ["a.html", "run"]), (0, ["a", "run"]), (25, ["a.html", "run"])):
        write_page([source], tmp_path / "a.html", max_inline_mb=size)
        assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_what_is_no_page_is_refused(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", listed(1), Plan(("topreward",), controls=False), {"topreward": Bright()})
    with pytest.raises(ConfigError, match=r"named \*\.html"):
        write_page([source], tmp_path / "page.pdf")
    (tmp_path / "empty" / "curves").mkdir(parents=True)
    empty = open_source(tmp_path / "empty")
    with pytest.raises(ConfigError, match="nothing to show"):
        write_page([empty], tmp_path / "page.html")


def test_two_runs_side_by_side(browser: Any, tmp_path: Path) -> None:
    plan = Plan(("topreward",), controls=False)
    first = make_run(tmp_path / "a", listed(6), plan, {"topreward": Bright()})
    second = make_run(tmp_path / "b", listed(8)[2:], plan, {"topreward": Upside()})
    written = write_page([first, second], tmp_path / "page.html")
    assert written.episodes == 4
    with opened(browser, written.path) as seen:
        results = seen.page.inner_text("#results")
        assert "4 episodes in common; left out: 2 of the first, 2 of the second" in results
        assert shown_ids(seen) == ["e2", "e3", "e4", "e5"]
        assert seen.page.locator("path.curve.second").count() == 1
        run = seen.page.evaluate(RUN)
        found = run["compare"]["differences"][0]
        gaps = [e["difference"]["topreward"] for e in run["episodes"]]
        assert float(found["mean"]) == pytest.approx(np.mean(gaps), abs=2e-3)
        assert found["pairs"] == 4
        assert found["apart"]  # upside down is below everywhere
        seen.page.select_option("#sort", "worse")
        order = seen.page.evaluate("topreward.state.order")
        assert [gaps[i] for i in order] == sorted(gaps)
    seen.quiet()


class Upside(Bright):
    """The same values, falling."""

    def score(self, clip: Clip, instructions: Sequence[str], *, episode_id: str) -> list[Any]:
        return [c.with_values(-c.values, "nats") for c in super().score(clip, instructions, episode_id=episode_id)]


def test_a_run_that_was_stopped_or_damaged_or_is_of_another_version(browser: Any, tmp_path: Path) -> None:
    episodes = listed(4)
    episodes[3] = Episode("e3", "task 0", missing)
    source = make_run(tmp_path / "run", episodes)
    files = sorted((tmp_path / "run" / "curves").iterdir())
    files[0].unlink()
    files[1].write_text("{")
    source = open_source(tmp_path / "run")
    written = write_page([source], tmp_path / "page.html")
    with opened(browser, written.path) as seen:
        notices = seen.page.inner_text("#notices")
        assert "1 of 4 episodes are not measured yet" in notices
        assert "the videos cannot be shown" in notices
        assert "3 of 4 episodes, 2 in error" in seen.page.inner_text("#counts")
    seen.quiet()


def test_one_curve(browser: Any, tmp_path: Path) -> None:
    clip = bright(levels(3))
    curve = Bright().score(clip, ["pick up the cup"], episode_id="x")[0]
    written = write_page([of_curve(curve, clip)], tmp_path / "one.html")
    with opened(browser, written.path) as seen:
        assert seen.page.inner_text("#instructed") == "pick up the cup"
        assert not seen.page.is_visible("#episodes")
        assert not seen.page.is_visible("#results")
        seen.page.keyboard.press("End")
        settled(seen, 6.0)
    seen.quiet()
    curve.save(tmp_path / "one.json")
    assert write_page([open_source(tmp_path / "one.json")], tmp_path / "two.html").films == 0


def test_another_video_under_the_same_name_is_not_shown(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", listed(1), Plan(("topreward",), controls=False), {"topreward": Bright()})
    source.open_clips = lambda: {"e0": partial(bright, levels(0)[:30])}
    written = write_page([source], tmp_path / "page.html")
    assert written.films == 0
    assert "it had 60 frames when it was scored, 30 now" in written.path.read_text()


def test_the_same_run_is_the_same_page(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", listed(2))
    first = write_page([source], tmp_path / "a.html").path.read_bytes()
    assert write_page([source], tmp_path / "b.html").path.read_bytes() == first


def test_numbers_on_the_page_are_those_of_the_library(page: Path) -> None:
    import topreward as tr

    text = page.read_text()
    start = text.index('id="episode-1">') + len('id="episode-1">')
    data = json.loads(text[start : text.index("</script>", start)])
    clip = bright(levels(1))
    curve = Bright().score(clip, ["task 1"], episode_id="e1")[0]
    drawn = next(c for c in data["curves"] if (c["estimator"], c["control"]) == ("topreward", "real"))
    assert drawn["views"]["log_prob"] == pytest.approx(curve.values, rel=1e-4)
    assert drawn["views"]["progress"] == pytest.approx(curve.progress(), abs=1e-4)
    assert drawn["views"]["dense_reward"][1:] == pytest.approx(tr.dense_rewards(curve.progress())[1:], rel=1e-4)
    spread = curve.to_frames(curve.progress())
    ahead = np.minimum(np.arange(FRAMES) + 10, FRAMES - 1)
    wanted = (spread[ahead] - spread)[curve.prefix_lengths - 1]
    assert drawn["views"]["advantage_1"] == pytest.approx(wanted, abs=1e-4)
    still = next(c for c in data["curves"] if (c["estimator"], c["control"]) == ("topreward", "frozen"))
    flat = Bright().score(frozen(clip), ["task 1"], episode_id="e1")[0]
    assert still["views"]["log_prob"] == pytest.approx(flat.values, rel=1e-4)
