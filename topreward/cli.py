"""The `topreward` command: parse, call, print. No logic of its own.

    topreward score cup.mp4 "pick up the cup" --model qwen3-vl
    topreward eval --model qwen3-vl --videos a.mp4 b.mp4 --instruction "pick up the cup"

scripts/score_video.py and scripts/eval_voc.py are the same functions. Every expected failure is one line on
stderr and exit status 2; `--debug` shows the traceback.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import tyro
from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from topreward.config import Protocol, load_protocol
from topreward.errors import ConfigError, DatasetError, TopRewardError
from topreward.files import write_atomically
from topreward.types import Clip, Curve, Episode

if TYPE_CHECKING:
    from topreward.estimators.topreward import TOPReward

out = Console()
err = Console(stderr=True)


@dataclass(frozen=True)
class ModelOptions:
    """Which checkpoint, and how it is loaded."""

    model: str = "qwen3-vl"
    """An alias (qwen3-vl, qwen3-vl-2b, -4b, -32b, -30b-a3b), a hub id, or a folder."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    device: str | None = None
    """cpu, cuda, cuda:N or auto; by default a GPU where there is one."""
    dtype: str | None = None
    """float32, bfloat16, float16 or auto; by default the checkpoint's on a GPU, float32 on a CPU."""
    quantization: Literal["none", "int8", "nf4"] = "none"
    """Load the weights in 8 or 4 bits through bitsandbytes."""
    attn_implementation: str | None = None
    """What transformers calls it: sdpa, eager, flash_attention_2 …"""
    adapter: str | None = None
    """A LoRA adapter's folder or id."""

    def load(self) -> TOPReward:
        from topreward.estimators.topreward import TOPReward

        options = dataclasses.asdict(self)
        with err.status(f"loading {self.model}"):
            return TOPReward.from_pretrained(options.pop("model"), **options)


@dataclass(frozen=True)
class ProtocolOptions:
    """How the video is shown and scored; unset options are the protocol's own."""

    protocol: str = "paper"
    """paper, dense, or a yaml file of your own."""
    num_prefixes: int | None = None
    """Prefixes per video; 0 = every frame (paper) or every temporal patch (dense)."""
    sampling_fps: float | None = None
    """Sampled frames per second."""
    frame_pixels: int | None = None
    """dense: most pixels of a frame as the model sees it."""
    chat_template: tyro.conf.FlagCreatePairsOff[bool] = False
    """Ask inside the chat template."""
    description: Literal["none", "per_prefix", "once"] | None = None
    """Have the model describe the video first."""
    wording: str | None = None
    """The prompt's wording: a name in configs/wordings, or a yaml file of your own."""

    def load(self) -> Protocol:
        chosen = {k: v for k, v in dataclasses.asdict(self).items() if v not in (None, False)}
        return load_protocol(chosen.pop("protocol"), **chosen)


@dataclass(frozen=True)
class ScoreOptions:
    """Score one video against one instruction, and draw the curve."""

    video: tyro.conf.Positional[Path]
    """A video file, or a folder of frames."""
    instruction: tyro.conf.Positional[str]
    """The task, as told to the robot."""
    model: tyro.conf.OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    protocol: tyro.conf.OmitArgPrefixes[ProtocolOptions] = field(
        default_factory=lambda: ProtocolOptions(protocol="dense")
    )
    backend: str = "auto"
    """Who decodes: auto (= pyav), pyav or decord."""
    fps: float | None = None
    """Frame rate of a folder of frames, frames/s."""
    json: Path | None = None
    """Write the curve here."""
    debug: bool = False
    """Show tracebacks."""


@dataclass(frozen=True)
class EvalOptions:
    """VOC of a model over videos or a dataset: a table per episode, and the mean with its interval."""

    videos: tuple[Path, ...] = ()
    """Video files, or one CSV/JSONL listing of path, instruction, success, split."""
    instruction: tuple[str, ...] = ()
    """One for all videos, or one per video."""
    dataset: str | None = None
    """lerobot:…, folder:…, hdf5:… or demo: (docs/datasets.md)."""
    model: tyro.conf.OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    protocol: tyro.conf.OmitArgPrefixes[ProtocolOptions] = field(default_factory=ProtocolOptions)
    json: Path | None = None
    """Write all results here: means, every curve, and how they were made."""
    fail_fast: bool = False
    """Stop at the first episode that fails."""
    debug: bool = False
    """Show tracebacks."""


