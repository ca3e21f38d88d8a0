"""The attention of the branch pass: every branch sees its part of the trunk, and itself.

In go the queries, keys and values of all branches, side by side in one sequence per video, and the trunk's cache;
out comes the attention output. Registered with transformers under BRANCH_ATTENTION, so that all else in the
decoder layers (norms, rotary embedding, projections, DeepStack, experts, adapters) stays the library's.

Two kernels give the same numbers:

    grouped  a loop over branches, matrix products against views of the trunk's cache: nothing is copied
             and nothing is computed that a branch does not see. Best on a CPU.
    dense    one scaled_dot_product_attention over trunk and branches with a mask: few launches, a little
             waste. Best on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from topreward.qwen.layout import Branch

BRANCH_ATTENTION = "topreward_branch"

Kernel = Literal["grouped", "dense"]


@dataclass
class BranchPlan:
    """What the attention of one branch pass needs to know."""

    branches: tuple[Branch, ...]
    trunk: list[tuple[Tensor, Tensor]]
    """Per layer, keys and values (E, KV heads, trunk tokens, head_dim), a row for each video."""
    kernel: Kernel
    _masks: dict[Any, Any] = field(default_factory=dict)

    @property
    def start(self) -> int:
        """Index of the first branch token of this pass in its row; several videos begin at 0."""
        return self.branches[0].start

    def own_masks(self, device: torch.device) -> list[Tensor]:
        """Per branch, (n, n) true where hidden."""
        key = ("own", device)
        if key not in self._masks:
            self._masks[key] = [torch.from_numpy(~b.mask()).to(device) for b in self.branches]
        masks: list[Tensor] = self._masks[key]
        return masks

    def dense_mask(self, rows: int, total: int, trunk_length: int, device: torch.device) -> Tensor:
        """(rows, 1, total, trunk_length + total) true where seen. `total`: branch tokens in a row."""
        key = ("dense", device)
        if key not in self._masks:
            mask = torch.zeros(rows, total, trunk_length + total, dtype=torch.bool)
            # Padding sees itself: a softmax over nothing is NaN, and 0 times a NaN value is NaN as well.
            mask[:, range(total), range(trunk_length, trunk_length + total)] = True
            for b in self.branches:
                first, last = b.start - self.start, b.stop - self.start
                mask[b.row, first:last, : b.trunk_length] = True
                mask[b.row, first:last, trunk_length + first : trunk_length + last] = torch.from_numpy(b.mask())
            self._masks[key] = mask[:, None].to(device)
        out: Tensor = self._masks[key]
        return out


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
    attend = _grouped if branch_plan.kernel == "grouped" else _dense
    return attend(branch_plan, query, key, value, trunk_key, trunk_value, scaling), None


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
    groups = query.shape[1] // key.shape[1]
    keys = torch.cat([trunk_key, key], dim=2).repeat_interleave(groups, dim=1)
    values = torch.cat([trunk_value, value], dim=2).repeat_interleave(groups, dim=1)
    mask = plan.dense_mask(query.shape[0], query.shape[2], trunk_key.shape[2], query.device)
    mixed: Tensor = scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scaling)
    return mixed.transpose(1, 2).contiguous()


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
