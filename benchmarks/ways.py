"""One clip under one protocol, and every way to make its values.

In go a model, a Clip, instructions and a protocol; out come (D, I, 2) log-probabilities of the two answers, from
the same prepared patches:

    floor      one forward over the video and one question, with the kernels of our trunk pass
    ours       trunk pass and one branch pass over all prefixes
    append     append-and-crop: one cache grown prefix by prefix, cropped after each answer
    alone      a pass of its own for each prefix, vision included, with our kernels
    trunk      the decoder alone: a plain forward over the trunk, nothing kept
    decoder    the decoder alone: our passes, from what the tower has seen
    recompute  a plain forward of the stock model for each prefix, vision included: the slow twin

`append` takes its tokens and their places from a layout that is ready before the clock starts; floor, ours and alone
lay out anew in every call, as the public call must. Knows no clock.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from decoding import in_memory
from topreward.config import Protocol
from topreward.estimators.topreward.call import Call
from topreward.qwen import pixels
from topreward.qwen.layout import Layout, Tokens, lay_out, prompt_text
from topreward.qwen.memory import Load
from topreward.qwen.model import Features, QwenVL
from topreward.sampling import TEMPORAL_PATCH
from topreward.types import Clip

Values = NDArray[np.float64]


class Workload:
    """A clip whose patches are ready to be scored in every way."""

    def __init__(self, model: QwenVL, clip: Clip, instructions: list[str], protocol: Protocol) -> None:
        self.call = call = Call(model, clip, instructions, protocol)
        self.model, self.clip, self.protocol, self.schedule = model, clip, protocol, call.schedule
        self.counts, self.answers, self.layout = call.counts, call.answers, call.layout
        self.questions = call.questions()[0]
        self.question = self.questions[0]
        self.held = in_memory(clip, self.schedule.indices)
        """The clip as the public call gets it: decoding is another benchmark's business."""
        self.frames = self.held.frames(self.schedule.indices[: self.counts[-1]])
        shown = call.pixels(self.frames)
        self.block = 4 * call.cells
        """Patches in a block."""
        whole = self.layout.trunk_blocks * TEMPORAL_PATCH
        self.patches = pixels.to_patches(shown[:whole])
        odd = np.array(self.layout.odd_counts, dtype=np.int64) - 1
        self.odd_patches = pixels.to_patches(shown[np.repeat(odd, TEMPORAL_PATCH)]) if odd.size else self.patches[:0]

    def layout_of_floor(self) -> Layout:
        """The whole video and one question."""
        return self._lay_out(self.counts[-1:], self.questions[:1])

    def layouts_alone(self) -> list[Layout]:
        """One per prefix."""
        return [self._lay_out([count]) for count in self.counts]

    def floor(self) -> Values:
        """(1, 1, 2): in one pass through the decoder; with a second one for the question it would be no floor."""
        layout = self.layout_of_floor()
        features = self.model.see(self._patches(self.counts[-1:]), self.call.grid)
        hidden = self.model.decode(_joined(layout.trunk, layout.branch), features)
        return self.model.log_probs(hidden[:, -1:], self.answers)

    def ours(self) -> Values:
        return self._pass(self.counts)

    @cached_property
    def seen(self) -> tuple[Features, Features]:
        """What the tower sees of the trunk and of the padded blocks, looked at once."""
        features = self.model.see(self._patches(self.counts), self.call.grid)
        cut = self.layout.trunk_blocks * self.call.cells
        return features[slice(0, cut)], features[slice(cut, None)]

    def trunk(self) -> Tensor:
        """(1, L, hidden)"""
        return self.model.decode(self.layout.trunk, self.seen[0], use_cache=False)

    def decoder(self) -> Values:
        hidden = self.model.ask(self.layout, *self.seen, max_tokens=self._chunk(self.layout))
        return self.model.log_probs(hidden, self.answers)

    def alone(self) -> Values:
        return np.concatenate([self._pass([count]) for count in self.counts])

    def recompute(self) -> Values:
        out = np.empty((len(self.counts), len(self.questions), 2))
        for row, count in enumerate(self.counts):
            seconds = self.schedule.seconds[:count]
            patches = self._patches([count])
            for column, question in enumerate(self.questions):
                prompt = prompt_text(self.call.opening, seconds, self.call.grid, question)
                logits = self.model.plain_forward(prompt, patches, self.call.grid)
                out[row, column] = logits.log_softmax(-1)[list(self.answers)].double().cpu().numpy()
        return out

    def append(self) -> Values:
        """Grow one cache block by block; after each answer crop the branch off again. One instruction only."""
        assert len(self.questions) == 1, "a plain causal pass would let one question see another"
        layout, model, out = self.layout, self.model, []
        cache, done, seen = DynamicCache(), 0, 0
        for branch, count in zip(layout.branches, self.counts, strict=True):
            blocks = count // TEMPORAL_PATCH - seen
            if blocks:
                patches = self.patches[seen * self.block : (seen + blocks) * self.block]
                self._append(cache, layout.trunk[done : branch.trunk_length], model.see(patches, self.call.grid))
                done, seen = branch.trunk_length, seen + blocks
            padded = model.see(self._odd([count]), self.call.grid) if count % TEMPORAL_PATCH else None
            hidden = self._append(cache, layout.branch[branch.start : branch.stop], padded)
            out.append(model.log_probs(hidden[:, -1], self.answers))
            if done:
                cache.crop(-len(branch))  # newest transformers takes only negative lengths
            else:
                cache = DynamicCache()
        return np.stack(out)

    def _append(self, cache: Any, tokens: Tokens, features: Features | None) -> Tensor:
        past = cache.get_seq_length()
        return self.model.decode(tokens, features, cache=cache, past=past)

    def _pass(self, counts: list[int]) -> Values:
        layout = self._lay_out(counts)
        features = self.model.see(self._patches(counts), self.call.grid)
        cut = layout.trunk_blocks * self.call.cells
        seen = features[slice(0, cut)], features[slice(cut, None)]
        hidden = self.model.ask(layout, *seen, max_tokens=self._chunk(layout))
        return self.model.log_probs(hidden, self.answers)

    def _chunk(self, layout: Layout) -> int:
        return Load(len(layout.trunk), len(layout.branch), 0, 0, 0, mask_copies=self.model.mask_copies).branch_chunk

    def _lay_out(self, counts: list[int], questions: list[str] | None = None) -> Layout:
        return lay_out(
            self.model.encode,
            self.model.vision_tokens,
            opening=self.call.opening,
            seconds=self.schedule.seconds,
            grid=self.call.grid,
            counts=counts,
            questions=[questions or self.questions] * len(counts),
        )

    def _patches(self, counts: list[int]) -> Tensor:
        """Those of the trunk of these prefixes, then those of their padded blocks."""
        trunk = self.patches[: max(counts) // TEMPORAL_PATCH * self.block]
        odd = self._odd(counts)
        return torch.cat([trunk, odd]) if len(odd) else trunk

    def _odd(self, counts: list[int]) -> Tensor:
        rows = [self.layout.odd_counts.index(count) * self.block for count in counts if count % TEMPORAL_PATCH]
        if len(rows) == len(self.layout.odd_counts):
            return self.odd_patches
        return torch.cat([self.odd_patches[:0], *(self.odd_patches[row : row + self.block] for row in rows)])


def _joined(first: Tokens, second: Tokens) -> Tokens:
    return Tokens(
        np.concatenate([first.ids, second.ids], axis=-1),
        np.concatenate([first.positions, second.positions], axis=-1),
        np.concatenate([first.visual, second.visual], axis=-1),
    )
