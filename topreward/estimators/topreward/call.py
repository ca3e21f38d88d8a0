"""One clip, its instructions and a protocol: what is shown and asked, and the Curves that the answers make.

In go a clip, instructions and a protocol; out come its tokens and its pixels, and at the end its Curves. Knows the
model's tokenizer and names, but runs nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from topreward.config import Protocol
from topreward.estimators.shared.texts import refuse_special_tokens
from topreward.estimators.topreward import prompts
from topreward.provenance import software
from topreward.qwen import pixels
from topreward.qwen.layout import LAYOUT_VERSION, Layout, lay_out
from topreward.qwen.loading import HYBRIDS_ARE_UNPROVEN, warn_if_slow
from topreward.qwen.model import QwenVL
from topreward.sampling import Schedule, make_schedule
from topreward.types import Clip, Curve

Answers = NDArray[np.float64]
"""(D, I, 2) log-probabilities of the two answers for each distinct prefix and instruction, nats."""


class Call:
    """One clip, its instructions and a protocol, on their way through the model."""

    def __init__(self, model: QwenVL, clip: Clip, instructions: list[str], protocol: Protocol) -> None:
        """Raises PromptError, VideoError, ConfigError, and ModelError where the model cannot describe."""
        if protocol.description != "none":
            model.refuse_to_write("descriptions", leave_out="description: none in the protocol")
        for text in instructions:
            refuse_special_tokens(text, model.special_tokens)
        self.model, self.clip, self.instructions, self.protocol = model, clip, instructions, protocol
        self.schedule: Schedule = make_schedule(clip.pts_seconds, clip.fps, protocol)
        self.counts = [int(c) for c in self.schedule.distinct_counts]
        self.resize = pixels.resize_of(clip, protocol.resize, protocol.frame_pixels)
        self.size = (self.resize.height, self.resize.width)
        self.grid = pixels.token_grid(self.size)
        self.cells = self.grid[0] * self.grid[1]
        self.opening = protocol.wording.opening
        answers = prompts.answers(protocol.wording, chat_template=protocol.chat_template)
        self.answers = tuple(model.answer_id(a) for a in answers)
        self.descriptions: list[str | None] = [None] * len(self.counts)
        self.layout = self.lay_out(self.questions())

    @property
    def describes(self) -> bool:
        """Whether the model describes the video before it is asked."""
        return self.protocol.description != "none"

    def questions(self) -> list[list[str]]:
        """For each distinct prefix, what follows the video for each instruction."""
        wording, chat, thinks = self.protocol.wording, self.protocol.chat_template, self.model.closes_thinking
        return [
            [
                prompts.question(wording, i, chat_template=chat, description=described, thinks=thinks)
                for i in self.instructions
            ]
            for described in self.descriptions
        ]

    def lay_out(self, questions: list[list[str]]) -> Layout:
        """The video and its prefixes as tokens, with these questions."""
        return lay_out(
            self.model.encode,
            self.model.vision_tokens,
            opening=self.opening,
            seconds=self.schedule.seconds,
            grid=self.grid,
            counts=self.counts,
            questions=questions,
        )

    def described(self, descriptions: list[str | None]) -> None:
        """Ask with these descriptions, one per distinct prefix."""
        self.descriptions = descriptions
        self.layout = self.lay_out(self.questions())

    def frames(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Some raw frames, for `pixels`: as decoded, or resized where that has been done ahead. Raises VideoError."""
        return pixels.frames_of(self.clip, indices, self.resize)

    def pixels(self, frames: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) of `frames` → (N, 3, h, w) uint8 of this video's one size, on the model's device."""
        return pixels.shown(self.clip, frames, self.resize, self.model.device)

    def curves(self, answers: Answers, *, one_pass: bool, packed: int = 1) -> list[Curve]:
        """One Curve per instruction; prefixes that show the same frames share their value.

        `packed`: clips that shared the passes.
        """
        rows = np.searchsorted(self.counts, self.schedule.counts)
        times = self.clip.pts_seconds[self.schedule.prefix_lengths - 1]
        notes = self._notes()
        provenance = self._provenance(one_pass, packed)
        return [
            Curve(
                instruction=text,
                prefix_lengths=self.schedule.prefix_lengths,
                times=times,
                values=answers[rows, column, 0],
                unit="nats",
                num_frames=self.clip.num_frames,
                log_prob_true=answers[rows, column, 0],
                log_prob_false=answers[rows, column, 1],
                notes=notes,
                provenance=provenance,
            )
            for column, text in enumerate(self.instructions)
        ]

    def _notes(self) -> tuple[str, ...]:
        return (*self.clip.notes, *notes_on(self.model, self.protocol, self.schedule.indices.size))

    def _provenance(self, one_pass: bool, packed: int) -> dict[str, Any]:
        layout = self.layout
        return {
            "estimator": "topreward",
            **self.model.provenance,
            "protocol": self.protocol.model_dump(),
            "layout_version": LAYOUT_VERSION,
            **({"thinking": "closed"} if self.protocol.chat_template and self.model.closes_thinking else {}),
            "one_pass": one_pass,
            "kernels": self.model.kernels if one_pass else self.model.stock_kernels,
            "packed": packed,
            "video": {
                "source": self.clip.source,
                "fps": self.clip.fps,
                "height": self.clip.height,
                "width": self.clip.width,
                "resized": list(self.size),
                "sampled_indices": self.schedule.indices.tolist(),
            },
            "tokens": {"trunk": len(layout.trunk) * one_pass, "branch": len(layout.branch) * one_pass},
            "descriptions": [d for d in self.descriptions if d is not None],
            "software": software(),
        }


def notes_on(model: QwenVL, protocol: Protocol, frames: int) -> list[str]:
    """What a careful reader must know about values of so many sampled frames, whatever the video."""
    notes = []
    if protocol.resize == "square" and frames > pixels.SQUARE_PARITY_FRAMES:
        notes.append(
            f"{frames} sampled frames: beyond {pixels.SQUARE_PARITY_FRAMES} the original "
            "shrinks the frames, here they stay 256x256; parity with it is not claimed"
        )
    if slow := warn_if_slow(model.provenance):
        notes.append(slow)
    if model.hybrid:
        notes.append(HYBRIDS_ARE_UNPROVEN)
    return notes
