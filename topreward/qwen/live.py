"""The passes over videos that grow: blocks are appended to caches that stay, and questions leave no trace.

In go the next tokens of one or several videos and what the vision tower saw; out come the last hidden states of their
questions. One forward does both: its first tokens stay, the others stand behind the cache only while it runs. Nothing
is copied per pass: keys are written in place, and the storage doubles when it is full. What a pass costs depends on its
own tokens, and on the cache only because the attention reads it. Equal to the passes over a whole video (`model`).

A hybrid's linear layers go on from their state at the end of the trunk; the states at the last two ends are kept,
because a video may take its last block back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from topreward.errors import MemoryLimitError
from topreward.qwen.attention import ALIGNMENT
from topreward.qwen.delta import DeltaPlan, Point, States, Stretch, mixing
from topreward.qwen.layout import Tokens
from topreward.qwen.live_layout import End, Next
from topreward.qwen.memory import USABLE, available_bytes, cache_bytes
from topreward.qwen.model import Features, QwenVL
from topreward.qwen.packing import rows as packed_rows
from topreward.qwen.transfer import upload

LIVE_ATTENTION = "topreward_live"

FIRST_TOKENS = 1024
"""A row's storage to begin with."""


class LiveCache:
    """Keys and values of the trunks of several videos, a row each."""

    def __init__(self, model: QwenVL, rows: int = 1, *, memory_limit: int | None = None) -> None:
        """`memory_limit`: bytes that the keys and values may take; by default what the device has free."""
        self.model = model
        self.memory_limit = memory_limit
        self.rows = rows
        self.capacity = 0
        """Tokens that a row has room for."""
        self.keys: dict[int, Tensor] = {}
        """Per layer of full attention (E, KV heads, capacity, head_dim)."""
        self.values: dict[int, Tensor] = {}
        self.states: States = {}
        """Per linear layer, the states at the rows' last two ends."""

    @property
    def bytes(self) -> int:
        """Of the storage, and of the states."""
        kept = [*self.keys.values(), *self.values.values()]
        kept += [part for points in self.states.values() for state in points.values() for part in state]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    def require(self, tokens: int) -> None:
        """Make sure that a row may hold so many tokens. Raises MemoryLimitError; storage is taken when it is used."""
        if tokens <= self.capacity:
            return
        capacity = max(tokens, 2 * self.capacity, FIRST_TOKENS)
        needed = cache_bytes(self.model.model, capacity) * self.rows
        if self.memory_limit is None:
            there = available_bytes(self.model.device) + cache_bytes(self.model.model, self.capacity) * self.rows
        else:
            there = self.memory_limit
        if needed > there * USABLE:
            raise MemoryLimitError(
                f"the stream's cache would grow to {capacity} tokens in {self.rows} row(s), {needed / 2**30:.2f} GiB; "
                f"{there * USABLE / 2**30:.2f} GiB are usable; lower max_blocks, and set when_full to thin or restart"
            )
        self.capacity = capacity

    def layer(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """One layer's storage, with room for what `require` was asked for."""
        for store in (self.keys, self.values):
            there = store.get(layer)
            if there is None or there.shape[2] < self.capacity:
                # Zeros: a hidden place has weight 0, but 0 times whatever memory held may be NaN.
                room = like.new_zeros(self.rows, like.shape[1], self.capacity, like.shape[3])
                if there is not None:
                    room[:, :, : there.shape[2]] = there
                store[layer] = room
        return self.keys[layer], self.values[layer]

    def keep_states(self, states: States, rows: Sequence[int], nexts: Sequence[Next]) -> None:
        """Take over a pass's states at its rows' ends, and let go of those further back."""
        for row, part in zip(rows, nexts, strict=True):
            last = {end.tokens for end in (part.begin, *part.ends)[-2:]}
            for layer, points in states.items():
                mine = self.states.setdefault(layer, {})
                mine.update({p: s for p, s in points.items() if p[0] == "trunk" and p[1] == row})
                if part.ends:
                    for point in [p for p in mine if p[1] == row and p[2] not in last]:
                        del mine[point]

    def clear(self, row: int) -> None:
        """Forget a row's states; its keys are written over."""
        for points in self.states.values():
            for point in [p for p in points if p[1] == row]:
                del points[point]


@dataclass
class LivePass:
    """What the attention of one pass needs to know."""

    cache: LiveCache
    rows: tuple[int, ...]
    """The cache's row of each row of the pass."""
    nexts: tuple[Next, ...]
    _made: dict[Any, Any] = field(default_factory=dict)

    def spans(self, device: torch.device) -> list[tuple[slice, slice]]:
        """(rows of the pass, rows of the cache) that attend in one call: all at once on a GPU, where all take part."""
        if device.type == "cuda" and self.rows == tuple(range(self.cache.rows)):
            return [(slice(0, len(self.rows)), slice(0, self.cache.rows))]
        return [(slice(place, place + 1), slice(row, row + 1)) for place, row in enumerate(self.rows)]

    def places(self, span: slice, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """(e, 1) rows of the span and (e, width) where in the cache their tokens stand."""
        key = ("places", span.start, device)
        if key not in self._made:
            begins = np.array([part.begin.tokens for part in self.nexts[span]])
            places = upload(begins[:, None] + np.arange(width), device)
            self._made[key] = torch.arange(len(begins), device=device)[:, None], places
        found: tuple[Tensor, Tensor] = self._made[key]
        return found

    def longest(self, span: slice, width: int) -> int:
        """Tokens that a call goes over."""
        return max(part.begin.tokens for part in self.nexts[span]) + width

    def bias(self, span: slice, query: Tensor, copies: int) -> Tensor:
        """(e, 1, copies · n, longest) what is added to the scores: 0 where seen, -inf where hidden."""
        key = ("bias", span.start, query.dtype, query.device)
        if key not in self._made:
            self._made[key] = _bias(self.nexts[span], query, self.longest(span, query.shape[2]), copies)
        found: Tensor = self._made[key]
        return found


def _bias(nexts: Sequence[Next], query: Tensor, longest: int, copies: int) -> Tensor:
    width, device = query.shape[2], query.device
    starts = np.tile(np.arange(width), (len(nexts), 1))  # padding sees itself: a softmax over nothing is NaN
    stems = np.zeros((len(nexts), 1), dtype=np.int64)
    for row, part in enumerate(nexts):
        starts[row, : len(part.tokens)] = part.tail_starts
        stems[row] = part.stem_stop
    begins = upload(np.array([part.begin.tokens for part in nexts]), device)[:, None, None]
    own = torch.arange(longest, device=device) - begins  # (e, 1, longest) number of each key within the pass
    index = torch.arange(width, device=device)[:, None]
    tail, stem = upload(starts, device)[:, :, None], upload(stems, device)[:, :, None]
    seen = (own <= index) & ((own < stem) | (own >= tail))
    stride = -(-longest // ALIGNMENT) * ALIGNMENT
    bias = query.new_zeros(len(nexts), copies, width, stride)
    bias[..., :longest].masked_fill_(~seen[:, None], float("-inf"))
    return bias.flatten(1, 2)[:, None, :, :longest]


def live_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    live: LivePass,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in each layer of a live pass.

    `query`: (E, heads, n, head_dim); `key`, `value`: (E, KV heads, n, head_dim). Returns (E, n, heads, head_dim).
    """
    keys, values = live.cache.layer(int(module.layer_idx), key)  # type: ignore[arg-type]
    heads, width, size = query.shape[1:]
    shared = heads // key.shape[1]
    out = []
    for mine, stored in live.spans(query.device):
        there, place = live.places(mine, width, query.device)
        my_keys, my_values = keys[stored], values[stored]
        my_keys[there, :, place] = key[mine].transpose(1, 2)
        my_values[there, :, place] = value[mine].transpose(1, 2)
        longest = live.longest(mine, width)
        # Query heads that share a KV head are rows of one query, so no key is copied for them.
        folded = query[mine].reshape(-1, key.shape[1], shared * width, size)
        mixed = scaled_dot_product_attention(
            folded,
            my_keys[:, :, :longest],
            my_values[:, :, :longest],
            attn_mask=live.bias(mine, query, shared),
            scale=scaling,
        )
        out.append(mixed.reshape(-1, heads, width, size).transpose(1, 2))
    return torch.cat(out), None


def live_pass(cache: LiveCache, rows: Sequence[int], nexts: Sequence[Next], features: Features) -> list[Tensor]:
    """One forward over what comes next of each row.

    `features`: of all the blocks, one row after the other. Returns for each row (I, hidden): the last hidden state of
    each of its questions. Raises MemoryLimitError before it starts.
    """
    model = cache.model
    width = max(len(part.tokens) for part in nexts)
    cache.require(max(part.begin.tokens for part in nexts) + width)
    live = LivePass(cache, tuple(rows), tuple(nexts))
    tokens: Tokens = packed_rows([part.tokens for part in nexts])
    plan = delta_plan(rows, nexts, width, cache.states) if model.hybrid else None
    linear: AbstractContextManager[None] = nullcontext() if plan is None else mixing(model.text.layers, plan)
    with model.attention(LIVE_ATTENTION), linear:
        hidden = model.decode(tokens, features, use_cache=False, live=live)
    if plan is not None:
        cache.keep_states(plan.states, rows, nexts)
    asked = [upload(np.array(part.tail_stops, dtype=np.int64) - 1, hidden.device) for part in nexts]
    return [hidden[place, last] for place, last in enumerate(asked)]


def delta_plan(rows: Sequence[int], nexts: Sequence[Next], width: int, states: States) -> DeltaPlan:
    """The stretches of a pass for linear layers: up to the last two ends of the trunk, the stem, then every tail."""
    trunks, stems, tails = [], [], []
    for place, (row, part) in enumerate(zip(rows, nexts, strict=True)):
        offset, first = place * width, 0
        begins = _point(row, part.begin)
        for end in part.ends[-2:]:
            stop = end.tokens - part.begin.tokens
            trunks.append(Stretch(offset + first, offset + stop, begins, _point(row, end)))
            first, begins = stop, _point(row, end)
        if part.stem_stop > first:
            stem: Point = ("stem", row, 0)
            stems.append(Stretch(offset + first, offset + part.stem_stop, begins, stem))
            first, begins = part.stem_stop, stem
        for stop in part.tail_stops:
            tails.append(Stretch(offset + first, offset + stop, begins))
            first = stop
    return DeltaPlan((*trunks, *stems, *tails), len(rows) * width, states, keeps=True)


def _point(row: int, end: End) -> Point | None:
    return ("trunk", row, end.tokens) if end.tokens else None


ALL_ATTENTION_FUNCTIONS.register(LIVE_ATTENTION, live_attention)
