"""`topreward render`: one episode as a film whose curve draws itself, or as a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from topreward.cli.terminal import out, progress_bar
from topreward.errors import ConfigError, CurveError, DatasetError, nearest
from topreward.files import check_target, whole_file

if TYPE_CHECKING:
    from topreward.jobs.episode import Measured
    from topreward.report.page import Source
    from topreward.types import Clip


@dataclass(frozen=True)
class RenderOptions:
    """One episode for papers and chats: .mp4 draws the curve under the film, .png, .svg or .pdf is a contact sheet."""

    results: tyro.conf.Positional[Path]
    """The --output folder of eval or label, or the --json of score."""
    output: tyro.conf.Positional[Path]
    """film.mp4, or a picture: .png, .svg, .pdf, .jpg, .webp."""
    episode: str | None = None
    """Its id; needed where there are several."""
    estimator: str | None = None
    """Whose curve a film draws; by default the first one's."""
    video: Path | None = None
    """The video of a single curve, if it is no longer where it was."""
    width: int = 480
    """Of the film, px."""
    debug: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show tracebacks."""


def render(options: RenderOptions) -> int:
    """Draw it."""
    from topreward.report.page import open_source

    film = options.output.suffix.lower() == ".mp4"
    if not film:
        from topreward.report.plots import figure_format

        figure_format(options.output)
    if not 64 <= options.width <= 3840:
        raise ConfigError(f"--width is {options.width}, want 64 to 3840 px")
    check_target(options.output)
    source = open_source(options.results, video=options.video)
    measured = _chosen(source, options.episode)
    clip = _clip(source, measured)
    if film:
        _film(options, source, measured, clip)
    else:
        from topreward.report.plots import save_figure
        from topreward.report.sheet import contact_sheet

        save_figure(contact_sheet(measured, source.plan, clip), options.output)
    out.print(f"drawn to {options.output}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _film(options: RenderOptions, source: Source, measured: Measured, clip: Clip) -> None:
    from topreward.jobs.derive import reading
    from topreward.jobs.plan import REAL
    from topreward.report.overlay import write_overlay

    name = options.estimator or source.plan.estimators[0]
    found = reading(measured, source.plan, name, REAL)
    if found is None or found.curve is None:
        why = found.error if found is not None else f"there are {', '.join(source.plan.estimators)}"
        raise CurveError(f"episode {measured.id}: there is no curve of '{name}' ({why})")
    with whole_file(options.output) as temporary, progress_bar() as bar:
        task = bar.add_task("rendering", total=clip.num_frames)
        write_overlay(clip, found.curve, temporary, width=options.width, on_frame=lambda: bar.advance(task))


def _chosen(source: Source, wanted: str | None) -> Measured:
    ids: list[str] = []
    for measured in source.measured():
        if measured.id == wanted or (wanted is None and source.planned == 1):
            return measured
        ids.append(measured.id)
    if wanted is None:
        raise ConfigError(f"there are {len(ids)} episodes: choose one with --episode, {', '.join(ids[:3])} …")
    raise DatasetError(f"no episode '{wanted}'{nearest(wanted, ids)} among {len(ids)}")


def _clip(source: Source, measured: Measured) -> Clip:
    clips = source.open_clips()
    if measured.id not in clips:
        raise DatasetError(f"episode {measured.id}: its video is not known any more; give it with --video")
    return clips[measured.id]()
