"""The page, written: one file that holds everything, or a folder with side files, both opened from disk.

In go Sources; out comes a page. Text from outside travels as JSON with no `<` in it, and the page's script puts it into
the document as text: it is never markup. A Content-Security-Policy lets nothing run but the page's own script, and
nothing load from anywhere else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from topreward.errors import ConfigError, TopRewardError
from topreward.evaluation.rows import EpisodeRows, episode_rows
from topreward.evaluation.summary import summarise
from topreward.jobs.episode import Measured, describe_error
from topreward.jobs.plan import REAL
from topreward.report.page.compare import common, difference, differences
from topreward.report.page.episode import episode_data, estimators_of
from topreward.report.page.film import thumbnails, write_film
from topreward.report.page.run import facts, list_row, run_data
from topreward.report.page.source import OpenClip, Source, clips_of
from topreward.report.page.views import VIEWS

MOST_INLINE_EPISODES = 30
MAX_INLINE_MB = 25.0
PAGE_FORMAT = 1
MARKER = f'<meta name="generator" content="topreward page {PAGE_FORMAT}">'
"""By it a folder is known as a page of ours, which may be replaced."""


@dataclass(frozen=True)
class Written:
    """Where a page is, and in which form."""

    path: Path
    """To be opened."""
    inline: bool
    """One file; otherwise a folder with side files, which belong to it."""
    megabytes: float
    episodes: int
    films: int
    """Episodes with their video."""


def write_page(
    sources: Sequence[Source],
    target: str | os.PathLike[str],
    *,
    max_inline_mb: float = MAX_INLINE_MB,
    films: bool = True,
    on_start: Callable[[int], None] | None = None,
    on_done: Callable[[], None] | None = None,
) -> Written:
    """Write a page of one run, or of two side by side.

    `target`: the file, named *.html. Where it would hold more than 30 episodes or `max_inline_mb` (10⁶ bytes), it
    becomes a folder of the same name without the ending, with an index.html; where that name is taken, by the run's own
    folder for instance, one behind it (`a-page` for `a.html`). `films`: show the videos. `on_start` gets the number of
    episodes, `on_done` is called for each. Raises ConfigError where it cannot be written, or where there is nothing to
    show.
    """
    place = check_place(target, max_inline_mb)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.stem[:40]}.", dir=place.parent) as temporary:
            return _Writer(sources, place, Path(temporary), max_inline_mb, films, on_start, on_done).write()
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({error.strerror or error})") from error


def check_place(target: str | os.PathLike[str], max_inline_mb: float = MAX_INLINE_MB) -> Path:
    """The page's path. Raises ConfigError for another ending, or a size that is none."""
    place = Path(target).expanduser()
    if place.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{target}: a page is named *.html")
    if not np.isfinite(max_inline_mb) or max_inline_mb < 0:
        raise ConfigError(f"--max-inline-mb is {max_inline_mb}, want a number from 0 on")
    return place


