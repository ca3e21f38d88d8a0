"""Greedy continuations of all branches at once, on the shared trunk.

In go a layout whose questions ask for text, the prefilled trunk and the odd blocks' features; out comes one
text per branch. Each step is one forward with one token per unfinished branch; the trunk is never copied,
and every branch keeps only its own tokens' keys and values. Equal to `model.generate` on each whole prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from topreward.qwen.layout import Layout, Tokens
from topreward.qwen.model import Features, QwenVL, Trunk

DECODE_ATTENTION = "topreward_decode"


@dataclass
class DecodePlan:
    """The tokens so far of all branches, and whose they are."""

    trunk: list[tuple[Tensor, Tensor]]
    own: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Per layer, keys and values of all branch tokens so far, side by side."""
    mask: Tensor | None = None
    """(1, 1, Q, trunk + tokens so far) true where seen."""


def decode_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    decode_plan: DecodePlan,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function of one decoding step; appends the step's keys and values to the plan."""
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if layer in decode_plan.own:
        before_key, before_value = decode_plan.own[layer]
        key, value = torch.cat([before_key, key], dim=2), torch.cat([before_value, value], dim=2)
    decode_plan.own[layer] = (key, value)
    if decode_plan.trunk:
        trunk_key, trunk_value = decode_plan.trunk[layer]
        key, value = torch.cat([trunk_key, key], dim=2), torch.cat([trunk_value, value], dim=2)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    assert decode_plan.mask is not None
    mask = decode_plan.mask.to(query.device)
    mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return mixed.transpose(1, 2).contiguous(), None


def describe(
    model: QwenVL,
    layout: Layout,
    trunk: Trunk,
    features: Features,
    *,
    max_new_tokens: int,
    only_last: bool = False,
) -> list[str]:
    """The model's greedy answer to each branch's one question. `only_last`: of the longest prefix alone."""
    branches = layout.branches[-1:] if only_last else layout.branches
    first = branches[0].start
    ids, positions = layout.branch.ids[first:], layout.branch.positions[:, first:]
    visual = layout.branch.visual[first:]
    rows = features[slice(int(layout.branch.visual[:first].sum()), None)]

    owner = np.concatenate([np.full(len(b), i) for i, b in enumerate(branches)])
    causal = np.zeros((owner.size, owner.size), dtype=bool)
    for b in branches:
        causal[b.start - first : b.stop - first, b.start - first : b.stop - first] = b.mask()
    seen_trunk = np.array([b.trunk_length for b in branches])
    plan = DecodePlan(trunk.layers)
    plan.mask = _mask(seen_trunk[owner], trunk.length, causal)
    with model.attention(DECODE_ATTENTION):
        hidden = model.decode(Tokens(ids, positions, visual), rows, use_cache=False, decode_plan=plan)
        last = np.array([b.stop - 1 - first for b in branches])
        place = positions[0, last]
        active = np.arange(len(branches))
        texts: list[list[int]] = [[] for _ in branches]
        for step in range(max_new_tokens):
            chosen = model.next_tokens(hidden[0, torch.from_numpy(last).to(hidden.device)])
            for branch, token in zip(active, chosen, strict=True):
                texts[branch].append(int(token))
            going = ~np.isin(chosen, model.stop_tokens)
            active, chosen = active[going], chosen[going]
            if not active.size or step == max_new_tokens - 1:
                break
            place = place[going] + 1
            owner = np.concatenate([owner, active])
            own = owner[None] == active[:, None]
            plan.mask = _mask(seen_trunk[active], trunk.length, own)
            tokens = Tokens(chosen, np.tile(place, (3, 1)), np.zeros(chosen.size, dtype=bool))
            hidden = model.decode(tokens, rows, use_cache=False, decode_plan=plan)
            last = np.arange(active.size)
    return [model.decode_text(text) for text in texts]


def _mask(seen_trunk: NDArray[np.int64], trunk_length: int, own: NDArray[np.bool_]) -> Tensor:
    trunk = np.arange(trunk_length)[None] < seen_trunk[:, None]
    return torch.from_numpy(np.concatenate([trunk, own], axis=1))[None, None]


ALL_ATTENTION_FUNCTIONS.register(DECODE_ATTENTION, decode_attention)
