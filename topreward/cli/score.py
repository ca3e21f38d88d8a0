"""`topreward score`: one video against one instruction, its curve in the terminal and in files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from topreward.cli.options import ModelOptions, ProtocolOptions
from topreward.cli.report import check_page, draw
from topreward.cli.report import say as say_where
from topreward.cli.terminal import err, out
from topreward.files import check_target


@dataclass(frozen=True)
class ScoreOptions:
    """Score one video against one instruction, and draw the curve."""

    video: tyro.conf.Positional[Path]
    """A video file, or a folder of frames."""
    instruction: tyro.conf.Positional[str]
    """The task, as told to the robot."""
    model: tyro.conf.OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    protocol: tyro.conf.OmitArgPrefixes[ProtocolOptions] = field(default_factory=ProtocolOptions)
    backend: str = "auto"
    """Who decodes: auto (= pyav), pyav or decord."""
    fps: float | None = None
    """Frame rate of a folder of frames, frames/s."""
    json: Path | None = None
    """Write the curve here."""
    plot: Path | None = None
    """Draw the film and the curve here (.png, .svg, .pdf)."""
    report: Path | None = None
    """Write a page of the film beside its curve here (.html)."""
    debug: bool = False
    """Show tracebacks."""


def score(options: ScoreOptions) -> int:
    """Score one video; print its curve."""
    from topreward.report.terminal import show_curve
    from topreward.report.text import say
    from topreward.video import read_video

    for target in (options.json, options.plot):  # not after all the work
        if target:
            check_target(target)
    if options.report:
        check_page(options.report)
    if options.plot:
        from topreward.report.plots import figure_format

        figure_format(options.plot)
    protocol = options.protocol.load("demo" if options.model.model == "demo" else "dense")
    clip = read_video(options.video, backend=options.backend, fps=options.fps)
    estimator = options.model.load()
    with err.status(f"scoring {clip.num_frames} frames"):
        curve = estimator.score(clip, options.instruction, protocol=protocol)
    show_curve(out, curve)
    if options.json:
        curve.save(options.json)
        say(out, f"written to {options.json}", wrap=False)
    if options.plot:
        from topreward.report.plots import plot_curves, save_figure

        save_figure(plot_curves({curve.instruction: curve}, {curve.instruction: clip}), options.plot)
        say(out, f"drawn to {options.plot}", wrap=False)
    if options.report:
        from topreward.report.page import of_curve

        say_where(draw([of_curve(curve, clip)], options.report))
    return 0