def as_json(value: Any) -> str:
    """JSON that may stand in a script element: without `<`, `>`, `&` and line separators, whatever the text."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Writer:
    """A page on its way to disk."""

    def __init__(
        self,
        sources: Sequence[Source],
        place: Path,
        temporary: Path,
        max_inline_mb: float,
        films: bool,
        on_start: Callable[[int], None] | None,
        on_done: Callable[[], None] | None,
    ) -> None:
        self.sources, self.place = list(sources), place
        self.side = temporary / "page" / "side"
        self.side.mkdir(parents=True)
        self.max_bytes, self.with_films = max_inline_mb * 1e6, films
        self.on_start, self.on_done = on_start, on_done
        self.notes = [note for source in self.sources for note in source.notes]
        self.films = 0

    def write(self) -> Written:
        rows = [self._rows(source) for source in self.sources]
        ids = list(rows[0]) if len(rows) == 1 else common(rows[0], rows[1])
        if not ids:
            raise ConfigError("there is nothing to show: " + ("no episode is measured" if len(rows) == 1 else
                              "the two runs have no episode in common"))  # fmt: skip
        if self.on_start:
            self.on_start(len(ids))
        listed = self._episodes(ids, rows)
        run = self._run(ids, rows, listed)
        size = sum(file.stat().st_size * (4 / 3 if file.suffix == ".mp4" else 1) for file in self.side.iterdir())
        inline = len(ids) <= MOST_INLINE_EPISODES and size + len(as_json(run)) <= self.max_bytes
        path = self._inline(run, len(ids)) if inline else self._folder(run)
        whole = path.stat().st_size if inline else sum(f.stat().st_size for f in path.parent.rglob("*") if f.is_file())
        return Written(path, inline, whole / 1e6, len(ids), self.films)

    def _rows(self, source: Source) -> dict[str, EpisodeRows]:
        out: dict[str, EpisodeRows] = {}
        for measured in source.measured():
            if measured.id in out:
                self.notes.append(f"{source.title}: the episode {measured.id} is there twice; the first is shown")
            else:
                out[measured.id] = episode_rows(measured, source.plan)
        return out

    def _episodes(self, ids: list[str], rows: list[dict[str, EpisodeRows]]) -> list[dict[str, Any]]:
        """Every episode's own file, and its line in the list."""
        places = {name: i for i, name in enumerate(ids)}
        clips, lost = clips_of(self.sources[0]) if self.with_films else ({}, None)
        if lost:
            self.notes.append(lost)
        listed: list[dict[str, Any]] = [{} for _ in ids]
        second = self._second(places)
        for measured in self.sources[0].measured():
            place = places.get(measured.id)
            if place is None or listed[place]:
                continue
            data = episode_data(measured, self.sources[0].plan)
            line = list_row(measured, rows[0][measured.id], self.sources[0].plan)
            if len(rows) == 2:
                data["second"] = second[measured.id]
                line["difference"] = difference(rows[0][measured.id], rows[1][measured.id])
                if rows[0][measured.id].instruction != rows[1][measured.id].instruction:
                    data["notes"].append("the two runs scored different instructions")
            data |= self._show(place, measured, clips.get(measured.id), lost)
            (self.side / f"episode-{place:05d}.js").write_text(
                f"topreward.receive({place},{as_json(data)});\n", encoding="utf-8"
            )
            listed[place] = line
            if self.on_done:
                self.on_done()
        return listed

    def _second(self, places: dict[str, int]) -> dict[str, Any]:
        """The other run's curves, by episode."""
        if len(self.sources) == 1:
            return {}
        out = {}
        for measured in self.sources[1].measured():
            if measured.id in places and measured.id not in out:
                found = episode_data(measured, self.sources[1].plan)
                out[measured.id] = {"curves": found["curves"], "error": found["error"]}
        return out

    def _show(self, place: int, measured: Measured, open_clip: OpenClip | None, lost: str | None) -> dict[str, Any]:
        """The film and the thumbnails of the scored frames, or why there are none."""
        if not self.with_films:
            return {"film": None, "nofilm": "made without videos"}
        if open_clip is None:
            return {"film": None, "nofilm": lost or "the dataset has no such episode any more"}
        name = f"episode-{place:05d}.mp4"
        try:
            clip = open_clip()
            if measured.num_frames is not None and clip.num_frames != measured.num_frames:
                was = f"{measured.num_frames} frames when it was scored, {clip.num_frames} now"
                return {"film": None, "nofilm": f"the video is another one: it had {was}"}
            write_film(clip, self.side / name)
            strip = thumbnails(clip, _scored(measured, clip.num_frames))
        except (TopRewardError, OSError, ValueError) as error:
            (self.side / name).unlink(missing_ok=True)
            return {"film": None, "nofilm": describe_error(error)}
        self.films += 1
        picture = base64.b64encode(strip.jpeg).decode()
        return {
            "film": name,
            "thumbs": {
                "picture": f"data:image/jpeg;base64,{picture}",
                "width": strip.width,
                "height": strip.height,
                "times": [round(float(clip.pts_seconds[i]), 4) for i in strip.frames],
            },
            "size": [clip.width, clip.height],
            "duration": round(clip.duration_seconds, 4),
            "step": round(1 / clip.fps, 6),
        }

    def _run(self, ids: list[str], rows: list[dict[str, EpisodeRows]], listed: list[dict[str, Any]]) -> dict[str, Any]:
        run: dict[str, Any] = {
            "format": PAGE_FORMAT,
            "title": self.sources[0].title,
            "single": self.sources[0].single,
            "planned": self.sources[0].planned,
            "estimators": list(estimators_of(self.sources[0].plan)),
            "views": [vars(view) for view in VIEWS],
            "episodes": listed,
            "notes": list(dict.fromkeys(self.notes)),
        }
        if self.sources[0].single:
            return run
        shown = [rows[0][name] for name in ids]
        run |= run_data(summarise(shown, self.sources[0].plan), shown, self.sources[0].plan)
        run["facts"] = facts(self.sources[0].settings, shown)
        if len(rows) == 2:
            left = [len(one) - len(ids) for one in rows]
            run["compare"] = {
                "titles": [source.title for source in self.sources],
                "facts": facts(self.sources[1].settings, [rows[1][name] for name in ids]),
                "differences": differences(rows[0], rows[1]),
                "shared": len(ids),
                "left_out": left,
            }
        return run

    def _inline(self, run: dict[str, Any], episodes: int) -> Path:
        parts = []
        for place in range(episodes):
            text = (self.side / f"episode-{place:05d}.js").read_text(encoding="utf-8")
            data = text[text.index(",") + 1 : text.rindex(")")]
            parts.append(f'<script type="application/json" id="episode-{place}">{data}</script>')
            film = self.side / f"episode-{place:05d}.mp4"
            if film.exists():
                packed = base64.b64encode(film.read_bytes()).decode()
                parts.append(f'<script type="text/plain" id="film-{place}">{packed}</script>')
        text = _html(run | {"side": None}, "\n".join(parts), side=False)
        temporary = self.side.parent / "page.html"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.place)
        if _is_page_folder(self.place.with_suffix("")):
            shutil.rmtree(self.place.with_suffix(""))  # of an earlier run: two pages of one name say two things
        return self.place

    def _folder(self, run: dict[str, Any]) -> Path:
        folder = _free_folder(self.place)
        (self.side.parent / "index.html").write_text(_html(run | {"side": "side/"}, "", side=True), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)  # a page of ours: `_free_folder` has looked
        self.side.parent.rename(folder)
        if _is_ours(self.place):
            self.place.unlink()  # of an earlier run
        return folder / "index.html"


