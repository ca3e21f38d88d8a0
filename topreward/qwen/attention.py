"""The attention of the branch pass: every branch sees its part of the trunk, and itself.

In go the queries, keys and values of all branches, side by side in one sequence per video, and the trunk's cache;
out comes the attention output. Registered with transformers under BRANCH_ATTENTION, so that all else in the
decoder layers (norms, rotary embedding, projections, DeepStack, experts, adapters) stays the library's.

Three kernels give the same numbers:

    grouped  a loop over branches, matrix products against views of the trunk's cache: nothing is copied
             and nothing is computed that a branch does not see. Best on a CPU.
    dense    one scaled_dot_product_attention over trunk and branches with a mask: few launches, a little
             waste. Made for a GPU.
    folded   a few of them, each over neighbouring branches and the trunk up to where the last of them leaves
             it. Query heads that share a KV head are rows of one query, so no key is copied for them.
             Made for a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from topreward.qwen.layout import Branch
from topreward.qwen.transfer import upload

BRANCH_ATTENTION = "topreward_branch"

Kernel = Literal["grouped", "dense", "folded"]

# Elements between the rows of a mask are a multiple of this: else a GPU's kernels copy it in every layer.
ALIGNMENT = 16


@dataclass(frozen=True)
class Group:
    """Branch tokens that attend in one call."""

    first: int
    last: int
    """They are [first, last) in each row of this pass."""
    trunk: int
    """Trunk tokens that the call goes over: those that any of them sees."""


@dataclass
class BranchPlan:
    """What the attention of one branch pass needs to know."""

    branches: tuple[Branch, ...]
    trunk: Mapping[int, tuple[Tensor, Tensor]] | Sequence[tuple[Tensor, Tensor]]
    """Per layer, keys and values (E, KV heads, trunk tokens, head_dim), a row for each video."""
    kernel: Kernel
    _made: dict[Any, Any] = field(default_factory=dict)
    """What all layers share: masks, by device and sizes."""

    @property
    def start(self) -> int:
        """Index of the first branch token of this pass in its row; several videos begin at 0."""
        return self.branches[0].start

    def own_masks(self, device: torch.device) -> list[Tensor]:
        """Per branch, (n, n) true where hidden."""
        key = ("own", device)
        if key not in self._made:
            self._made[key] = [upload(~b.mask(), device) for b in self.branches]
        masks: list[Tensor] = self._made[key]
        return masks

    def groups(self, rows: int, total: int, trunk_length: int) -> list[Group]:
        """The calls of the folded kernel, per layer. `total`: branch tokens in each of the `rows`.

        Several packed videos are one group: their branches end at different tokens, and their trunks are short.
        """
        count = folded_groups(total) if rows == 1 else 1
        if count == 1:
            return [Group(0, total, trunk_length)]
        stops = np.array([b.stop - self.start for b in self.branches])
        # Cut behind the branch in which each share of the tokens ends.
        ends = np.unique(np.searchsorted(stops, np.arange(1, count + 1) * total / count))
        groups, first = [], 0
        for end in ends:
            last = int(stops[end])
            seen = max(b.trunk_length for b in self.branches if first <= b.start - self.start < last)
            groups.append(Group(first, last, seen))
            first = last
        return groups

    def bias(self, group: Group, query: Tensor, copies: int = 1) -> Tensor:
        """(E, 1, copies · n, trunk + n) what is added to the scores of a group: 0 where seen, -inf where hidden.

        `query`: (E, heads, Q, head_dim), which gives dtype and device. `copies`: query heads that share a row.
        """
        key = ("bias", group, copies, query.dtype, query.device)
        if key not in self._made:
            sight = self._sight(query.shape[0], query.shape[2], query.device)
            self._made[key] = _bias(sight, group, copies, query.dtype)
        out: Tensor = self._made[key]
        return out

    def _sight(self, rows: int, total: int, device: torch.device) -> Tensor:
        key = ("sight", device)
        if key not in self._made:
            self._made[key] = upload(sight(self.branches, self.start, rows, total), device)
        out: Tensor = self._made[key]
        return out


def folded_groups(tokens: int) -> int:
    """Calls per layer that so many branch tokens are worth: each goes over less of the trunk than one would."""
    return 1 if tokens < 300 else 2 if tokens < 600 else 4


def sight(branches: tuple[Branch, ...], start: int, rows: int, total: int) -> NDArray[np.int32]:
    """(4, E, Q) what each branch token sees: how much of the trunk, and which of the tokens up to itself.

    They are: the trunk tokens it sees; first and stop of its branch's stem; first token of its own tail. A token of
    a stem counts the stem as its tail. `start`: index of the first token in its row. Padding sees itself: a softmax
    over nothing is NaN, and 0 times a NaN value is NaN as well.
    """
    out = np.zeros((4, rows, total), dtype=np.int32)
    out[1:] = np.arange(total)
    for b in branches:
        first, stem_stop = b.start - start, b.stem_stop - start
        out[0, b.row, first : b.stop - start] = b.trunk_length
        out[1, b.row, first : b.stop - start] = first
        out[2, b.row, first : b.stop - start] = stem_stop
        out[3, b.row, first:stem_stop] = first
        tail = stem_stop
        for stop in b.tail_stops:
            out[3, b.row, tail : stop - start] = tail
            tail = stop - start
    return out


def _bias(sight: Tensor, group: Group, copies: int, dtype: torch.dtype) -> Tensor:
    trunk_seen, stem, stem_stop, tail = sight[:, :, group.first : group.last, None]  # (E, n, 1) each
    keys = torch.arange(group.first, group.last, dtype=torch.int32, device=sight.device)
    seen = (keys <= keys[:, None]) & (((keys >= stem) & (keys < stem_stop)) | (keys >= tail))
    length = group.trunk + keys.numel()
    stride = -(-length // ALIGNMENT) * ALIGNMENT
    bias = torch.zeros(len(seen), copies, keys.numel(), stride, dtype=dtype, device=sight.device)
    trunk = torch.arange(group.trunk, dtype=torch.int32, device=sight.device)
    bias[..., : group.trunk].masked_fill_((trunk >= trunk_seen)[:, None], float("-inf"))
    bias[..., group.trunk : length].masked_fill_(~seen[:, None], float("-inf"))
    return bias.flatten(1, 2)[:, None, :, :length]


def branch_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    branch_plan: BranchPlan,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in each decoder layer of a branch pass.

    `query`: (E, heads, Q, head_dim); `key`, `value`: (E, KV heads, Q, head_dim), the branches' own; a row for
    each video. Returns (E, Q, heads, head_dim).
    """
    if branch_plan.trunk:
        trunk_key, trunk_value = branch_plan.trunk[int(module.layer_idx)]  # type: ignore[arg-type]
    else:  # a clip of one frame has no whole block, so no trunk
        trunk_key, trunk_value = key[:, :, :0], value[:, :, :0]
    return _KERNELS[branch_plan.kernel](branch_plan, query, key, value, trunk_key, trunk_value, scaling), None


