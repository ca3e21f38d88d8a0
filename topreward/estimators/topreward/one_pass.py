"""The one pass: a clip, or several short ones, are seen and prefilled once, then all prefixes scored at once.

In go Calls; out come their answers, in order. The passes of a Batch cost the device two launches of the model,
however many clips it holds; most often it holds one. Every clip's values are those that it has alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
import torch

from topreward.estimators.shared.frames import FRAMES_AT_ONCE
from topreward.estimators.topreward import prompts
from topreward.estimators.topreward.call import Answers, Call
from topreward.estimators.topreward.sight import Seen, Sight
from topreward.qwen.delta import branch_points, longest_stretch
from topreward.qwen.generation import describe
from topreward.qwen.memory import USABLE, Load, available_bytes, estimate_bytes, fitting_points, packed, require
from topreward.qwen.model import Features, QwenVL, Trunk
from topreward.qwen.packing import pack


class Batch:
    """Clips that share the passes."""

    def __init__(self, model: QwenVL, memory_limit: int | None = None) -> None:
        """`memory_limit`: bytes that all may take beyond the weights; by default what the device has free."""
        self.model = model
        self.limit = available_bytes(model.device) if memory_limit is None else memory_limit
        self.calls: list[Call] = []
        self._seen: list[Seen] = []
        self._sight = Sight(model)

    def has_room_for(self, call: Call) -> bool:
        """Whether it can join those that are here: it fits into memory, and the passes are as many."""
        first = self.calls[0]
        if call.describes or first.describes or len(call.instructions) != len(first.instructions):
            return False
        load = self._load([*self.calls, call])
        block = 4 * max(c.cells for c in (*self.calls, call))
        fits = estimate_bytes(self.model.model, load, block_patches=block) <= self.limit * USABLE
        return fits and load.branch_tokens <= load.branch_chunk

    @torch.inference_mode()
    def add(self, call: Call) -> None:
        """Take a clip in and decode it. Raises VideoError, or MemoryLimitError where it is first and does not fit."""
        if not self.calls:
            _require_memory(call, self.limit)
        self._seen.append(self._sight.look(call))
        self.calls.append(call)

    @torch.inference_mode()
    def answers(self) -> list[Answers]:
        """Run the passes: the answers of each clip."""
        self._sight.finish()
        seen, self._seen = self._seen, []
        trunk_features = Features.join([part for clip in seen for part in clip.trunk_parts])
        odd_features = Features.join([part for clip in seen for part in clip.odd_parts])
        del seen
        chunk = points = None
        if len(self.calls) == 1:
            chunk, points = self._load(self.calls).branch_chunk, _points_at_once(self.calls[0], self.limit)
            if self.calls[0].describes:
                trunk = self.model.prefill(pack([call.layout for call in self.calls]), trunk_features)
                self.calls[0].described(_descriptions(self.calls[0], trunk, odd_features))
        passes = pack([call.layout for call in self.calls])
        hidden = self.model.ask(passes, trunk_features, odd_features, max_tokens=chunk, points=points)
        answers = self.model.log_probs(hidden, self.calls[0].answers)
        return np.split(answers, np.cumsum([len(call.counts) for call in self.calls])[:-1])

    @staticmethod
    def _load(calls: list[Call]) -> Load:
        cells = max(call.cells for call in calls)
        loads = [_load(call, int(call.schedule.indices.size)) for call in calls]
        together = min(FRAMES_AT_ONCE * 2 * cells, sum(load.patches_at_once for load in loads))
        return packed(loads, patches_at_once=together)


def in_batches(
    calls: Iterable[Call], model: QwenVL, *, batch_size: int, memory_limit: int | None = None
) -> Iterator[tuple[Call, Answers, int]]:
    """Each call with its answers and the size of its batch, in order.

    Up to `batch_size` calls share the passes, fewer where more would not fit into memory. An error, of `calls`
    itself or of a clip, is raised after the answers of all calls before it; none after it is taken.
    """
    remaining, waiting, failure = iter(calls), list[Call](), None
    while failure is None:
        batch = Batch(model, memory_limit)
        try:
            for call in chain(waiting, remaining):
                waiting = []
                if batch.calls and not batch.has_room_for(call):
                    waiting = [call]
                    break
                batch.add(call)
                if len(batch.calls) == batch_size:
                    break
        except Exception as error:  # raised again below, when the calls before it are done
            failure = error
        if not batch.calls and failure is None:
            return
        if batch.calls:
            for call, answers in zip(batch.calls, batch.answers(), strict=True):
                yield call, answers, len(batch.calls)
    raise failure


def _descriptions(call: Call, trunk: Trunk, odd_features: Features) -> list[str | None]:
    """What the model says it sees, per prefix or once for the whole video."""
    layout = call.lay_out([[prompts.description_request(call.protocol.wording)]] * len(call.counts))
    once = call.protocol.description == "once"
    limit = call.protocol.max_description_tokens
    texts = describe(call.model, layout, trunk, odd_features, max_new_tokens=limit, only_last=once)
    return [texts[-1]] * len(call.counts) if once else list(texts)


def _load(call: Call, frames: int, points_at_once: int | None = None) -> Load:
    """The sizes of a call whose clip has so many sampled frames."""
    layout = call.layout
    share = frames / call.schedule.indices.size
    # A shorter video has as many prefixes, unless every frame or patch is one.
    kept = share if call.protocol.num_prefixes == 0 else 1.0
    odd = round(len(layout.odd_counts) * kept)
    return Load(
        trunk_tokens=round(len(layout.trunk) * share),
        branch_tokens=round(len(layout.branch) * kept),
        visual_tokens=call.cells * (round(layout.trunk_blocks * share) + odd),
        patches_at_once=min(FRAMES_AT_ONCE, frames + odd) * 2 * call.cells,
        scored=round(layout.scored.size * kept),
        frame_bytes=min(FRAMES_AT_ONCE, frames) * call.clip.height * call.clip.width * 3,
        mask_copies=call.model.mask_copies,
        points=round(len(branch_points(layout.branches)) * kept),
        points_at_once=points_at_once,
        stretch=round(longest_stretch(layout.branches) * share / kept),
    )


def _points_at_once(call: Call, limit: int) -> int | None:
    """How many branch points a hybrid keeps states for at once; None where the model keeps none."""
    if not call.model.hybrid:
        return None
    frames, block = int(call.schedule.indices.size), 4 * call.cells
    return fitting_points(
        lambda points: estimate_bytes(call.model.model, _load(call, frames, points), block_patches=block),
        len(branch_points(call.layout.branches)),
        limit,
    )


def _require_memory(call: Call, limit: int) -> None:
    # Where a state for each branch point would not fit, they take turns: one at once is the least there must be.
    fewest = 1 if call.model.hybrid else None
    require(
        lambda frames: estimate_bytes(call.model.model, _load(call, frames, fewest), block_patches=4 * call.cells),
        int(call.schedule.indices.size),
        limit,
        sampling_fps=call.protocol.sampling_fps,
        source=call.clip.source,
    )