def _html(run: dict[str, Any], parts: str, *, side: bool) -> str:
    assets = files("topreward.report.page") / "assets"
    style, script, body = (
        assets.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html")
    )
    allowed = {
        "default-src": "'none'",
        "script-src": f"'sha256-{_digest(script)}'" + (" 'self'" if side else ""),
        "style-src": f"'sha256-{_digest(style)}'",
        "img-src": "data:",
        "media-src": "blob: 'self'" if side else "blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    fields = {
        "policy": "; ".join(f"{name} {value}" for name, value in allowed.items()),
        "marker": MARKER,
        "title": html.escape(run["title"][:120].encode("utf-8", "replace").decode()),
        "style": style,
        "run": as_json(run),
        "episodes": parts,
        "script": script,
    }
    out = []
    for number, part in enumerate(
        body.split("%%")
    ):  # %%name%%; one pass, so that what is put in is not looked at again
        out.append(fields[part] if number % 2 else part)
    return "".join(out)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _free_folder(place: Path) -> Path:
    """A folder for a page with side files: of the page's name, if there is none or one of ours, else one behind it."""
    for number in count():
        folder = place.with_name(place.stem + ("" if not number else "-page" if number == 1 else f"-page-{number}"))
        if not (folder.exists() or folder.is_symlink()) or _is_page_folder(folder):
            return folder
    raise AssertionError("there are always more names")


def _is_ours(page: Path) -> bool:
    """Whether a file is a page that topreward wrote; nothing else is ever replaced or removed."""
    if page.is_symlink() or not page.is_file():
        return False
    with page.open("rb") as file:
        return MARKER.encode() in file.read(4096)


def _is_page_folder(folder: Path) -> bool:
    """Whether a folder is a page and nothing more: a run's folder may hold a page of ours, too."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return {entry.name for entry in folder.iterdir()} == {"index.html", "side"} and _is_ours(folder / "index.html")


def _scored(measured: Measured, num_frames: int) -> Any:
    """Last raw frames of the first estimator's prefixes."""
    for reading in measured.readings:
        if reading.control == REAL and reading.curve is not None:
            return np.minimum(reading.curve.prefix_lengths - 1, num_frames - 1)
    return np.unique(np.linspace(0, num_frames - 1, 12).round().astype(np.int64))
