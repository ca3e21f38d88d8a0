"""TOPReward: log p(` True` | video prefix, instruction), for all prefixes in one pass.

In go a Clip and one or several instructions; out comes a Curve each. The video is seen and prefilled once
(the trunk); all distinct prefixes of all instructions are then scored in one more forward (the branches).
`one_pass=False` runs the slow twin instead: a plain full forward of the model per prefix.

Source: Chen et al., TOPReward, arXiv 2602.19313.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from typing import Any, cast, overload

import torch

from topreward.config import Protocol, load_protocol
from topreward.errors import ConfigError
from topreward.estimators.topreward.call import Call
from topreward.estimators.topreward.one_pass import Batch, in_batches
from topreward.estimators.topreward.pool import StreamPool
from topreward.estimators.topreward.slow_twin import prefix_by_prefix
from topreward.estimators.topreward.stream import Stream
from topreward.estimators.topreward.stream_state import WhenFull
from topreward.estimators.topreward.together import Outcome, Shown, score_together, share_of_pass
from topreward.qwen.attention import Kernel
from topreward.qwen.loading import Quantization, load_checkpoint
from topreward.qwen.model import QwenVL
from topreward.qwen.pixels import resize_of, token_grid
from topreward.types import Clip, Curve, Episode

ProtocolLike = str | PathLike[str] | Protocol


class TOPReward:
    """Reads progress out of a local Qwen3-VL. Made by `TOPReward.from_pretrained`."""

    def __init__(self, model: QwenVL, *, memory_limit: int | None = None) -> None:
        """`memory_limit`: bytes a call may take beyond the weights; by default what the device has free."""
        self.model = model
        self.memory_limit = memory_limit

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str],
        *,
        revision: str | None = None,
        device: str | torch.device | dict[str, Any] | None = None,
        dtype: str | torch.dtype | None = None,
        quantization: Quantization = "none",
        attn_implementation: str | None = None,
        adapter: str | None = None,
        branch_kernel: Kernel | None = None,
        memory_limit: int | None = None,
    ) -> TOPReward:
        """Load a checkpoint: an alias such as `qwen3-vl` or `qwen3-vl-2b`, a hub id, or a folder.

        `device`, `dtype`, `attn_implementation`, `revision`: as transformers has them; by default a GPU in the
        checkpoint's dtype where there is one, else the CPU in float32. `quantization`: `int8` or `nf4`.
        `adapter`: a LoRA folder or id. `branch_kernel`: `grouped`, `dense` or `folded` (by default what suits the
        device). Raises ModelError.
        """
        checkpoint = load_checkpoint(
            str(name),
            revision=revision,
            device=device,
            dtype=dtype,
            quantization=quantization,
            attn_implementation=attn_implementation,
            adapter=adapter,
        )
        return cls(QwenVL(checkpoint, kernel=branch_kernel), memory_limit=memory_limit)

    @property
    def default_protocol(self) -> str:
        """What `score` takes where nothing is said: the demo checkpoint has only ever seen its own."""
        return "demo" if self.model.provenance.get("model") == "demo" else "dense"

    @overload  # a str is a sequence of str, but never meant as one
    def score(  # type: ignore[overload-overlap]
        self, clip: Clip, instruction: str, *, protocol: ProtocolLike | None = ..., one_pass: bool = ...
    ) -> Curve: ...

    @overload
    def score(
        self, clip: Clip, instruction: Sequence[str], *, protocol: ProtocolLike | None = ..., one_pass: bool = ...
    ) -> list[Curve]: ...

    @torch.inference_mode()
    def score(
        self,
        clip: Clip,
        instruction: str | Sequence[str],
        *,
        protocol: ProtocolLike | None = None,
        one_pass: bool = True,
    ) -> Curve | list[Curve]:
        """log p(True) of every prefix of a clip.

        `instruction`: one, or several that share the video's pass; then a list of Curves comes back. `protocol`:
        a name (`dense`, `paper`), a yaml file or a Protocol; by default `dense`, for the demo checkpoint `demo`.
        `one_pass=False`: the slow twin, a plain forward
        per prefix. Returns Curves in nats. Raises PromptError, VideoError, ConfigError, MemoryLimitError.
        """
        protocol = load_protocol(protocol or self.default_protocol)
        instructions = list(instruction) if isinstance(instruction, list | tuple) else [cast(str, instruction)]
        if not instructions:
            return []
        call = Call(self.model, clip, instructions, protocol)
        if one_pass:
            batch = Batch(self.model, self.memory_limit)
            batch.add(call)
            [answers] = batch.answers()
        else:
            answers = prefix_by_prefix(call)
        curves = call.curves(answers, one_pass=one_pass)
        return curves if isinstance(instruction, list | tuple) else curves[0]

    def stream(
        self,
        instruction: str | Sequence[str],
        *,
        fps: float,
        protocol: ProtocolLike | None = None,
        max_blocks: int = 256,
        when_full: WhenFull = "refuse",
    ) -> Stream:
        """Values while a video is filmed: `push` its frames, one at a time.

        `fps`: the camera's nominal frames/s. `max_blocks`: temporal patches of two sampled frames that are kept;
        `when_full`: then `refuse` further ones, `restart` with a new video, or `thin` out what is there to every other
        frame and sample half as many from then on. Prefixes are at every sampled frame, whatever `num_prefixes` says.
        Raises ConfigError where the protocol cannot be streamed, and PromptError.
        """
        return Stream(
            self.model,
            instruction,
            fps=fps,
            protocol=load_protocol(protocol or self.default_protocol),
            max_blocks=max_blocks,
            when_full=when_full,
            memory_limit=self.memory_limit,
        )

    def stream_pool(
        self,
        instructions: Sequence[str | Sequence[str]],
        *,
        fps: float,
        protocol: ProtocolLike | None = None,
        max_blocks: int = 256,
        when_full: WhenFull = "refuse",
    ) -> StreamPool:
        """A stream for each of several environments that step together and share the passes; see `stream`.

        `instructions`: for each environment, one or several.
        """
        return StreamPool(
            self.model,
            instructions,
            fps=fps,
            protocol=load_protocol(protocol or self.default_protocol),
            max_blocks=max_blocks,
            when_full=when_full,
            memory_limit=self.memory_limit,
        )

    def score_together(
        self,
        shown: Shown,
        *,
        protocol: ProtocolLike | None = None,
        batch_size: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> list[Outcome]:
        """Score clips with their instructions in as few passes as fit; each has its Curves or its own error.

        `batch_size`: most clips in a pass, None for as many as keep the device busy; see `together.score_together`.
        """
        chosen = load_protocol(protocol or self.default_protocol)
        return score_together(
            self.model, shown, chosen, batch_size=batch_size, memory_limit=self.memory_limit, clock=clock
        )

    def share_of_pass(self, clip: Clip, protocol: ProtocolLike | None = None) -> float:
        """About which part of a pass that keeps the device busy a clip is. Raises VideoError."""
        chosen = load_protocol(protocol or self.default_protocol)
        resize = resize_of(clip, chosen.resize, chosen.frame_pixels)
        height, width = token_grid((resize.height, resize.width))
        return share_of_pass(clip, height * width, chosen, self.model.device.type)

    def score_many(
        self,
        episodes: Iterable[Episode],
        *,
        protocol: ProtocolLike | None = None,
        batch_size: int = 1,
        one_pass: bool = True,
    ) -> Iterator[Curve]:
        """Score episodes, `batch_size` at a time in the same passes; Curves come in the episodes' order.

        Several short episodes together keep a GPU busy that one alone cannot; their values are those that they have
        alone. A batch is cut short where more would not fit into memory; a protocol that describes takes one at a
        time, and so does the slow twin. Curves carry their `episode_id`. The first error ends the iteration, after
        the Curves of all episodes before it and before any after it is opened: go on with the episodes after it.
        Raises what `score` raises.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, want at least 1")
        protocol = load_protocol(protocol or self.default_protocol)
        if not one_pass:
            for episode in episodes:
                curve = self.score(episode.clip(), episode.instruction, protocol=protocol, one_pass=False)
                yield curve.with_values(curve.values, curve.unit, episode_id=episode.id)
            return
        ids: list[str] = []

        def calls() -> Iterator[Call]:
            for episode in episodes:
                call = Call(self.model, episode.clip(), [episode.instruction], protocol)
                ids.append(episode.id)
                yield call

        scored = in_batches(calls(), self.model, batch_size=batch_size, memory_limit=self.memory_limit)
        for position, (call, answers, packed) in enumerate(scored):
            [curve] = call.curves(answers, one_pass=True, packed=packed)
            yield curve.with_values(curve.values, curve.unit, episode_id=ids[position])
