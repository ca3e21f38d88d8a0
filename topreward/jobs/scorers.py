"""Who scores: clips and instructions in, Curves out.

A Scorer hides which method runs, how it shares work between instructions, and on which device. `ModelSetup`
loads those that this package has; it travels to worker processes by pickle, models do not. Knows no controls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from topreward.config import Protocol as ScoringProtocol
from topreward.errors import ConfigError
from topreward.estimators.gvl.prompts import even_frames
from topreward.estimators.gvl.protocol import GVLProtocol
from topreward.jobs.frames import Recipe
from topreward.jobs.identity import model_files
from topreward.sampling import make_schedule
from topreward.types import Clip, Curve, Episode
from topreward.video.ready import Resize

if TYPE_CHECKING:
    from topreward.estimators.gvl import GVL
    from topreward.estimators.topreward import TOPReward
    from topreward.estimators.topreward.together import Outcome, Shown


class Scorer(Protocol):
    """Anything that makes Curves.

    More is welcome, and not asked for. `score_together(shown, *, episode_id)`: cheaper on several clips of one episode,
    each with its instructions; a list of Curves for each comes out, as `score` would make them. `score_all(shown, *,
    batch_size, clock)`: the same for clips of whatever episodes, as `together.score_together` has it; with it goes
    `share(clip)`, about which part of a full pass a clip is. `recipe()`: a `frames.Recipe` that pickles, so that
    another process may decode and resize ahead of the scorer.
    """

    def frames(self, clip: Clip) -> NDArray[np.int64]:
        """Raw frames that `score` will ask the clip for."""

    def score(self, clip: Clip, instructions: Sequence[str], *, episode_id: str) -> list[Curve]:
        """One Curve per instruction. All curves of clips with the same times have the same prefixes."""


LoadScorers = Callable[[int, int], Mapping[str, Scorer]]
"""(worker, workers) → scorers by estimator. Called once in each process; must pickle for more than one."""


@dataclass(frozen=True)
class TOPRewardScorer:
    """log p(True); several instructions share the video's pass."""

    estimator: TOPReward
    protocol: ScoringProtocol

    def frames(self, clip: Clip) -> NDArray[np.int64]:
        return sampled(self.protocol, clip)

    def recipe(self) -> Recipe:
        return Recipe(partial(sampled, self.protocol), resizing(self.protocol, self.estimator.model.device.type))

    def score(self, clip: Clip, instructions: Sequence[str], *, episode_id: str) -> list[Curve]:
        return self.estimator.score(clip, list(instructions), protocol=self.protocol)

    def score_all(
        self, shown: Shown, *, batch_size: int | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> list[Outcome]:
        return self.estimator.score_together(shown, protocol=self.protocol, batch_size=batch_size, clock=clock)

    def share(self, clip: Clip) -> float:
        return self.estimator.share_of_pass(clip, self.protocol)


def sampled(protocol: ScoringProtocol, clip: Clip) -> NDArray[np.int64]:
    """Raw frames that a protocol shows."""
    return make_schedule(clip.pts_seconds, clip.fps, protocol).indices


def evenly(count: int, clip: Clip) -> NDArray[np.int64]:
    """Raw frames that GVL shows: `count` evenly spread ones, and the first as an anchor."""
    return np.union1d([0], even_frames(clip.num_frames, count))


def resizing(protocol: ScoringProtocol | GVLProtocol, device: str) -> Callable[[Clip], Resize] | None:
    """How frames may be resized ahead on the CPU: only where that is where they would be resized anyway.

    On a GPU, `keep_aspect` is the GPU's own arithmetic: it gets the frames as decoded.
    """
    if device != "cpu" and protocol.resize != "square":
        return None
    return partial(_resize, protocol)


def _resize(protocol: ScoringProtocol | GVLProtocol, clip: Clip) -> Resize:
    from topreward.qwen.pixels import resize_of

    return resize_of(clip, protocol.resize, protocol.frame_pixels)


@dataclass(frozen=True)
class GVLScorer:
    """Percentages in words; all that is asked about an episode is answered in one batch, which sees a frame once."""

    estimator: GVL
    protocol: GVLProtocol
    examples: tuple[Episode, ...] = ()
    """Shown in context, with their percentages."""

    def frames(self, clip: Clip) -> NDArray[np.int64]:
        return evenly(self.protocol.num_frames, clip)

    def recipe(self) -> Recipe:
        return Recipe(
            partial(evenly, self.protocol.num_frames), resizing(self.protocol, self.estimator.model.device.type)
        )

    def score(self, clip: Clip, instructions: Sequence[str], *, episode_id: str) -> list[Curve]:
        return self.score_together([(clip, instructions)], episode_id=episode_id)[0]

    def score_together(self, shown: Sequence[tuple[Clip, Sequence[str]]], *, episode_id: str) -> list[list[Curve]]:
        # As episodes, because the order in which GVL shows frames is drawn from the id: the controls' is the same.
        asked = [Episode(episode_id, text, partial(_itself, clip)) for clip, texts in shown for text in texts]
        curves = self.estimator.score_many(asked, protocol=self.protocol, batch_size=len(asked), examples=self.examples)
        return [list(islice(curves, len(texts))) for _, texts in shown]


def _itself(clip: Clip) -> Clip:
    return clip


@dataclass(frozen=True)
class ModelSetup:
    """One checkpoint, and the estimators that share it."""

    bases: tuple[str, ...]
    """Of `topreward` and `gvl`."""
    protocol: ScoringProtocol
    gvl_protocol: GVLProtocol
    options: Mapping[str, Any] = field(default_factory=dict)
    """`TOPReward.from_pretrained`'s, the model's name among them as `name`."""
    gvl_examples: Callable[[], Sequence[Episode]] | None = None
    """Opens the episodes that GVL is shown in context; must pickle for more than one worker."""

    def __call__(self, worker: int = 0, workers: int = 1) -> dict[str, Scorer]:
        """Load the model for one of `workers` processes, and see the in-context episodes.

        Raises ModelError; ConfigError, DatasetError and VideoError for the in-context episodes.
        """
        import torch

        from topreward.estimators.topreward import TOPReward

        options = dict(self.options)
        options["device"] = device_of(worker, workers, options.get("device"), torch.cuda.device_count())
        if workers > 1:  # processes that each start a thread per core only wait for each other
            torch.set_num_threads(max(1, torch.get_num_threads() // workers))
        estimator = TOPReward.from_pretrained(**options)
        scorers: dict[str, Scorer] = {}
        for base in self.bases:
            if base == "gvl":
                from topreward.estimators.gvl import GVL

                gvl = GVL.sharing(estimator)
                examples = tuple(self.gvl_examples()) if self.gvl_examples else ()
                gvl.prepare(self.gvl_protocol, examples)  # what is wrong with them is told before any episode is scored
                scorers[base] = GVLScorer(gvl, self.gvl_protocol, examples)
            else:
                scorers[base] = TOPRewardScorer(estimator, self.protocol)
        return scorers

    def settings(self) -> dict[str, Any]:
        """What decides the numbers, as JSON has it. Where the model runs does not belong to it."""
        model = {key: value for key, value in self.options.items() if key not in ("device", "memory_limit")}
        settings: dict[str, Any] = {"model": model}
        for option, key in (("name", "model_files"), ("adapter", "adapter_files")):
            if files := model_files(self.options.get(option)):
                settings[key] = files
        if "topreward" in self.bases:
            settings["protocol"] = self.protocol.model_dump()
        if "gvl" in self.bases:
            settings["gvl_protocol"] = self.gvl_protocol.model_dump()
        return settings


def device_of(worker: int, workers: int, device: str | None, gpus: int) -> str | None:
    """Which device a worker loads on: `cuda` (or none named) spreads over the GPUs, one after the other.

    Raises ConfigError where one model over all devices ("auto") is asked for several times.
    """
    if workers == 1:
        return device
    if device == "auto":
        raise ConfigError(f"device 'auto' spreads one model over all devices; {workers} workers need one each")
    if device in (None, "cuda") and gpus:
        return f"cuda:{worker % gpus}"
    return device
