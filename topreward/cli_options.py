"""The commands' options, in the words of a command line: which model, which protocol, which episodes.

Out come the objects that a command works with; nothing runs here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console

from topreward.config import Protocol, load_protocol

if TYPE_CHECKING:
    from topreward.estimators.topreward import TOPReward
    from topreward.evaluation import ModelSetup, Plan
    from topreward.evaluation.inputs import Inputs
    from topreward.evaluation.suite import DatasetOptions, SuiteDataset

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

    protocol: str = "auto"
    """paper, dense, or a yaml file of your own; auto: dense to score, paper to evaluate, demo for the demo model."""
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

    def load(self, auto: str) -> Protocol:
        """The protocol; `auto` says which one is meant by that word."""
        chosen = {k: v for k, v in dataclasses.asdict(self).items() if v is not None and v is not False}
        name = chosen.pop("protocol")
        return load_protocol(auto if name == "auto" else name, **chosen)


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
    debug: bool = False
    """Show tracebacks."""


@dataclass(frozen=True)
class EvalOptions:
    """VOC of estimators over videos or a dataset, beside the same of their controls: docs/evaluation.md."""

    videos: tuple[Path, ...] = ()
    """Video files, or one CSV/JSONL listing of path, instruction, success, split."""
    instruction: tuple[str, ...] = ()
    """One for all videos, or one per video; one for a dataset or listing, instead of what that says."""
    dataset: str | None = None
    """lerobot:…, folder:…, hdf5:… or demo: (docs/datasets.md)."""
    dataset_revision: str | None = None
    """Branch, tag or commit of a hub dataset."""
    camera: tuple[str, ...] = ()
    """The dataset's camera; several names put their views side by side."""
    episodes: str | None = None
    """Only these: 0:50 (50 not included), 3,7,9, 40: …"""
    split: str | None = None
    """Only the episodes that the dataset says are of this split."""
    subset: int | None = None
    """Only that many of them, drawn by the seed."""
    skip_unlabelled: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave out LeRobot episodes without an instruction."""
    instruction_attribute: str | None = None
    """hdf5: the attribute that holds a demonstration's instruction."""
    fps: float | None = None
    """Frames/s of an hdf5 dataset, or of folders of frames named in --videos."""
    flip_vertical: tyro.conf.FlagCreatePairsOff[bool] = False
    """hdf5: turn the frames upside down, as LIBERO's need it."""
    root: str | None = None
    """The folder that a listing's paths may not leave; by default the listing's own."""
    estimators: str = "topreward,log_odds,debiased,gvl"
    """Of topreward, log_odds, debiased and gvl, with commas between."""
    controls: bool = True
    """Score the frozen and the reversed video and another episode's instruction too."""
    seed: int = 0
    """Draws the subset, the controls' instructions and the calibration split."""
    calibration_split: str | None = None
    """Fit success thresholds on the episodes of this split; by default on half of each class."""
    model: tyro.conf.OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    protocol: tyro.conf.OmitArgPrefixes[ProtocolOptions] = field(default_factory=ProtocolOptions)
    """auto: paper, or demo for the demo checkpoint."""
    gvl_protocol: str = "auto"
    """gvl, gvl-paper, or a yaml file of your own; auto: gvl, or gvl-demo for the demo checkpoint."""
    gvl_examples: str | None = None
    """Up to five episodes, as --episodes has them, that GVL is shown in context; nothing is evaluated on them."""
    num_workers: int = 1
    """Processes, each with a model of its own; they take the GPUs in turn."""
    output: Path | None = None
    """A folder for results.json, episodes.parquet and the curves; where it has some, the run goes on."""
    json: Path | None = None
    """Write all results into this one file: means, every curve, and how they were made."""
    fail_fast: tyro.conf.FlagCreatePairsOff[bool] = False
    """Stop at the first episode that fails."""
    debug: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show tracebacks."""

    def inputs(self) -> Inputs:
        from topreward.evaluation.inputs import Inputs

        named = {f.name for f in dataclasses.fields(Inputs)} - {"revision", "examples"}
        asked = {name: getattr(self, name) for name in named}
        return Inputs(**asked, revision=self.dataset_revision, examples=self.gvl_examples)

    def setup(self, plan: Plan) -> ModelSetup:
        from topreward.evaluation import ModelSetup
        from topreward.gvl_protocol import load_gvl_protocol

        demo = self.model.model == "demo"
        gvl = self.gvl_protocol
        if gvl == "auto":
            gvl = "gvl-demo" if demo else "gvl"
        options = dataclasses.asdict(self.model)
        options["name"] = options.pop("model")
        return ModelSetup(plan.bases, self.protocol.load("demo" if demo else "paper"), load_gvl_protocol(gvl), options)


@dataclass(frozen=True)
class SuiteOptions:
    """A paper's row: the VOC of a suite of datasets (configs/datasets), beside the figure that was reported."""

    suite: tyro.conf.Positional[str]
    """oxe, manirewardbench, or a yaml file of your own."""
    only: tuple[str, ...] = ()
    """Only these datasets of it, by name."""
    estimators: str = "topreward,gvl"
    """Of topreward, log_odds, debiased and gvl, with commas between."""
    controls: bool = True
    """Score the frozen and the reversed video and another episode's instruction too."""
    model: tyro.conf.OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    protocol: tyro.conf.OmitArgPrefixes[ProtocolOptions] = field(default_factory=ProtocolOptions)
    gvl_protocol: str = "auto"
    """gvl, gvl-paper, or a yaml file of your own; auto: gvl, or gvl-demo for the demo checkpoint."""
    num_workers: int = 1
    """Processes, each with a model of its own; they take the GPUs in turn."""
    output: Path = Path("results/suite")
    """A folder; each dataset gets one in it, and a run goes on where it stopped."""
    fail_fast: tyro.conf.FlagCreatePairsOff[bool] = False
    """Stop at the first dataset or episode that fails."""
    debug: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show tracebacks."""

    def of(self, dataset: SuiteDataset, asked: DatasetOptions) -> EvalOptions:
        """The evaluation of one dataset."""
        opened = asked.given()
        for name in ("camera", "instruction"):
            if isinstance(opened.get(name), str):
                opened[name] = (opened[name],)
        if "revision" in opened:
            opened["dataset_revision"] = opened.pop("revision")
        shared = ("estimators", "controls", "model", "protocol", "gvl_protocol", "num_workers", "fail_fast")
        return EvalOptions(
            dataset=dataset.uri,
            **{name: getattr(self, name) for name in shared},
            **opened,
            output=self.output / dataset.name,
        )
