"""Clips that are asked about at the same time, in as few passes as fit: each has its own answer, or its own error.

In go clips with their instructions, in any order and of any length; out comes an Outcome each. Clips of a size stand
together, so that little is padding. Knows no episode: an episode's controls are clips like any other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from topreward.config import Protocol
from topreward.estimators.topreward.call import Call
from topreward.estimators.topreward.one_pass import Batch
from topreward.qwen.model import QwenVL
from topreward.sampling import TEMPORAL_PATCH, make_schedule
from topreward.types import Clip, Curve

FULL_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Trunk tokens that keep a device busy: beyond them, one more clip in a pass costs as much as a pass of its own."""
MOST_PADDED = 1.25
"""Where nobody says how many clips share a pass: most tokens of it, padding included, per token of the clips."""

Shown = Sequence[tuple[Clip, Sequence[str]]]
"""Clips, each with its instructions."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one clip: a Curve per instruction, or an error."""

    curves: list[Curve]
    error: Exception | None
    seconds: float
    """Its part of the passes' time, by tokens (the padding is everyone's), s."""
    note: str | None = None
    """What a careful reader must know."""


@torch.inference_mode()
def score_together(
    model: QwenVL,
    shown: Shown,
    protocol: Protocol,
    *,
    batch_size: int | None = None,
    memory_limit: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Outcome]:
    """Score all; raises nothing that concerns one clip.

    `batch_size`: most clips in a pass; None: as many as keep the device busy. Fewer where more do not fit into memory.
    A pass of several that fails is made again clip by clip. `clock`: s, may stand still for what is not to be counted.
    """
    out: dict[int, Outcome] = {}
    calls: dict[int, Call] = {}
    laid_out: dict[int, float] = {}
    for number, (clip, texts) in enumerate(shown):
        start = clock()
        try:
            calls[number] = Call(model, clip, list(texts), protocol)
        except Exception as failure:
            out[number] = Outcome([], failure, clock() - start)
        laid_out[number] = clock() - start
    waiting = deque(sorted(calls, key=lambda n: (len(calls[n].instructions), *_tokens(calls[n]), n)))
    while waiting:
        start = clock()
        batch, members = Batch(model, memory_limit), list[int]()
        while waiting and (batch_size is None or len(members) < batch_size):
            number = waiting[0]
            call = calls[number]
            if members and not ((batch_size is not None or _pays(batch.calls, call)) and batch.has_room_for(call)):
                break
            waiting.popleft()
            try:
                batch.add(call)
            except Exception as failure:
                out[number] = Outcome([], failure, laid_out[number])
            else:
                members.append(number)
        if not members:
            continue
        try:
            answers = batch.answers()
        except Exception as failure:
            if len(members) == 1:
                out[members[0]] = Outcome([], failure, laid_out[members[0]] + clock() - start)
            else:
                note = f"was asked alone: together, {type(failure).__name__}"
                out |= {n: _alone(calls[n], memory_limit, laid_out[n], clock, note) for n in members}
            continue
        seconds, tokens = clock() - start, [sum(_tokens(calls[n])) for n in members]
        for number, found, count in zip(members, answers, tokens, strict=True):
            curves = calls[number].curves(found, one_pass=True, packed=len(members))
            out[number] = Outcome(curves, None, laid_out[number] + seconds * count / sum(tokens))
    return [out[number] for number in range(len(shown))]


def share_of_pass(clip: Clip, cells: int, protocol: Protocol, device: str) -> float:
    """About which part of a pass that keeps the device busy one clip is. `cells`: visual tokens of a block."""
    blocks = -(-make_schedule(clip.pts_seconds, clip.fps, protocol).indices.size // TEMPORAL_PATCH)
    return blocks * cells / _full_tokens(device)


def _full_tokens(device: str) -> int:
    return FULL_TOKENS.get(device, FULL_TOKENS["cuda"])


def _tokens(call: Call) -> tuple[int, int]:
    return len(call.layout.trunk), len(call.layout.branch)


def _pays(batch: Sequence[Call], call: Call) -> bool:
    """Whether a pass with one more clip is cheaper than one more pass."""
    tokens = [_tokens(c) for c in (*batch, call)]
    widths = [max(trunk for trunk, _ in tokens), max(branch for _, branch in tokens)]
    padded = len(tokens) * sum(widths)
    if len(tokens) * widths[0] > _full_tokens(call.model.device.type):
        return False
    return padded <= MOST_PADDED * sum(trunk + branch for trunk, branch in tokens)


def _alone(call: Call, memory_limit: int | None, before: float, clock: Callable[[], float], note: str) -> Outcome:
    start = clock()
    try:
        batch = Batch(call.model, memory_limit)
        batch.add(call)
        [answers] = batch.answers()
    except Exception as failure:
        return Outcome([], failure, before + clock() - start, note)
    return Outcome(call.curves(answers, one_pass=True), None, before + clock() - start, note)