def score(options: ScoreOptions) -> int:
    """Score one video; print its curve."""
    from topreward.report.terminal import show_curve
    from topreward.video import read_video

    protocol = options.protocol.load()
    clip = read_video(options.video, backend=options.backend, fps=options.fps)
    estimator = options.model.load()
    with err.status(f"scoring {clip.num_frames} frames"):
        curve = estimator.score(clip, options.instruction, protocol=protocol)
    show_curve(out, curve)
    if options.json:
        curve.save(options.json)
        out.print(f"written to {options.json}", markup=False)
    return 0


def evaluate(options: EvalOptions) -> int:
    """Score many episodes; print a table, the mean VOC and its interval. Status 1 where an episode failed."""
    from topreward.evaluation import Row, evaluate, summarise
    from topreward.report.terminal import show_rows

    protocol = options.protocol.load()
    episodes = _episodes(options)
    estimator = options.model.load()
    rows: list[Row] = []
    try:
        with _progress() as progress:
            task = progress.add_task("scoring", total=len(episodes))

            def score_one(clip: Clip, text: str) -> Curve:
                return estimator.score(clip, text, protocol=protocol)

            for row in evaluate(score_one, episodes, fail_fast=options.fail_fast):
                rows.append(row)
                progress.advance(task)
    finally:  # what was computed is kept, also when the run is interrupted
        if options.json and rows:
            _write_results(options.json, rows)
    summary = summarise(rows)
    show_rows(out, rows, summary)
    if options.json:
        out.print(f"written to {options.json}", markup=False)
    return 1 if summary.failed else 0


def _episodes(options: EvalOptions) -> Sequence[Episode]:
    """The episodes meant by --videos, --instruction and --dataset."""
    from topreward.datasets import open_dataset, read_listing
    from topreward.video import read_video

    videos, instructions = options.videos, options.instruction
    if options.dataset:
        if videos or instructions:
            raise ConfigError("--dataset brings its own videos and instructions; leave out --videos and --instruction")
        return open_dataset(options.dataset)
    if not videos:
        raise ConfigError("nothing to score: give --videos with --instruction, a listing, or --dataset")
    if len(videos) == 1 and videos[0].suffix.lower() in (".csv", ".jsonl"):
        if instructions:
            raise ConfigError(f"{videos[0]} brings its own instructions; leave out --instruction")
        return read_listing(videos[0])
    if len(instructions) not in (1, len(videos)):
        raise ConfigError(
            f"{len(videos)} videos and {len(instructions)} instructions: give one for all, or one per video"
        )
    texts = instructions if len(instructions) == len(videos) else instructions * len(videos)
    if len(set(videos)) < len(videos):
        raise DatasetError("the same video is named twice in --videos")
    names = [video.name for video in videos]
    ids = names if len(set(names)) == len(names) else [str(video) for video in videos]
    return [Episode(name, text, partial(read_video, v)) for name, text, v in zip(ids, texts, videos, strict=True)]


def _write_results(path: Path, rows: list[Any]) -> None:
    from topreward.evaluation import results_dict

    write_atomically(path, json.dumps(results_dict(rows), indent=1, allow_nan=False) + "\n")


def _progress() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=err, transient=True)


def run(command: Callable[[Any], int], options: Any) -> NoReturn:
    """Run a command and exit: 0 done, 1 some episodes failed, 2 a named error, 130 interrupted."""
    try:
        status = command(options)
    except KeyboardInterrupt:
        err.print("interrupted")
        status = 130
    except Exception as error:
        if options.debug:
            raise
        named = isinstance(error, TopRewardError)
        text = " ".join(str(error).split())
        if not named:
            text = f"unexpected {type(error).__name__}: {text} (--debug shows where)"
        err.print(f"error: {text}", markup=False, highlight=False, soft_wrap=True)
        status = 2
    sys.exit(status)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The `topreward` command."""
    commands: dict[str, Callable[..., Any]] = {"score": ScoreOptions, "eval": EvalOptions}
    options = tyro.extras.subcommand_cli_from_dict(commands, prog="topreward", args=arguments)
    run(score if isinstance(options, ScoreOptions) else evaluate, options)


def score_main() -> NoReturn:
    """scripts/score_video.py"""
    run(score, tyro.cli(ScoreOptions, description=score.__doc__))


def eval_main() -> NoReturn:
    """scripts/eval_voc.py"""
    run(evaluate, tyro.cli(EvalOptions, description=evaluate.__doc__))
