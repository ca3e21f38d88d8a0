"""How quickly a page opens and scrolls, in headless Chromium.

    python benchmarks/page.py --json benchmarks/results/page.json

Two pages: 30 demo episodes in one file (size, and the time until the first episode can be played), and 500 episodes in
a folder (scrolling through the list and filtering it; the longest time between two frames of the screen).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common import machine
from topreward.demo.episodes import demo_episodes
from topreward.evaluation import Folder, Plan, evaluate
from topreward.files import write_atomically
from topreward.jobs.episode import Measured, Reading
from topreward.jobs.plan import REAL
from topreward.jobs.scorers import ModelSetup
from topreward.report.page import Source, open_source, write_page
from topreward.types import Curve

FRAMES = """async (move) => {
  const act = new Function("i", "n", move), gaps = [], n = 120;
  return await new Promise((done) => {
    let last = performance.now(), i = 0;
    const step = (now) => {
      gaps.push(now - last);
      last = now;
      if (i >= n) { done(gaps.slice(1)); return; }
      act(i, n);
      i += 1;
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  });
}"""
"""Milliseconds between frames of the screen while `move` is done 120 times."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as running:
        small = _demo(Path(folder) / "small")
        large = _many(Path(folder) / "large", 500)
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opening = [_open(browser, small.path) for _ in range(chosen.repeats)]
        page = browser.new_page(bypass_csp=True)  # the stopwatch is not the page's own script
        page.goto(large.path.as_uri())
        page.wait_for_timeout(500)
        scroll = "const s = document.getElementById('scroll'); s.scrollTop = s.scrollHeight * i / n;"
        search = (
            "const s = document.getElementById('search'); s.value = ['', 'task 3', 'e04', 'nothing'][i % 4];"
            "s.dispatchEvent(new Event('input'));"
        )
        result: dict[str, Any] = {
            "machine": machine(),
            "small": {
                "episodes": small.episodes,
                "megabytes": round(small.megabytes, 2),
                "seconds_to_open": {"median": float(np.median(opening)), "max": max(opening)},
            },
            "large": {
                "episodes": large.episodes,
                "scroll_ms": _gaps(page.evaluate(FRAMES, scroll)),
                "filter_ms": _gaps(page.evaluate(FRAMES, search)),
                "rows_in_document": page.locator("#rows li").count(),
            },
        }
        browser.close()
    print(json.dumps(result, indent=1))
    if chosen.json:
        write_atomically(chosen.json, json.dumps(result, indent=1) + "\n")


def _open(browser: Any, path: Path) -> float:
    """s until the first film can be played and its curve is drawn."""
    page = browser.new_page()
    start = time.perf_counter()
    page.goto(path.as_uri())
    while not page.evaluate("document.getElementById('film').readyState >= 3 && topreward.state.episode !== null"):
        time.sleep(0.005)
    seconds = time.perf_counter() - start
    page.close()
    return seconds


def _gaps(gaps: list[float]) -> dict[str, float]:
    return {"median": round(float(np.median(gaps)), 1), "longest": round(max(gaps), 1)}


def _demo(folder: Path) -> Any:
    from topreward.config import load_protocol
    from topreward.estimators.gvl.protocol import load_gvl_protocol

    episodes = demo_episodes(30, seed=1)
    setup = ModelSetup(("topreward",), load_protocol("demo"), load_gvl_protocol("gvl-demo"), {"name": "demo"})
    with Folder(folder) as kept:
        evaluate(setup, lambda: episodes, Plan(("topreward", "log_odds", "debiased")), kept)
    source = open_source(folder)
    source.open_clips = lambda: {episode.id: episode.clip for episode in episodes}
    return write_page([source], folder / "page.html")


def _many(folder: Path, count: int) -> Any:
    """Many episodes with made-up curves; the first four have a film."""
    lengths = np.arange(8, 121, 8)
    plan = Plan(("topreward",), controls=False)

    def measured(i: int) -> Measured:
        values = np.linspace(-4, -0.1, lengths.size) + np.random.default_rng(i).normal(0, 0.5, lengths.size)
        curve = Curve(f"task {i % 7}", lengths, lengths / 10, values, "nats", 120)
        readings = (Reading("topreward", REAL, curve, None, 0.0),)
        return Measured(f"e{i:04d}", curve.instruction, success=i % 2 == 0, num_frames=120, readings=readings)

    source = Source(f"{count} episodes", plan, count, lambda: map(measured, range(count)), dict)
    films = demo_episodes(4, seed=2)
    source.open_clips = lambda: {f"e{i:04d}": partial(_cut, films[i]) for i in range(4)}
    return write_page([source], folder.with_suffix(".html"))


def _cut(episode: Any) -> Any:
    from topreward.types import Clip

    clip = episode.clip()
    return Clip.from_array(clip.frames(np.arange(120) % clip.num_frames), 10.0)


if __name__ == "__main__":
    main()
