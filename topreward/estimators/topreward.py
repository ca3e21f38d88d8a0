"""TOPReward: log p(` True` | video prefix, instruction), for all prefixes in one pass.

In go a Clip and one or several instructions; out comes a Curve each. The video is seen and prefilled once
(the trunk); all distinct prefixes of all instructions are then scored in one more forward (the branches).
`one_pass=False` runs the slow twin instead: a plain full forward of the model per prefix.

Source: Chen et al., TOPReward, arXiv 2602.19313.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import Any, TypedDict, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topreward import prompts
from topreward.config import Protocol, load_protocol
from topreward.provenance import software
from topreward.qwen import pixels
from topreward.qwen.attention import Kernel
from topreward.qwen.generation import describe
from topreward.qwen.layout import LAYOUT_VERSION, Layout, lay_out, prompt_text
from topreward.qwen.loading import Quantization, load_checkpoint, warn_if_slow
from topreward.qwen.memory import Load, available_bytes, estimate_bytes, require
from topreward.qwen.model import Features, QwenVL
from topreward.sampling import TEMPORAL_PATCH, Schedule, make_schedule
from topreward.types import Clip, Curve, Episode

# Sampled frames decoded, resized and seen together: a long video is never whole in memory.
FRAMES_AT_ONCE = 128

ProtocolLike = str | PathLike[str] | Protocol
Answers = NDArray[np.float64]


class LoadOptions(TypedDict, total=False):
    """The keywords of `TOPReward.from_pretrained`, for those who pass them on."""

    revision: str | None
    device: str | torch.device | dict[str, Any] | None
    dtype: str | torch.dtype | None
    quantization: Quantization
    attn_implementation: str | None
    adapter: str | None
    branch_kernel: Kernel | None
    memory_limit: int | None


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
        `adapter`: a LoRA folder or id. `branch_kernel`: `grouped` or `dense` (by default what suits the device).
        Raises ModelError.
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

    @overload  # a str is a sequence of str, but never meant as one
    def score(  # type: ignore[overload-overlap]
        self, clip: Clip, instruction: str, *, protocol: ProtocolLike = ..., one_pass: bool = ...
    ) -> Curve: ...

    @overload
    def score(
        self, clip: Clip, instruction: Sequence[str], *, protocol: ProtocolLike = ..., one_pass: bool = ...
    ) -> list[Curve]: ...

    @torch.inference_mode()
    def score(
        self,
        clip: Clip,
        instruction: str | Sequence[str],
        *,
        protocol: ProtocolLike = "dense",
        one_pass: bool = True,
    ) -> Curve | list[Curve]:
        """log p(True) of every prefix of a clip.

        `instruction`: one, or several that share the video's pass; then a list of Curves comes back. `protocol`:
        a name (`dense`, `paper`), a yaml file or a Protocol. `one_pass=False`: the slow twin, a plain forward
        per prefix. Returns Curves in nats. Raises PromptError, VideoError, ConfigError, MemoryLimitError.
        """
        protocol = load_protocol(protocol)
        instructions = [instruction] if isinstance(instruction, str) else list(instruction)
        if not instructions:
            return []
        for text in instructions:
            prompts.refuse_special_tokens(text, self.model.special_tokens)
        call = _Call(self, clip, instructions, protocol)
        log_probs = call.one_pass() if one_pass else call.prefix_by_prefix()
        curves = call.curves(log_probs, one_pass)
        return curves[0] if isinstance(instruction, str) else curves

    def score_many(
        self, episodes: Iterable[Episode], *, protocol: ProtocolLike = "dense", one_pass: bool = True
    ) -> Iterator[Curve]:
        """Score episodes one after the other; each Curve is yielded as soon as it is done.

        Curves carry their `episode_id`. The first error ends the iteration; catch it around `next` to go on
        with `score` for the remaining episodes.
        """
        protocol = load_protocol(protocol)
        for episode in episodes:
            curve = self.score(episode.clip(), episode.instruction, protocol=protocol, one_pass=one_pass)
            yield curve.with_values(curve.values, curve.unit, episode_id=episode.id)


class _Call:
    """One clip, its instructions and a protocol, on their way through the model."""

    def __init__(self, estimator: TOPReward, clip: Clip, instructions: list[str], protocol: Protocol) -> None:
        self.model, self.clip, self.instructions, self.protocol = estimator.model, clip, instructions, protocol
        self.memory_limit = estimator.memory_limit
        self.schedule: Schedule = make_schedule(clip.pts_seconds, clip.fps, protocol)
        self.counts = [int(c) for c in self.schedule.distinct_counts]
        if protocol.resize == "square":
            self.size = pixels.square_size()
        else:
            self.size = pixels.aspect_size(clip.height, clip.width, protocol.frame_pixels)
        self.grid = pixels.token_grid(self.size)
        self.opening = protocol.wording.opening
        answers = prompts.answers(protocol.wording, chat_template=protocol.chat_template)
        self.answers = tuple(self.model.answer_id(a) for a in answers)
        self.descriptions: list[str | None] = [None] * len(self.counts)

    # -- the fast way --------------------------------------------------------------------------------

    def one_pass(self) -> Answers:
        """(D, I, 2) log-probabilities of the two answers for each distinct prefix and instruction."""
        layout = self._layout(self._questions())
        load = self._check_memory(layout)
        trunk_features, odd_features = self._see(layout)
        trunk = self.model.prefill(layout, trunk_features)
        if self.protocol.description != "none":
            self.descriptions = self._describe(trunk, odd_features)
            layout = self._layout(self._questions())
        self.branch_tokens = len(layout.branch)
        self.trunk_tokens = len(layout.trunk)
        hidden = self.model.branch(layout, trunk, odd_features, max_tokens=load.branch_chunk)
        return self.model.log_probs(hidden, self.answers)

    def _questions(self) -> list[list[str]]:
        wording, chat = self.protocol.wording, self.protocol.chat_template
        return [
            [prompts.question(wording, i, chat_template=chat, description=described) for i in self.instructions]
            for described in self.descriptions
        ]

    def _layout(self, questions: list[list[str]]) -> Layout:
        return lay_out(
            self.model.encode,
            self.model.vision_tokens,
            opening=self.opening,
            seconds=self.schedule.seconds,
            grid=self.grid,
            counts=self.counts,
            questions=questions,
        )

    def _describe(self, trunk: Any, odd_features: Features) -> list[str | None]:
        """What the model says it sees, per prefix or once for the whole video."""
        request = prompts.description_request(self.protocol.wording)
        layout = self._layout([[request]] * len(self.counts))
        once = self.protocol.description == "once"
        texts = describe(
            self.model,
            layout,
            trunk,
            odd_features,
            max_new_tokens=self.protocol.max_description_tokens,
            only_last=once,
        )
        return [texts[-1]] * len(self.counts) if once else list(texts)

    def _check_memory(self, layout: Layout) -> Load:
        cells = self.grid[0] * self.grid[1]

        def load(frames: int) -> Load:
            share = frames / self.schedule.indices.size
            # A shorter video has as many prefixes, unless every frame or patch is one.
            kept = share if self.protocol.num_prefixes == 0 else 1.0
            odd = round(len(layout.odd_counts) * kept)
            return Load(
                trunk_tokens=round(len(layout.trunk) * share),
                branch_tokens=round(len(layout.branch) * kept),
                visual_tokens=cells * (round(layout.trunk_blocks * share) + odd),
                patches_at_once=min(FRAMES_AT_ONCE, frames + odd) * 2 * cells,
                scored=round(layout.scored.size * kept),
                frame_bytes=min(FRAMES_AT_ONCE, frames) * self.clip.height * self.clip.width * 3,
            )

        limit = self.memory_limit if self.memory_limit is not None else available_bytes(self.model.device)
        require(
            lambda frames: estimate_bytes(self.model.model, load(frames), block_patches=4 * cells),
            int(self.schedule.indices.size),
            limit,
            sampling_fps=self.protocol.sampling_fps,
            source=self.clip.source,
        )
        return load(int(self.schedule.indices.size))

    def _see(self, layout: Layout) -> tuple[Features, Features]:
        """Decode, resize and look, a bounded number of frames at a time."""
        whole = layout.trunk_blocks * TEMPORAL_PATCH
        odd = np.array(layout.odd_counts, dtype=np.int64) - 1  # the sampled frame that each padded block repeats
        seen: list[tuple[Features, Features]] = []
        cells = self.grid[0] * self.grid[1]
        for start in range(0, max(self.counts), FRAMES_AT_ONCE):
            stop = min(start + FRAMES_AT_ONCE, max(self.counts))
            frames = self.clip.frames(self.schedule.indices[start:stop])
            in_trunk = np.arange(start, min(stop, whole)) - start
            repeated = np.repeat(odd[(odd >= start) & (odd < stop)] - start, TEMPORAL_PATCH)
            features = self._see_blocks(frames, np.concatenate([in_trunk, repeated]).reshape(-1, TEMPORAL_PATCH))
            cut = in_trunk.size // TEMPORAL_PATCH * cells
            seen.append((features[slice(0, cut)], features[slice(cut, None)]))
        return Features.join([t for t, _ in seen]), Features.join([o for _, o in seen])

    def _see_blocks(self, frames: NDArray[np.uint8], blocks: NDArray[np.int64]) -> Features:
        """Features of each block; blocks that show the same are seen once (a robot that waits, a frozen video).

        `frames`: (n, H, W, 3) in order of time. `blocks`: (B, 2) the frames of each block.
        """
        new = np.array([i == 0 or not np.array_equal(frames[i], frames[i - 1]) for i in range(len(frames))])
        alike = np.cumsum(new)[blocks] - 1  # frames that follow each other without change share a number
        _, first, place = np.unique(alike, axis=0, return_index=True, return_inverse=True)
        order = np.sort(first)  # as they come: a video without repetition is seen as it is
        shown = self._pixels(frames[new])[alike[order].ravel()]
        features = self.model.see(pixels.to_patches(shown), self.grid)
        if order.size == len(blocks):
            return features
        cells = self.grid[0] * self.grid[1]
        kept = np.searchsorted(order, first[place.ravel()])
        rows = torch.from_numpy((kept[:, None] * cells + np.arange(cells)).ravel()).to(features.embeds.device)
        return Features(features.embeds[rows], [level[rows] for level in features.deepstack])

    def _pixels(self, frames: NDArray[np.uint8]) -> Tensor:
        if self.protocol.resize == "square":
            return pixels.square_pixels(frames, self.model.device)
        return pixels.aspect_pixels(frames, self.size, self.model.device)

    # -- the slow twin -------------------------------------------------------------------------------

    def prefix_by_prefix(self) -> Answers:
        """The same numbers from a plain full forward per prefix and instruction."""
        out = np.empty((len(self.counts), len(self.instructions), 2))
        if self.protocol.description != "none":
            self.descriptions = self._describe_plainly()
        for row, (count, questions) in enumerate(zip(self.counts, self._questions(), strict=True)):
            patches = self._prefix_patches(count)
            for column, question in enumerate(questions):
                prompt = prompt_text(self.opening, self.schedule.seconds[:count], self.grid, question)
                logits = self.model.plain_forward(prompt, patches, self.grid)
                out[row, column] = logits.log_softmax(-1)[list(self.answers)].cpu().numpy()
        self.trunk_tokens = self.branch_tokens = 0
        return out

    def _prefix_patches(self, count: int) -> Tensor:
        frames = self.clip.frames(self.schedule.indices[:count])
        if count % TEMPORAL_PATCH:
            frames = np.concatenate([frames, frames[-1:]])
        return pixels.to_patches(self._pixels(frames))

    def _describe_plainly(self) -> list[str | None]:
        request = prompts.description_request(self.protocol.wording)
        once = self.protocol.description == "once"
        texts: list[str | None] = []
        for count in self.counts[-1:] if once else self.counts:
            prompt = prompt_text(self.opening, self.schedule.seconds[:count], self.grid, request)
            patches = self._prefix_patches(count)
            texts.append(
                self.model.plain_generate(
                    prompt, patches, self.grid, max_new_tokens=self.protocol.max_description_tokens
                )
            )
        return texts * len(self.counts) if once else texts

    # -- the result ----------------------------------------------------------------------------------

    def curves(self, log_probs: Answers, one_pass: bool) -> list[Curve]:
        """(D, I, 2) → one Curve per instruction; prefixes that show the same frames share their value."""
        rows = np.searchsorted(self.counts, self.schedule.counts)
        times = self.clip.pts_seconds[self.schedule.prefix_lengths - 1]
        notes = self._notes()
        provenance = self._provenance(one_pass)
        return [
            Curve(
                instruction=text,
                prefix_lengths=self.schedule.prefix_lengths,
                times=times,
                values=log_probs[rows, column, 0],
                unit="nats",
                num_frames=self.clip.num_frames,
                log_prob_true=log_probs[rows, column, 0],
                log_prob_false=log_probs[rows, column, 1],
                notes=notes,
                provenance=provenance,
            )
            for column, text in enumerate(self.instructions)
        ]

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self.protocol.resize == "square" and self.schedule.indices.size > pixels.SQUARE_PARITY_FRAMES:
            notes.append(
                f"{self.schedule.indices.size} sampled frames: beyond {pixels.SQUARE_PARITY_FRAMES} the original "
                "shrinks the frames, here they stay 256x256; parity with it is not claimed"
            )
        if slow := warn_if_slow(self.model.provenance):
            notes.append(slow)
        return tuple(notes)

    def _provenance(self, one_pass: bool) -> dict[str, Any]:
        kernels = self.model.kernels if one_pass else self.model.stock_kernels
        return {
            "estimator": "topreward",
            **self.model.provenance,
            "protocol": self.protocol.model_dump(),
            "layout_version": LAYOUT_VERSION,
            "one_pass": one_pass,
            "kernels": kernels,
            "video": {
                "source": self.clip.source,
                "fps": self.clip.fps,
                "height": self.clip.height,
                "width": self.clip.width,
                "resized": list(self.size),
                "sampled_indices": self.schedule.indices.tolist(),
            },
            "tokens": {"trunk": self.trunk_tokens, "branch": self.branch_tokens},
            "descriptions": [d for d in self.descriptions if d is not None],
            "software": software(),
        }
