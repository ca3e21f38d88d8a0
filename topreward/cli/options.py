"""Options that commands share, in the words of a command line: which model, which protocol, how it is carried out.

Out come the objects that a command works with; nothing runs here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import tyro
from rich.text import Text

from topreward.cli.terminal import err
from topreward.config import Protocol, load_protocol
from topreward.report.text import showable

if TYPE_CHECKING:
    from topreward.estimators.topreward import TOPReward
    from topreward.jobs.engine import Engine


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
        with err.status(Text(f"loading {showable(self.model)}")):
            return TOPReward.from_pretrained(options.pop("model"), **options)


@dataclass(frozen=True)
class ProtocolOptions:
    """How the video is shown and scored; unset options are the protocol's own."""

    protocol: str = "auto"
    """paper, dense, or a yaml file; auto: dense to score and label, paper to evaluate, demo for the demo model."""
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
class EngineOptions:
    """How many episodes are carried out at once, and where; none of it decides a number."""

    batch_size: int | None = None
    """Most clips (a control is one) that share the model's passes; by default as many as it has use and room for."""
    num_workers: int = 1
    """Processes, each with a model of its own; they take the GPUs in turn."""
    decode_workers: int | None = None
    """Processes per model that decode ahead of it; 0: none, by default as there are cores."""

    shard: str | None = None
    """i/n: this is one of n runs that share --output, each with this option; they share the episodes out."""
    lease_seconds: float = 60.0
    """With --shard: what a run that has been silent for so long was at is another one's to take."""
    engine: Literal["local", "ray"] = "local"
    """ray: the models are actors of Ray Data, on the cluster of RAY_ADDRESS or on this machine."""

    def load(self) -> Engine:
        """Raises ConfigError."""
        from topreward.jobs.engine import Engine, parse_shard

        shard = None if self.shard is None else parse_shard(self.shard, self.lease_seconds)
        return Engine(self.num_workers, self.decode_workers, self.batch_size, shard, self.engine)