def _grouped(
    plan: BranchPlan, query: Tensor, key: Tensor, value: Tensor, trunk_key: Tensor, trunk_value: Tensor, scaling: float
) -> Tensor:
    rows, heads, total, width = query.shape
    kv_heads = key.shape[1]
    out = query.new_zeros(rows, total, heads, width)  # padding stays finite
    for branch, hidden in zip(plan.branches, plan.own_masks(query.device), strict=True):
        first, last, n = branch.start - plan.start, branch.stop - plan.start, len(branch)
        row, seen = branch.row, branch.trunk_length
        # Query heads that share a KV head become rows of one product: (KV heads, group * n, head_dim).
        q = (query[row, :, first:last] * scaling).reshape(kv_heads, -1, width)
        scores = query.new_empty(kv_heads, q.shape[1], seen + n)
        torch.bmm(q, trunk_key[row, :, :seen].transpose(1, 2), out=scores[:, :, :seen]) if seen else None
        own = torch.bmm(q, key[row, :, first:last].transpose(1, 2))
        own = own.view(kv_heads, -1, n, n).masked_fill_(hidden, float("-inf"))
        scores[:, :, seen:] = own.view(kv_heads, -1, n)
        # fp32: a softmax over thousands of keys loses nearby prefixes in bf16
        weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
        mixed = torch.bmm(weights[:, :, seen:], value[row, :, first:last])
        if seen:
            mixed = torch.baddbmm(mixed, weights[:, :, :seen], trunk_value[row, :, :seen])
        out[row, first:last] = mixed.view(heads, n, width).transpose(0, 1)
    return out


def _dense(
    plan: BranchPlan, query: Tensor, key: Tensor, value: Tensor, trunk_key: Tensor, trunk_value: Tensor, scaling: float
) -> Tensor:
    shared = query.shape[1] // key.shape[1]
    keys = torch.cat([trunk_key, key], dim=2).repeat_interleave(shared, dim=1)
    values = torch.cat([trunk_value, value], dim=2).repeat_interleave(shared, dim=1)
    bias = plan.bias(Group(0, query.shape[2], trunk_key.shape[2]), query)
    mixed: Tensor = scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=scaling)
    return mixed.transpose(1, 2).contiguous()


def _folded(
    plan: BranchPlan, query: Tensor, key: Tensor, value: Tensor, trunk_key: Tensor, trunk_value: Tensor, scaling: float
) -> Tensor:
    rows, heads, total, width = query.shape
    kv_heads = key.shape[1]
    shared = heads // kv_heads
    out = []
    for group in plan.groups(rows, total, trunk_key.shape[2]):
        span = slice(group.first, group.last)
        q = query[:, :, span].reshape(rows, kv_heads, -1, width)
        keys = torch.cat([trunk_key[:, :, : group.trunk], key[:, :, span]], dim=2)
        values = torch.cat([trunk_value[:, :, : group.trunk], value[:, :, span]], dim=2)
        bias = plan.bias(group, query, copies=shared)
        mixed = scaled_dot_product_attention(q, keys, values, attn_mask=bias, scale=scaling)
        out.append(mixed.reshape(rows, heads, -1, width).transpose(1, 2))
    return torch.cat(out, dim=1)


_KERNELS = {"grouped": _grouped, "dense": _dense, "folded": _folded}


@contextmanager
def attention_set_to(config: Any, name: str) -> Iterator[None]:
    """Within it, the layers of this config run the attention registered under that name."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


ALL_ATTENTION_FUNCTIONS.register(BRANCH_ATTENTION, branch_attention)
